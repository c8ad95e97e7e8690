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
    conll: Annotated[
        bool,
        typer.Option(
            "--conll", help="Standard input has a token a line, in its first column, and a blank line after a sentence."
        ),
    ] = False,
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
    for texts in _inputs(model, data, conll=conll):
        for prediction in ask(texts):
            print(_line(prediction, as_json), flush=data == "-")


def _line(prediction: Any, as_json: bool) -> str:
    if as_json:
        return json.dumps(prediction.as_json(), ensure_ascii=False)
    return str(prediction.coloured() if hasattr(prediction, "coloured") and sys.stdout.isatty() else prediction)


def _inputs(model: Model, data: str, size: int = 64, *, conll: bool = False) -> Iterator[list[Any]]:
    """Lines, or sentences, of standard input one by one as they come; of a file some at a time."""
    from carousel.data.conll import sentences
    from carousel.data.tables import Row, open_table

    if data == "-":
        lines = (line.rstrip("\r\n") for line in sys.stdin)
        yield from ([one] for one in (sentences(lines) if conll else lines))
        return
    table = open_table(data)
    column, texts = model.input_column(table), list[Any]()
    read = getattr(model, "input_of", Row.text)
    for row in table.rows():
        texts.append(read(row, column))
        if len(texts) == size:
            yield texts
            texts = []
    if texts:
        yield texts
