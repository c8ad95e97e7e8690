"""A part of a page: a heading, words, and a picture, a table or coloured texts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Text(NamedTuple):
    """A text whose tokens speak for something (above zero) or against it; weights from -1 to 1."""

    caption: str
    tokens: Sequence[tuple[str, float]]
    apart: str = " "  # what stands between two tokens

    @property
    def coloured(self) -> list[tuple[str, str]]:
        """Tokens with their colours: blue for less than zero, orange for more."""
        return [(token, colour(weight)) for token, weight in self.tokens]


@dataclass(frozen=True)
class Section:
    """What is shown, and what is seen in it."""

    heading: str
    words: str
    how: str = ""  # how to read what is shown
    picture: bytes | None = None  # PNG
    table: Sequence[Sequence[str]] = ()  # the first row names the columns
    texts: Sequence[Text] = ()

    @property
    def uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.picture or b"").decode("ascii")


def colour(share: float) -> str:
    """The colour of a number from -1 to 1: blue for less than zero, orange for more, the stronger the larger.

    >>> colour(-0.5)
    'rgb(43 111 160 / 0.50)'
    """
    return f"rgb({'201 94 32' if share > 0 else '43 111 160'} / {min(1.0, abs(share)):.2f})"
