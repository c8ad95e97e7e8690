"""Settings from a TOML file and from ``name=value`` words, all mistakes told at once; and how they are shown."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from carousel.errors import ConfigError
from carousel.training.config import TrainingConfig

C = TypeVar("C", bound=TrainingConfig)


def read_settings(
    kind: type[C],
    file: str | Path | None = None,
    words: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
) -> C:
    """The defaults of `kind`, changed by `file`, changed by `words` such as ``cell=gru``, changed by `values`.

    Raises `ConfigError` that names every wrong setting, with the nearest name for one that does not exist.

    >>> read_settings(TrainingConfig, words=["epochs=3", "optimiser=sgd"]).epochs
    3
    >>> read_settings(TrainingConfig, words=["epoch=3"])
    Traceback (most recent call last):
    carousel.errors.ConfigError: epoch: no such setting (got 3); did you mean epochs?
    """
    found = _from_toml(Path(file)) if file is not None else {}
    where = dict.fromkeys(found, f"{file}: ")
    for word in words:
        name, sign, value = word.partition("=")
        if not sign:
            raise ConfigError(f"--set {word}: not a setting (got no =); NAME=VALUE; write it so")
        found[name] = _parsed(value, kind.model_fields.get(name))
        where[name] = ""
    found |= values or {}
    where |= dict.fromkeys(values or {}, "")
    try:
        return kind(**found)
    except ValidationError as error:
        problems = [_problem(details, where, found, kind) for details in error.errors()]
        raise ConfigError("\n".join(problems)) from None


def in_order(kind: type[TrainingConfig]) -> dict[str, FieldInfo]:
    """The settings: a task's own, then those of all training."""
    shared = TrainingConfig.model_fields
    own = {name: field for name, field in kind.model_fields.items() if name not in shared}
    return own | {name: kind.model_fields[name] for name in shared}


def describe_settings(kind: type[TrainingConfig]) -> str:
    """Every setting with its default and what it means, one a line."""
    lines = []
    for name, field in in_order(kind).items():
        lines.append(f"{name:22} {json.dumps(field.default):12} {field.description or ''}".rstrip())
    return "\n".join(lines)


def commented(config: TrainingConfig) -> str:
    """The settings as TOML that `read_settings` reads, with what each means above it.

    >>> print(commented(TrainingConfig()).split("\\n\\n")[0])
    # at most so many times through the training data
    epochs = 10
    """
    values = config.model_dump()
    parts = []
    for name, field in in_order(type(config)).items():
        about = f"# {field.description}\n" if field.description else ""
        parts.append(f"{about}{name} = {json.dumps(values[name], ensure_ascii=False)}\n")
    return "\n".join(parts)


def _from_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read (got {error.strerror}); a TOML file; check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML (got {error}); lines of name = value; correct it") from None


def _parsed(value: str, field: FieldInfo | None) -> Any:
    """A number or truth value where it reads as one, else the words themselves; words where words are wanted."""
    if field is not None and field.annotation is str:
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _problem(details: Any, where: dict[str, str], values: dict[str, Any], kind: type[TrainingConfig]) -> str:
    name = str(details["loc"][0])
    got = f"{where.get(name, '')}{name}: "
    if details["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, kind.model_fields, 1)
        advice = f"did you mean {near[0]}?" if near else "carousel train --settings lists them"
        return f"{got}no such setting (got {values[name]}); {advice}"
    allowed = details["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{got}not allowed (got {values[name]!r}); {allowed}; carousel train --settings lists them"
