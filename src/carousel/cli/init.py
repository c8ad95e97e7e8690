"""``carousel init``: every setting of a task, with what it means, in a file to edit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    data: Annotated[
        Path | None, typer.Argument(metavar="[DATA]", help="What the model is to learn from; or name a --task.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="By default that which the data is for.")] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="The folder of the photos, where DATA is captions.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.toml", help="The file to write.")] = Path("carousel.toml"),
) -> None:
    """Write a config file with every setting, for `carousel train --config`."""
    from carousel.errors import ConfigError
    from carousel.tasks.task import Source, task_for, task_named
    from carousel.training import write_atomically
    from carousel.training.settings import commented

    if out.exists():
        raise ConfigError(f"{out}: is there already (got a file); a new name; choose another with --out")
    if task is None and data is None:
        raise ConfigError("carousel init: for nothing (got no data and no task); one of them; see carousel init --help")
    chosen = task_named(task) if task else task_for(Source(data or Path(), images=images))[0]
    begins = f"# carousel train {data or 'DATA'} --task {chosen.name} --config {out}\n\n"
    write_atomically(out, (begins + commented(chosen.config())).encode())
    print(out)
