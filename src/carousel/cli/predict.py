"""``carousel predict``: what a trained model says of texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from carousel.tasks.task import Model


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a model file.")],
    data: Annotated[
        str, typer.Argument(metavar="[FILE | -]", help="What `carousel train` reads, or - for lines of standard input.")
    ] = "-",
    explain: Annotated[
        bool, typer.Option("--explain", help="Colour the tokens by what they speak for, where the task can.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; by default torch's choice.")] = None,
) -> None:
    """Say what a trained model makes of texts, one line for each."""
    import torch

    from carousel.errors import ConfigError
    from carousel.tasks.verbs import load

    if threads is not None:
        torch.set_num_threads(threads)
    model = load(run)
    ask = model.predict
    if explain:
        if not hasattr(model, "explain"):
            raise ConfigError(f"--explain: not for this task (got {run}); one that explains, such as classify; omit it")
        ask = model.explain
    for texts in _inputs(model, data):
        for prediction in ask(texts):
            print(_line(prediction, as_json), flush=data == "-")


def _line(prediction: Any, as_json: bool) -> str:
    if as_json:
        return json.dumps(prediction.as_json(), ensure_ascii=False)
    return str(prediction.coloured() if hasattr(prediction, "coloured") and sys.stdout.isatty() else prediction)


def _inputs(model: Model, data: str, size: int = 64) -> Iterator[list[str]]:
    """Lines of standard input one by one as they come; of a file some at a time."""
    if data == "-":
        for line in sys.stdin:
            yield [line.rstrip("\r\n")]
        return
    from carousel.data.tables import open_table

    table = open_table(data)
    column, texts = model.input_column(table), list[str]()
    for row in table.rows():
        texts.append(row.text(column))
        if len(texts) == size:
            yield texts
            texts = []
    if texts:
        yield texts
