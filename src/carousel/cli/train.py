"""``carousel train``: a file or folder in, a model and its report out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carousel.errors import ConfigError


def train(
    data: Annotated[
        Path | None,
        typer.Argument(
            help="CSV, TSV, JSON Lines, Parquet, text, a folder of files by split, by class or in parallel; may be .gz."
        ),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="By default that which the data is for.")] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="The folder of the photos, where DATA is captions.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="Where everything is written; runs/DATA-TASK.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that was stopped in --run.")] = False,
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="A model file of the same shape to begin with; to classify, a language model's too.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="CELL", help="lstm, gru, ...: short for --set cell=CELL.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE.toml", help="Settings, one a line.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="One setting; may be repeated. --settings lists them."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of order, initial weights and dropout.")] = None,
    val_file: Annotated[Path | None, typer.Option("--val-file", help="Rows to validate on, as DATA.")] = None,
    test_file: Annotated[Path | None, typer.Option("--test-file", help="Rows for the score at the end.")] = None,
    train_list: Annotated[Path | None, typer.Option(help="Photo names to train on, one a line.")] = None,
    val_list: Annotated[Path | None, typer.Option(help="Photo names to validate on.")] = None,
    test_list: Annotated[Path | None, typer.Option(help="Photo names to keep for evaluation.")] = None,
    lr_find: Annotated[
        bool, typer.Option("--lr-find", help="Look for a learning rate first, by a range test, and train with it.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; by default torch's choice.")] = None,
    list_settings: Annotated[
        bool, typer.Option("--settings", help="List the settings of the task, or of all tasks, and exit.")
    ] = False,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print all settings as they would be, as TOML, and exit.")
    ] = False,
) -> None:
    """Train on sequences: text with labels, captioned photos, ...; the task is inferred from the data."""
    import torch

    from carousel.tasks.task import Source, task_for, task_named
    from carousel.tasks.verbs import train_task
    from carousel.training import RunFolder
    from carousel.training.progress import LiveProgress
    from carousel.training.settings import commented, read_settings

    if threads is not None:
        torch.set_num_threads(threads)
    if data is None and not (list_settings or (show_config and task)):
        raise ConfigError("carousel train: no data (got none); a file or a folder; see carousel train --help")
    if list_settings and (task is None and data is None):
        print(all_settings())
        return
    named = {"train": train_list, "val": val_list, "test": test_list}
    lists = {split: path for split, path in named.items() if path is not None}
    source = Source(data or Path(), val_file, test_file, images, lists)  # type: ignore[arg-type]
    chosen, why = (task_named(task), None) if task else task_for(source)
    if list_settings:
        from carousel.training.settings import describe_settings

        print(describe_settings(chosen.config))
        return
    words = [*([f"cell={model}"] if model else []), *(settings or []), *([f"seed={seed}"] if seed is not None else [])]
    settled = read_settings(chosen.config, config, words)
    if show_config:
        print(commented(settled), end="")
        return
    assert data is not None
    folder = RunFolder(run or Path("runs") / f"{data.name.partition('.')[0]}-{chosen.name}")
    with LiveProgress() as live:
        if why:
            live.tell(why)
        train_task(chosen, source, settled, folder, live, resume=resume, start_from=start_from, lr_find=lr_find)
    print(f"{folder.model}\n{folder.report}")


def all_settings() -> str:
    """The settings of every task, one after the other."""
    from carousel.tasks.task import TASKS, task_named
    from carousel.training.settings import describe_settings

    found = [(task_named(name).about, name, describe_settings(task_named(name).config)) for name in TASKS]
    return "\n\n".join(f"{name}: {about}\n\n{settings}" for about, name, settings in found)
