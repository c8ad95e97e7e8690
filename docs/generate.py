"""Write docs/commands.md from the commands themselves: ``python docs/generate.py``; a test tells of drift."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

from carousel.captioning.settings import describe_settings
from carousel.cli import VERBS, main

HEAD = """# Commands

Made by `python docs/generate.py` from the commands' own help.
"""


def commands() -> str:
    """The page: every verb's help, and the settings of training."""
    os.environ["COLUMNS"] = os.environ["TERMINAL_WIDTH"] = "100"
    parts = [HEAD]
    for verb in VERBS:
        with contextlib.redirect_stdout(io.StringIO()) as text:
            main([verb.__name__, "--help"])
        help_text = "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())
        parts.append(f"## carousel {verb.__name__}\n\n```\n{help_text}\n```\n")
    parts.append(f"## Settings of `carousel train`\n\n```\n{describe_settings()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    (Path(__file__).parent / "commands.md").write_text(commands(), encoding="utf-8")
