"""``carousel train``: captioned photos in, a model and its report out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    captions: Annotated[
        Path, typer.Argument(help="JSON Lines, CSV, a Flickr token file, or Karpathy's or COCO's JSON; may be .gz.")
    ],
    images: Annotated[Path, typer.Option("--images", metavar="DIR", help="The folder of the photos.")],
    run: Annotated[Path, typer.Option("--run", metavar="DIR", help="Where everything is written.")] = Path(
        "runs/captioner"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that was stopped in --run.")] = False,
    start_from: Annotated[
        Path | None, typer.Option("--from", metavar="MODEL", help="A model file of the same shape to begin with.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE.toml", help="Settings, one a line.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="One setting; may be repeated. --settings lists them."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of order, initial weights and dropout.")] = None,
    train_list: Annotated[Path | None, typer.Option(help="Photo names to train on, one a line.")] = None,
    val_list: Annotated[Path | None, typer.Option(help="Photo names to validate on.")] = None,
    test_list: Annotated[Path | None, typer.Option(help="Photo names to keep for evaluation.")] = None,
    lr_find: Annotated[
        bool, typer.Option("--lr-find", help="Look for a learning rate first, by a range test, and train with it.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; by default torch's choice.")] = None,
    list_settings: Annotated[
        bool,
        typer.Option(
            "--settings",
            is_eager=True,
            callback=lambda wanted: _list_settings() if wanted else None,
            help="List the settings and exit.",
        ),
    ] = False,
) -> None:
    """Train a captioner on photos with captions."""
    import torch

    from carousel.captioning.settings import read_settings
    from carousel.tasks import captioning

    if threads is not None:
        torch.set_num_threads(threads)
    chosen = read_settings(config, [*(settings or []), *([f"seed={seed}"] if seed is not None else [])])
    named = {"train": train_list, "val": val_list, "test": test_list}
    lists = {split: path for split, path in named.items() if path is not None}
    captioning.train(
        captions,
        images,
        run=run,
        lists=lists or None,  # type: ignore[arg-type]
        resume=resume,
        start_from=start_from,
        config=chosen,
        lr_find=lr_find,
    )
    print(f"{run / 'model.safetensors'}\n{run / 'report.html'}")


def _list_settings() -> None:
    from carousel.captioning.settings import describe_settings

    print(describe_settings())
    raise typer.Exit
