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


@dataclass(frozen=True)
class Reading:
    """Sequences to be read, coloured by one of several units of the recurrence that read them."""

    network: str  # its name, where there are several
    tokens: Sequence[Sequence[str]]
    units: Sequence[UnitReading]
    running: str | None = None  # where the sequences are one text, what stands between two tokens

    @property
    def heading(self) -> str:
        tokens = f"The tokens of the {self.network}" if self.network else "The tokens"
        return f"{tokens}, coloured by one unit's state after each"

    @property
    def ends(self) -> list[float]:
        """Of each unit the largest value, with the deepest colour."""
        return [_largest(unit) for unit in self.units]

    @property
    def lines(self) -> list[list[_Token]]:
        """Tokens with their colours."""
        ends = list(zip(self.units, self.ends, strict=True))
        return [
            [_Token(token, [colour(unit.values[b][t] / end) for unit, end in ends]) for t, token in enumerate(line)]
            for b, line in enumerate(self.tokens)
        ]


class _Token(NamedTuple):
    text: str
    colours: list[str]  # one for each unit


def write_inspection_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    about: str,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    readings: Sequence[Reading] = (),
) -> Path:
    """Write one HTML page, complete in itself and without a script, and return its path.

    `facts` are short: a value and what it is of.

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
        readings=[reading for reading in readings if reading.units],
        most=max((len(reading.units) for reading in readings), default=0),
    )


def _largest(unit: UnitReading) -> float:
    return max(abs(value) for line in unit.values for value in line) or 1.0
