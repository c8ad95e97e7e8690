"""Tables with a delimiter, row by row, and finding out which delimiter."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from carousel.data.text_file import text_lines
from carousel.errors import DataError

CANDIDATES = ((",", True), ("\t", False), ("\t", True), (";", True), ("|", True))  # delimiter, and quotes
SAMPLE = 200  # lines by which a delimiter is judged


class Dialect(NamedTuple):
    """How a table is written."""

    delimiter: str
    quoted: bool
    header: bool
    columns: tuple[str, ...]


def sniff(path: str | Path) -> Dialect:
    """The delimiter that gives the most rows of one width, whether quotes mean anything, and the names of the columns.

    Quotes are letters like any other in a table with tabs whose every line has the same number of them. A first row
    with a number, an empty cell, a long text, or a cell that comes again below it is no header: columns are then
    column1, column2, ...
    """
    lines = [line for _, line in islice(text_lines(path), SAMPLE)]
    delimiter, quoted = max(CANDIDATES, key=lambda one: _fit(lines, *one))
    rows = [row for _, row in _parsed(lines, delimiter, quoted, strict=False)]
    first = rows[0] if rows else []
    names = [cell.strip() for cell in first]
    header = len(set(names)) == len(names) and all(name and len(name) <= 60 and not _number(name) for name in names)
    again = any(row[k : k + 1] == [cell] for row in rows[1:] for k, cell in enumerate(first))
    if not header or again:
        header, names = False, [f"column{k + 1}" for k in range(len(first))]
    return Dialect(delimiter, quoted, header, tuple(names))


def _fit(lines: list[str], delimiter: str, quoted: bool) -> tuple[float, int]:
    """The share of rows with the commonest width, if that is more than one cell, and the width."""
    widths = Counter(len(row) for _, row in _parsed(lines, delimiter, quoted, strict=False))
    width, count = max(widths.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
    return (round(count / sum(widths.values()), 2), width) if width > 1 else (0.0, 0)


def _number(cell: str) -> bool:
    return re.fullmatch(r"\s*[-+]?\d+(\.\d*)?\s*", cell) is not None


def delimited_rows(path: str | Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Rows, each with the line on which it begins, without the header and blank lines.

    Raises `DataError` for quotes that do not pair and for rows of another width.
    """
    width = len(dialect.columns)
    rows = _parsed((line for _, line in text_lines(path)), dialect.delimiter, dialect.quoted, strict=True)
    try:
        for begins, cells in islice(rows, int(dialect.header), None):
            if len(cells) != width:
                raise DataError(
                    f"{path}:{begins}: wrong number of cells (got {len(cells)}); {width}, as in the first line; "
                    "put quotes around cells that contain the delimiter"
                )
            yield begins, cells
    except csv.Error as error:
        begins, reason = error.args
        raise DataError(
            f"{path}:{begins}: not a table row (got {reason}); quotes must pair and stand around whole cells; "
            "mend the line"
        ) from error


def _parsed(lines: Iterable[str], delimiter: str, quoted: bool, *, strict: bool) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, with the lines on which they begin. Raises `csv.Error` of that line and the reason."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    rows = csv.reader(
        (line + "\n" for line in lines), delimiter=delimiter, quoting=quoting, strict=strict, skipinitialspace=True
    )
    begins = 1
    try:
        while (row := _next(rows)) is not None:
            if row:
                yield begins, row
            begins = rows.line_num + 1
    except csv.Error as error:
        raise csv.Error(begins, error) from error


def _next(rows: Any) -> list[str] | None:
    """The next row, with cells of any length; the limit is one for all readers, and others want theirs."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        return next(rows, None)
    finally:
        csv.field_size_limit(before)
