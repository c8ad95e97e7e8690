"""``carousel ensemble``: captioners of several seeds as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carousel.errors import ConfigError


def ensemble(
    models: Annotated[list[Path], typer.Argument(help="Captioners' files or run folders, of one shape.")],
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="The file to write.")],
) -> None:
    """Join captioners of several seeds into one that averages their probabilities."""
    if len(models) < 2:
        raise ConfigError(f"ensemble: too few models (got {len(models)}); two or more; name their files")
    from carousel.captioning import Captioner
    from carousel.captioning.ensemble import ensemble as join
    from carousel.tasks.task import model_path

    paths = [model_path(model) for model in models]
    join([Captioner.load(path) for path in paths], [str(path) for path in paths]).save(output)
    print(output)
