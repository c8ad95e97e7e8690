"""Where a run leaves everything: ``runs/NAME/``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from carousel.errors import ConfigError
from carousel.training.model_file import write_atomically


class RunFolder:
    """The files of one run.

    model.safetensors       the best model so far; all that is needed to use it
    last.ckpt.safetensors   where training stands; what --resume continues
    config.toml             every setting
    log.jsonl               one line an epoch
    report.html             curves, scores, settings
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.model = self.path / "model.safetensors"
        self.checkpoint = self.path / "last.ckpt.safetensors"
        self.config = self.path / "config.toml"
        self.log = self.path / "log.jsonl"
        self.report = self.path / "report.html"

    def begin(self, settings: Mapping[str, Any], *, resume: bool) -> None:
        """Make the folder and write `settings`; to resume, leave them as they are.

        Raises what `check` raises, and `ModelFileError` where the folder cannot be written.
        """
        self.check(resume=resume)
        for abandoned in self.path.glob(".*.tmp"):
            abandoned.unlink()
        if not resume:
            write_atomically(self.config, toml(settings).encode())

    def check(self, *, resume: bool) -> None:
        """Raise `ConfigError` where the folder holds another run, or nothing to resume."""
        if resume and not self.checkpoint.exists():
            raise ConfigError(
                f"{self.path}: nothing to resume (got no {self.checkpoint.name}); a run that began; omit --resume"
            )
        if not resume and (self.checkpoint.exists() or self.model.exists()):
            raise ConfigError(f"{self.path}: holds a run already; a new folder, or --resume; choose another with --run")

    def write_log(self, records: Sequence[Mapping[str, Any]]) -> None:
        """One JSON object a line and an epoch."""
        write_atomically(self.log, "".join(json.dumps(record) + "\n" for record in records).encode())


def toml(settings: Mapping[str, Any]) -> str:
    """Flat settings as TOML, whose strings, numbers and truth values are written as in JSON.

    >>> print(toml({"cell": "lstm", "dropout": 0.5, "flips": True}), end="")
    cell = "lstm"
    dropout = 0.5
    flips = true
    """
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
