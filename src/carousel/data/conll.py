"""CoNLL columns: a token a line, a blank line after each sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from carousel.data.delimited import Dialect
from carousel.data.text_file import text_lines
from carousel.errors import DataError

SUFFIXES = (".conll", ".conllu", ".conllx", ".conll03", ".bio", ".iob", ".iob2", ".bioes", ".col")
UNIVERSAL = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")  # CoNLL-U's columns
SAMPLE = 2000  # lines by which a file is judged
DOCUMENT = "-DOCSTART-"


def sniff_conll(path: str | Path, *, sure: bool = False) -> Dialect | None:
    """The columns of a CoNLL file: "tokens", "column2", ..., "tags", or CoNLL-U's own; None where it is none.

    A file whose name does not say so (`sure`) is one if it has blank lines between groups of lines, as many cells on
    every line, no token with a blank in it, and tags in the last column that are those of spans or come again.
    """
    lines = [line for _, line in islice(text_lines(path), SAMPLE)]
    kept = [line for line in lines if line.strip() and not line.startswith(("#", DOCUMENT))]
    if not kept:
        return None
    delimiter = "\t" if all("\t" in line for line in kept) else " "
    rows = [_cells(line, delimiter) for line in kept]
    width = len(rows[0])
    if not sure:
        groups = sum(
            bool(line.strip()) and not before.strip() for before, line in zip(["", *lines], lines, strict=False)
        )
        alike = width > 1 and all(len(row) == width for row in rows)
        tokens = not any(" " in row[0] for row in rows)
        if not (alike and tokens and 2 <= 1.5 * groups <= len(rows) and _like_tags([row[-1] for row in rows])):
            return None
    if width == len(UNIVERSAL) and delimiter == "\t" and rows[0][0][:1] == "1":
        return Dialect(delimiter, False, False, UNIVERSAL)
    between = [f"column{k}" for k in range(2, width)]
    return Dialect(delimiter, False, False, ("tokens", *between, *(["tags"] if width > 1 else [])))


def _like_tags(cells: list[str]) -> bool:
    kinds = set(cells)
    return len(kinds) <= len(cells) / 4 or all(re.fullmatch(r"O|[BIESLU]-.+", cell) for cell in kinds)


def _cells(line: str, delimiter: str) -> list[str]:
    return line.split("\t") if delimiter == "\t" else line.split()


def conll_rows(path: str | Path, dialect: Dialect) -> Iterator[tuple[int, dict[str, list[str]]]]:
    """Each sentence: the line on which it begins, and its columns.

    Lines with ``-DOCSTART-``, comments before a sentence, and CoNLL-U's ranges and empty nodes are left out. Raises
    `DataError` for a line with another number of cells.
    """
    for block in _blocks(text_lines(path)):
        rows: list[list[str]] = []
        begins = block[0][0]
        for number, line in block:
            cells = _cells(line, dialect.delimiter)
            if (
                not rows
                and line.startswith("#")
                and (len(cells) != len(dialect.columns) or dialect.columns == UNIVERSAL)
            ):
                continue
            if len(cells) != len(dialect.columns):
                raise DataError(
                    f"{path}:{number}: wrong number of columns (got {len(cells)}); {len(dialect.columns)}, as in the "
                    f"first line, between {'tabs' if dialect.delimiter == chr(9) else 'blanks'}; mend the line"
                )
            if dialect.columns == UNIVERSAL and not cells[0].isdigit():
                continue
            if not rows:
                begins = number
            rows.append(cells)
        if rows:
            yield begins, dict(zip(dialect.columns, map(list, zip(*rows, strict=True)), strict=True))


def _blocks(lines: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Lines with something on them, up to the next blank one."""
    block: list[tuple[int, str]] = []
    for number, line in lines:
        if line.strip() and not line.startswith(DOCUMENT):
            block.append((number, line))
        elif block:
            yield block
            block = []
    if block:
        yield block


def sentences(lines: Iterable[str]) -> Iterator[list[str]]:
    """The tokens, in the first column, of each sentence of a stream, as soon as it has ended.

    >>> list(sentences(["A DT", "dog NN", "", "It"]))
    [['A', 'dog'], ['It']]
    """
    for block in _blocks(enumerate(lines, start=1)):
        yield [line.split()[0] for _, line in block]
