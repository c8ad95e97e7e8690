"""Settings from a TOML file and from ``name=value`` words, all mistakes told at once."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from carousel.captioning.config import CaptioningConfig
from carousel.errors import ConfigError


def read_settings(file: str | Path | None = None, words: Sequence[str] = ()) -> CaptioningConfig:
    """The defaults, changed by `file`, changed by `words`.

    Raises `ConfigError` that names every wrong setting, with the nearest name for one that does not exist.

    >>> read_settings(words=["hidden_size=256", "cell=gru"]).hidden_size
    256
    >>> read_settings(words=["hiden_size=256"])
    Traceback (most recent call last):
    carousel.errors.ConfigError: hiden_size: no such setting (got 256); did you mean hidden_size?
    """
    values = _from_toml(Path(file)) if file is not None else {}
    where = dict.fromkeys(values, f"{file}: ")
    for word in words:
        name, sign, value = word.partition("=")
        if not sign:
            raise ConfigError(f"--set {word}: not a setting (got no =); NAME=VALUE; write it so")
        values[name] = _parsed(value)
        where[name] = ""
    try:
        return CaptioningConfig(**values)
    except ValidationError as error:
        problems = [_problem(details, where, values) for details in error.errors()]
        raise ConfigError("\n".join(problems)) from None


def describe_settings() -> str:
    """Every setting with its default and what it means, one a line."""
    lines = []
    for name, field in CaptioningConfig.model_fields.items():
        lines.append(f"{name:22} {json.dumps(field.default):12} {field.description or ''}".rstrip())
    return "\n".join(lines)


def _from_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read (got {error.strerror}); a TOML file; check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML (got {error}); lines of name = value; correct it") from None


def _parsed(value: str) -> Any:
    """A number or truth value where it reads as one, else the words themselves."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _problem(details: Any, where: dict[str, str], values: dict[str, Any]) -> str:
    name = str(details["loc"][0])
    got = f"{where.get(name, '')}{name}: "
    if details["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, CaptioningConfig.model_fields, 1)
        advice = f"did you mean {near[0]}?" if near else "carousel train --settings lists them"
        return f"{got}no such setting (got {values[name]}); {advice}"
    allowed = details["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{got}not allowed (got {values[name]!r}); {allowed}; carousel train --settings lists them"
