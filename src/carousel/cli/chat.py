"""``carousel chat``: a conversation with a trained partner, in the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def chat(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of the task dialog, or a model file.")],
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; by default torch's choice.")] = None,
) -> None:
    """Talk with a model that was trained on dialogs; an empty line is silence, Ctrl-D ends."""
    import torch

    from carousel.errors import ConfigError
    from carousel.tasks.verbs import load

    if threads is not None:
        torch.set_num_threads(threads)
    model = load(run)
    if not hasattr(model, "talk"):
        raise ConfigError(f"{run}: not for a chat (got a model of another task); one of the task dialog; train one")
    talk = model.talk()
    shown = "> " if sys.stdin.isatty() else ""
    print(shown, end="", flush=True)
    for line in sys.stdin:
        talk.hear(line.strip() or "<SILENCE>")
        print(talk.answer(), flush=True)
        print(shown, end="", flush=True)
