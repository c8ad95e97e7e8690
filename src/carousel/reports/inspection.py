"""The page of ``carousel inspect``: pictures of a recurrent network, what they say, and tokens coloured by a unit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from carousel.reports.page import write_page
from carousel.reports.section import Section, colour


@dataclass(frozen=True)
class UnitReading:
    """One unit over all tokens."""

    name: str
    why: str
    values: Sequence[Sequence[float]]  # for each sequence, its state after each token


class _Token(NamedTuple):
    text: str
    values: list[float]
    colours: list[str]  # one for each unit


def write_inspection_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    about: str,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    tokens: Sequence[Sequence[str]] = (),
    units: Sequence[UnitReading] = (),
) -> Path:
    """Write one HTML page, complete in itself and without a script, and return its path.

    `facts` are short: a value and what it is of. `tokens` are sequences to be read, coloured by one of `units`.

    Raises:
        ConfigError: the page cannot be written; an older page at `path` is still whole.
    """
    return write_page(
        path,
        "inspection.html.j2",
        title=title,
        about=about,
        facts=facts,
        sections=sections,
        units=units,
        ends=[_largest(unit) for unit in units],
        lines=[
            [
                _Token(token, values := [unit.values[b][t] for unit in units], _colours(values, units))
                for t, token in enumerate(line)
            ]
            for b, line in enumerate(tokens)
        ]
        if units
        else [],
    )


def _largest(unit: UnitReading) -> float:
    return max(abs(value) for line in unit.values for value in line) or 1.0


def _colours(values: Sequence[float], units: Sequence[UnitReading]) -> list[str]:
    return [colour(value / _largest(unit)) for value, unit in zip(values, units, strict=True)]
