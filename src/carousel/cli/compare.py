"""``carousel compare``: which recurrence does best on a problem, at equal parameters and equal time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from carousel.tasks.comparison import Comparison


def compare(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="adding, copy, digits, chorales, or a file of your own: sequences in JSON Lines, texts with labels.",
        ),
    ],
    cells: Annotated[
        str,
        typer.Option(
            "--cells",
            metavar="NAME,NAME...",
            help='See `carousel cells`; each may have options: "lstm,lstm forget_bias=3 layers=2".',
        ),
    ] = "elman,lstm,gru",
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="PATH", help="digits: the folder of MNIST's idx files; chorales: the .mat file."
        ),
    ] = None,
    length: Annotated[int | None, typer.Option(min=1, help="T of adding or copy; by default 100.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.001, help="Of training, for each run; 1 unless --steps is given.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Equal steps instead of equal time.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs for each network.")] = 3,
    parameters: Annotated[
        int | None, typer.Option(min=1, help="Of each whole network; by default what suits the task.")
    ] = None,
    rate: Annotated[
        list[float] | None,
        typer.Option("--rate", min=1e-9, help="Learning rate; may be repeated: the best on validation data counts."),
    ] = None,
    optimiser: Annotated[
        str, typer.Option(metavar="NAME", help="Of torch.optim: adam, adamw, rmsprop, sgd ...")
    ] = "adam",
    clip_norm: Annotated[float, typer.Option(min=1e-9, help="The greatest norm of the gradients; inf: any.")] = 1.0,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Sequences a step.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; by default torch's choice.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where compare.md, .json and .png go; finished runs there are kept."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Train several recurrences on one problem, with equal parameters and for equal time, and print which does best."""
    import torch

    from carousel.tasks import comparison

    if threads is not None:
        torch.set_num_threads(threads)
    found = comparison.compare(
        task,
        [name.strip() for name in cells.split(",") if name.strip()],
        data=data,
        length=length,
        minutes=minutes,
        steps=steps,
        seeds=seeds,
        parameters=parameters,
        learning_rates=rate or (3e-3,),
        optimiser=optimiser,
        clip_norm=clip_norm,
        batch_size=batch_size,
        out=out,
    )
    if as_json:
        print(found.json())
    else:
        _print(found)


def _print(found: Comparison) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from carousel.tasks.comparison import COLUMNS

    lines = list(found.lines())
    one_rate = len({run.learning_rate for run in found.runs}) == 1  # which the caption says
    shown = [
        k for k, name in enumerate(COLUMNS) if any(line[k] for line in lines) and not (name == "rate" and one_rate)
    ]
    table = Table(title=found.about, caption=found.conditions, box=SIMPLE)
    for k in shown:
        table.add_column(COLUMNS[k], justify="left" if k == 0 else "right")
    for line in lines[: len(found.rows)]:
        table.add_row(*(line[k] for k in shown))
    table.add_section()
    for line in lines[len(found.rows) :]:
        table.add_row(*(line[k] for k in shown))
    console = Console()
    console.width = console.width if console.is_terminal else 120  # a pipe has no width
    console.print(table)
