"""``carousel inspect``: what goes on inside a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a model file.")],
    data: Annotated[
        Path, typer.Option("--data", metavar="FILE", help="What the network is to read, as its task does.")
    ],
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="The photos' folder; by default that of the captions."),
    ] = None,
    sequences: Annotated[int, typer.Option(min=1, help="How many to look at.")] = 64,
    unit: Annotated[
        list[int] | None,
        typer.Option("--unit", min=0, help="Colour the tokens by this unit of each layer; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the page and the pictures go; RUN/inspection.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; by default torch's choice.")] = None,
) -> None:
    """See inside a trained network: gradients back through time, gates, memory, spectra; a page, and PNGs."""
    import torch

    from carousel.diagnostics import inspection

    if threads is not None:
        torch.set_num_threads(threads)
    print(inspection.inspect(run, data, images=images, sequences=sequences, units=unit or (), out=out))
