"""Which column is what: as the user says, by its name, or by what is in it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from statistics import fmean

from carousel.data.captions import SPLITS, Split
from carousel.data.tables import Row, Table
from carousel.errors import ConfigError, DataError

TEXT_NAMES = ("text", "review", "sentence", "comment", "content", "body", "message", "document", "tweet", "question")
LABEL_NAMES = ("label", "labels", "class", "category", "sentiment", "polarity", "target", "tag", "tags", "stars", "y")
SPLIT_NAMES = ("split", "set", "subset", "partition", "fold")
MOST_LABELS = 200


def named_column(table: Table, name: str, what: str) -> str:
    """The column that the user named. Raises `ConfigError` with the nearest where there is none."""
    if name not in table.columns:
        near = difflib.get_close_matches(name, table.columns, 1, cutoff=0.0)
        raise ConfigError(
            f"{what}: no such column in {table.path} (got {name!r}); {', '.join(table.columns)}; "
            f"did you mean {near[0]!r}?"
        )
    return name


def text_column(table: Table, but: Sequence[str] = ()) -> str | None:
    """The column with text to learn from: by its name, or that of the longest texts, of two words or more."""
    free = [name for name in table.columns if name not in but]
    for wanted in TEXT_NAMES:
        for name in free:
            if name.strip().lower() == wanted and any(_words(row, name) for row in table.first_rows):
                return name
    lengths = {name: fmean(_words(row, name) for row in table.first_rows) for name in free}
    longest = max(free, key=lengths.__getitem__, default=None)
    return longest if longest is not None and lengths[longest] >= 2 else None


def label_column(table: Table, but: Sequence[str] = ()) -> str | None:
    """The column with a label: by its name, or the one with the fewest different short values, which recur."""
    free = [name for name in table.columns if name not in but]
    for wanted in LABEL_NAMES:
        for name in free:
            if name.strip().lower() == wanted:
                return name
    found: dict[str, int] = {}
    for name in free:
        values = [str(row.values.get(name) or "") for row in table.first_rows]
        kinds = {value for value in values if value}
        if 2 <= len(kinds) <= min(MOST_LABELS, len(values) / 4) and all(len(value) <= 40 for value in kinds):
            found[name] = len(kinds)
    return min(found, key=found.__getitem__, default=None)


def split_column(table: Table) -> str | None:
    """The column that says which rows are for training, by its name and its values."""
    for name in table.columns:
        if name.strip().lower() in SPLIT_NAMES:
            values = {str(row.values.get(name)).strip().lower() for row in table.first_rows}
            if values <= SPLITS.keys():
                return name
    return None


def split_of(row: Row, column: str | None) -> Split | None:
    """The split of a row, by its column or by its file."""
    if column is None:
        return row.split
    name = row.text(column).strip().lower()
    if name not in SPLITS:
        raise DataError(f"{row.place}: an unknown split (got {name!r}); {', '.join(SPLITS)}; rename it")
    return SPLITS[name]


def _words(row: Row, name: str) -> int:
    value = row.values.get(name)
    return len(value.split()) if isinstance(value, str) else 0
