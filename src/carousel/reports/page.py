"""What every page shares: the templates, the formats of numbers, and writing the file whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from math import floor, log10
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from carousel.errors import ConfigError


def write_page(path: str | os.PathLike[str], template: str, **values: object) -> Path:
    """Fill `template` with `values` and write it to `path`; an older page stays until the new one is complete.

    Every value is escaped, whatever it holds. Missing folders are made.

    Raises:
        ConfigError: the file or its folder cannot be written.
    """
    return write_whole(path, environment().get_template(template).render(values).encode(), "page")


def write_whole(path: str | os.PathLike[str], content: bytes, what: str) -> Path:
    """Write a file, a `what`, that is there completely or not at all. Missing folders are made.

    Raises:
        ConfigError: the file or its folder cannot be written.
    """
    target = Path(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(target)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise ConfigError(
            f"{target}: the {what} cannot be written (got {error.strerror}); a file in a folder you may write to is "
            f"allowed; give another path"
        ) from error
    return target


@cache
def environment() -> Environment:
    """The templates of this folder, with escaping on and no silently empty values."""
    env = Environment(
        loader=PackageLoader("carousel.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["percent"] = percent
    env.filters["number"] = number
    env.filters["score"] = score
    return env


def percent(probability: float) -> str:
    """A probability with two significant digits, never in powers of ten.

    >>> [percent(p) for p in (1.0, 0.974, 0.042, 0.000314, 1e-9)]
    ['100%', '97%', '4.2%', '0.031%', '<0.0001%']
    """
    hundredths = 100 * probability
    if hundredths < 1e-4:
        return "<0.0001%"
    return f"{hundredths:.{max(0, 1 - floor(log10(hundredths)))}f}%"


def number(value: object) -> str:
    """A value as a table shows it: about four significant digits for a float, the value itself for anything else.

    >>> [number(v) for v in (0.48123, 12.345678, 123456, 0.0001, 61.0, None, "gru")]
    ['0.4812', '12.35', '123456', '0.0001', '61', '–', 'gru']
    """
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}"


def score(value: float) -> str:
    """A measured value with four significant digits, zeros included, so that the ends of an interval line up.

    >>> [score(v) for v in (48.123, 51.0, 0.62, 1234.5)]
    ['48.12', '51.00', '0.6200', '1234']
    """
    return f"{value:#.4g}".removesuffix(".")
