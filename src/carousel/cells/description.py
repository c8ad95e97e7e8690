"""What a cell's docstring says of it: its sentence, its equations, its paper, its options."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

CITATION = re.compile(r"(?P<authors>[A-ZÀ-Ž][^\d:;]*?) (?P<year>(?:19|20)\d\d)[,:]")
SECTIONS = ("Args:", "Notes:", "Raises:")


@dataclass(frozen=True)
class Option:
    """A keyword of a cell, with its default and what the docstring says of it, if anything."""

    name: str
    default: Any
    text: str


@dataclass(frozen=True)
class Description:
    """The parts of a cell's docstring."""

    sentence: str
    equations: str  # with what is said between them
    paper: str
    authors: str
    year: int
    options: list[Option]
    notes: str

    @property
    def author(self) -> str:
        """The first author's surname."""
        return re.split(r",| and | et al", self.authors)[0]


def describe(cell: type) -> Description:
    """What the docstring of a cell says; without a citation, the paper is empty and the year 0.

    >>> from carousel.cells import GRU
    >>> found = describe(GRU)
    >>> found.author, found.year, found.paper
    ('Cho', 2014, 'Cho et al. 2014, arXiv:1406.1078v3, eq. 5-8.')
    >>> print(found.equations.splitlines()[-1])
    h_t = z_t ⊙ h_{t-1} + (1 − z_t) ⊙ a_t
    >>> found.options
    [Option(name='bias', default=True, text='')]
    """
    first, *blocks = (inspect.getdoc(cell) or "").split("\n\n")
    sections = {block.partition("\n")[0]: block.partition("\n")[2] for block in blocks if block.startswith(SECTIONS)}
    prose = [block for block in blocks if not block.startswith((*SECTIONS, ">>>"))]
    cited = next((k for k, block in enumerate(prose) if CITATION.match(block)), len(prose))
    paper = " ".join(prose[cited].split()) if cited < len(prose) else ""
    citation = CITATION.match(paper)
    equations = [re.sub("^    ", "", block, flags=re.MULTILINE) for block in prose[:cited]]
    return Description(
        " ".join(first.split()),
        "\n\n".join(equations),
        paper,
        citation["authors"] if citation else "",
        int(citation["year"]) if citation else 0,
        _options(cell, sections.get("Args:", "")),
        " ".join(sections.get("Notes:", "").split()),
    )


def _options(cell: type, args: str) -> list[Option]:
    texts: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \S)", args):
        names, _, text = entry.partition(":")
        texts |= dict.fromkeys((name.strip() for name in names.split(",")), " ".join(text.split()))
    keywords = list(inspect.signature(cell).parameters.values())[2:]  # after the sizes
    return [Option(keyword.name, keyword.default, texts.get(keyword.name, "")) for keyword in keywords]
