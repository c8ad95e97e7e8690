"""Texts with their translations: which rows count and which split each has; the texts stay in the file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from carousel.data.captions import Split
from carousel.data.columns import named_column, split_column, split_of
from carousel.data.splits import complete_splits
from carousel.data.tables import Table
from carousel.errors import DataError

SIDES = (("source", "target"), ("src", "tgt"), ("src", "trg"), ("from", "to"))
CODES = "ar bg cs da de el en es et fa fi fr he hi hr hu id it ja ko lt lv nl no pl pt ro ru sk sl sv tr uk vi zh"
LANGUAGES = frozenset(CODES.split())


@dataclass(frozen=True)
class Sides:
    """Which column is translated into which."""

    source: str
    target: str
    split: str | None = None

    @classmethod
    def of(cls, table: Table, source: str = "", target: str = "", split: str = "") -> Sides | None:
        """Those that are named, and the others inferred; None where no two columns look like translations.

        They do in parallel text, with names as in `SIDES`, and where both names are codes of languages.
        """
        chosen_split = named_column(table, split, "split") if split else split_column(table)
        for name, what in ((source, "source"), (target, "target")):
            if name:
                named_column(table, name, what)
        free = [name for name in table.columns if name not in (source, target, chosen_split)]
        lower = {name.strip().lower(): name for name in free}
        if source and target:
            return cls(source, target, chosen_split)
        if source or target:
            other = next((name for name in free if table.kind == "parallel" or name.lower() in LANGUAGES), None)
            other = other or (free[0] if len(free) == 1 else None)
            return None if other is None else cls(source or other, target or other, chosen_split)
        for one, two in SIDES:
            if one in lower and two in lower:
                return cls(lower[one], lower[two], chosen_split)
        codes = free if table.kind == "parallel" else [name for name in free if name.strip().lower() in LANGUAGES]
        return cls(codes[0], codes[1], chosen_split) if len(codes) > 1 else None


@dataclass(frozen=True)
class Pairs:
    """A table with translations; texts are read again when they are needed."""

    table: Table
    sides: Sides
    splits: Sequence[Split | None]  # for each row; None where nobody says
    rows: Sequence[int]  # their places among the rows of the table
    digest: str  # of texts and splits
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, table: Table, sides: Sides) -> Pairs:
        """Go through the rows once. Raises `DataError` where none has both texts."""
        splits: list[Split | None] = []
        rows: list[int] = []
        empty: list[str] = []
        digest = hashlib.blake2b(digest_size=8)
        for number, row in enumerate(table.rows()):
            source, target = row.text(sides.source), row.text(sides.target)
            if not source.strip() or not target.strip():
                empty.append(row.place)
                continue
            splits.append(split_of(row, sides.split))
            rows.append(number)
            digest.update(f"{source}\0{target}\0{splits[-1]}\n".encode())
        if not rows:
            raise DataError(
                f"{table.path}: no pairs (got {len(empty)} rows without {sides.source} or {sides.target}); rows with "
                "both; check the columns"
            )
        without = f"{len(empty)} rows without {sides.source} or {sides.target} are left out, the first: "
        notes = tuple(without + place for place in empty[:1])
        return cls(table, sides, splits, rows, digest.hexdigest(), notes)

    def with_splits(self, seed: int) -> Pairs:
        """Every row with a split; see `complete_splits`."""
        splits, said = complete_splits(self.splits, [0] * len(self.splits), seed)
        return replace(self, splits=splits, notes=(*self.notes, said))

    def texts(self, split: Split) -> Iterator[tuple[str, str]]:
        """Sources with targets of a split, in order. Raises `DataError` where it is empty."""
        wanted = {row for row, found in zip(self.rows, self.splits, strict=True) if found == split}
        if not wanted:
            raise DataError(
                f"{self.table.path}: nothing in {split!r} (got {len(self.splits)} rows of other splits); one that has "
                "rows; choose it with --split, or add rows"
            )
        for number, row in enumerate(self.table.rows()):
            if number in wanted:
                yield row.text(self.sides.source), row.text(self.sides.target)
