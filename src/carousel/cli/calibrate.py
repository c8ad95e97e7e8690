"""``carousel calibrate``: a captioner learns which of its sentences to choose, and how sure to be of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def calibrate(
    model: Annotated[Path, typer.Argument(help="A captioner's file or run folder; it is written again.")],
    captions: Annotated[Path, typer.Argument(help="Captioned photos, as `carousel train` reads them.")],
    images: Annotated[Path, typer.Option("--images", metavar="DIR", help="The folder of the photos.")],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write there, and leave MODEL as it is.")
    ] = None,
    beam: Annotated[
        int | None,
        typer.Option(
            "--beam", min=2, max=100, help="How many candidates to choose from; by default 20, or the model's."
        ),
    ] = None,
    refuse: Annotated[
        float, typer.Option("--refuse", min=0, max=0.9, help="The share of captions, the least sure, to hedge.")
    ] = 0.2,
    similarity: Annotated[
        bool, typer.Option(help="Train a model of which sentence fits a photo, and use it (2.6 MB of the file).")
    ] = True,
    run: Annotated[Path, typer.Option("--run", metavar="DIR", help="Where the similarity model is trained.")] = Path(
        "runs/similarity"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with its training that was stopped.")] = False,
    val_list: Annotated[Path | None, typer.Option(help="Photo names to tune on.")] = None,
    train_list: Annotated[Path | None, typer.Option(help="Photo names to train the similarity model on.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the similarity model; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of training and tuning.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; by default torch's choice.")] = None,
) -> None:
    """Teach a captioner to choose among its sentences, and to say how sure it is."""
    import torch

    from carousel.tasks.calibration import SMALL
    from carousel.tasks.calibration import calibrate as run_it
    from carousel.tasks.task import model_path
    from carousel.training.settings import read_settings

    if threads is not None:
        torch.set_num_threads(threads)
    named = {"train": train_list, "val": val_list}
    sizes = [f"{name}={getattr(SMALL, name)}" for name in ("trigram_size", "maps", "size")]
    config = read_settings(type(SMALL), None, [*sizes, f"seed={seed}", *(settings or [])])
    path = model_path(model)
    found = run_it(
        path,
        captions,
        images,
        lists={split: file for split, file in named.items() if file is not None},  # type: ignore[misc]
        beam=beam,
        refuse=refuse,
        similarity=similarity,
        run=run,
        resume=resume,
        config=config,
        output=output,
        seed=seed,
    )
    print(f"{found}\n{output or path}")
