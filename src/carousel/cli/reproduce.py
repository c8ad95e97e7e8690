"""``carousel reproduce``: a paper's experiment, beside what the paper says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from carousel.reading_list import Reproduction


def reproduce(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="An experiment or a paper; without one they are listed.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Trials; by default as many as are due to the paper.")] = None,
    sequences: Annotated[int | None, typer.Option(help="Of one trial, at most.")] = None,
    only: Annotated[
        str | None, typer.Option("--only", metavar="TEXT", help="Only the conditions that have this in their name.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="PATH", help="The files, for the experiments that read some.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads; small networks are fastest on one.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where NAME.md, .json and .png go; trials that are there are kept."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the tables.")] = False,
) -> None:
    """Repeat a paper's experiment over its seeds, and print the results beside the paper's."""
    import torch

    from carousel import reading_list

    if name is None:
        for paper, module in reading_list.PAPERS.items():
            print(f"{paper}: {module.PAPER}")
            for experiment in module.EXPERIMENTS:
                print(f"    {experiment.name}: {', '.join(condition.name for condition in experiment.conditions)}")
        return
    torch.set_num_threads(threads)
    found = reading_list.reproduce(name, seeds=seeds, sequences=sequences, only=only, data=data, out=out)
    if as_json:
        print("[" + ",\n".join(one.json() for one in found) + "]")
    else:
        for one in found:
            _print(one)


def _print(found: Reproduction) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from carousel.reading_list.reproduction import COLUMNS

    console = Console()
    console.width = console.width if console.is_terminal else 120  # a pipe has no width
    table = Table(title=f"{found.experiment.name}: {found.experiment.paper}", caption=found.conditions, box=SIMPLE)
    for k, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if k < 2 else "right")
    for line in found.lines():
        table.add_row(*line)
    console.print(found.experiment.about, highlight=False)
    console.print(table)
    for remark in found.remarks:
        console.print(remark, highlight=False)
