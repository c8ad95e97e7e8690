"""``carousel generate``: more text, written as it is drawn."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def generate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder of a language model, or its file.")],
    prompt: Annotated[str, typer.Option("--prompt", help="What the text begins with.")] = "",
    length: Annotated[int, typer.Option("--length", min=1, help="How many tokens to draw.")] = 500,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Below 1 more likely tokens; 0: the likeliest.")
    ] = 1.0,
    top_k: Annotated[int, typer.Option("--top-k", help="Of the so many likeliest tokens alone; 0: all.")] = 0,
    top_p: Annotated[
        float, typer.Option("--top-p", help="Of the likeliest that have this probability together.")
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed writes the same text.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; by default torch's choice.")] = None,
) -> None:
    """Write on, as a trained language model would: to standard output, as it goes."""
    import torch

    from carousel.errors import ConfigError
    from carousel.tasks.verbs import load

    if threads is not None:
        torch.set_num_threads(threads)
    model = load(run)
    if not hasattr(model, "stream"):
        raise ConfigError(
            f"{run}: no language model (got another task's); one from carousel train TEXT; check the path"
        )
    options = {"length": length, "temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    parts = model.stream(prompt, **options)
    sys.stdout.write(prompt)
    for part in parts:
        sys.stdout.write(part)
        sys.stdout.flush()
    print()
