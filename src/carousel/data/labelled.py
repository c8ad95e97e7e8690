"""Texts with labels: which rows count, which label and which split each has; the texts stay in the file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from carousel.data.captions import Split
from carousel.data.columns import label_column, named_column, split_column, split_of, text_column
from carousel.data.ragged import Ragged
from carousel.data.splits import complete_splits
from carousel.data.tables import Row, Table
from carousel.data.tokenizers import Tokenizer
from carousel.errors import DataError

SEPARATORS = "|;,"


@dataclass(frozen=True)
class Roles:
    """Which column is what. `separator` stands between several labels of one text; "" where each has one."""

    text: str
    label: str
    split: str | None = None
    several: bool = False
    separator: str = ""

    @classmethod
    def of(cls, table: Table, text: str = "", label: str = "", split: str = "", separator: str = "") -> Roles | None:
        """Those that are named, and the others inferred; None where there is no text or no label."""
        given = [name for name in (text, label, split) if name]
        chosen_split = named_column(table, split, "split") if split else split_column(table)
        if text:
            named_column(table, text, "text")
        if label:
            named_column(table, label, "label")
        taken = [*given, *([chosen_split] if chosen_split else [])]
        text = text or text_column(table, taken) or ""
        label = label or label_column(table, [*taken, text]) or ""
        if not text or not label:
            return None
        values = [row.values.get(label) for row in table.first_rows]
        lists = any(isinstance(value, list) for value in values)
        if not separator and label.strip().lower() in ("labels", "tags", "categories", "genres"):
            strings = [value for value in values if isinstance(value, str)]
            separator = next((s for s in SEPARATORS if sum(s in value for value in strings) > len(strings) / 20), "")
        return cls(text, label, chosen_split, lists or bool(separator), separator)

    def labels(self, row: Row) -> list[str]:
        """The labels of a row, without what is empty."""
        value = row.values.get(self.label)
        if isinstance(value, list):
            found = [str(one).strip() for one in value]
        else:
            text = row.text(self.label)
            found = [part.strip() for part in (text.split(self.separator) if self.separator else [text])]
        return [label for label in found if label]


@dataclass(frozen=True)
class Examples:
    """The texts of a split as ids, and what is right: classes (N,), or (N, K) of zeros and ones."""

    texts: Ragged
    targets: Tensor
    rows: Sequence[int]  # their places among the rows of the table

    def __len__(self) -> int:
        return len(self.texts)

    def __add__(self, other: Examples) -> Examples:
        """These, then the others."""
        texts = Ragged(texts[k].tolist() for texts in (self.texts, other.texts) for k in range(len(texts)))
        return Examples(texts, torch.cat([self.targets, other.targets]), [*self.rows, *other.rows])


@dataclass(frozen=True)
class LabelledTexts:
    """A table with labels. Of each row two or three numbers are kept; texts are read again when they are needed."""

    table: Table
    roles: Roles
    labels: tuple[str, ...]
    targets: Ragged  # for each row its labels
    splits: Sequence[Split | None]  # for each row; None where nobody says
    rows: Sequence[int]  # their places among the rows of the table
    digest: str  # of texts, labels and splits
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, table: Table, roles: Roles, labels: Sequence[str] = ()) -> LabelledTexts:
        """Go through the rows once. `labels` are those of a model; by default all that occur, in order.

        Raises:
            DataError: there are no two labels, or too many.
        """
        numbers = {label: k for k, label in enumerate(labels)}
        splits: list[Split | None] = []
        rows: list[int] = []
        empty: list[str] = []
        strange: Counter[str] = Counter()
        digest = hashlib.blake2b(digest_size=8)

        def targets() -> Iterator[list[int]]:
            for number, row in enumerate(table.rows()):
                text, found = row.text(roles.text), roles.labels(row)
                if not text.strip() or (not found and not roles.several):
                    empty.append(row.place)
                    continue
                if labels:
                    strange.update(label for label in found if label not in numbers)
                    found = [label for label in found if label in numbers]
                    if not found and not roles.several:
                        continue
                splits.append(split_of(row, roles.split))
                rows.append(number)
                digest.update(f"{text}\0{found}\0{splits[-1]}\n".encode())
                yield [numbers.setdefault(label, len(numbers)) for label in found]

        ragged = Ragged(targets())
        notes = []
        if empty:
            notes.append(f"{len(empty)} rows without {roles.text} or {roles.label} are left out, the first: {empty[0]}")
        if strange:
            notes.append(f"labels that the model does not know are left out: {', '.join(sorted(strange)[:5])}")
        found = cls(table, roles, tuple(numbers), ragged, splits, rows, digest.hexdigest(), tuple(notes))
        if labels:
            return found
        if not 2 <= len(numbers) <= 1000:
            raise DataError(
                f"{table.path}: {len(numbers)} labels in {roles.label!r} (got {', '.join(list(numbers)[:3])} ...); "
                "2 to 1000; name the column of labels with --set label=COLUMN"
            )
        return found.in_order()

    def in_order(self) -> LabelledTexts:
        """With the labels sorted, numbers by their size."""
        names = sorted(self.labels, key=_order)
        renumbered = [names.index(label) for label in self.labels]
        targets = Ragged([renumbered[k] for k in self.targets[row].tolist()] for row in range(len(self.targets)))
        return replace(self, labels=tuple(names), targets=targets)

    def with_splits(self, seed: int) -> LabelledTexts:
        """Every row with a split; see `complete_splits`."""
        first = [int(self.targets[k][0]) if len(self.targets[k]) else -1 for k in range(len(self.targets))]
        splits, said = complete_splits(self.splits, first, seed)
        return replace(self, splits=splits, notes=(*self.notes, said))

    def texts(self, *splits: Split) -> Iterator[str]:
        """The texts of some splits, or of all rows, in order."""
        wanted = {row for row, split in zip(self.rows, self.splits, strict=True) if not splits or split in splits}
        for number, row in enumerate(self.table.rows()):
            if number in wanted:
                yield row.text(self.roles.text)

    def texts_of(self, rows: Sequence[int]) -> dict[int, str]:
        """The texts of some rows, by their places."""
        wanted = set(rows)
        found = ((k, row) for k, row in enumerate(self.table.rows()) if k in wanted)
        return {k: row.text(self.roles.text) for k, row in found}

    def examples(self, split: Split, tokenizer: Tokenizer) -> Examples:
        """A split with its texts as ids. Raises `DataError` where it is empty."""
        chosen = [k for k, found in enumerate(self.splits) if found == split]
        if not chosen:
            raise DataError(
                f"{self.table.path}: nothing in {split!r} (got {len(self.splits)} rows of other splits); one that has "
                "rows; choose it with --split, or add rows"
            )
        texts = Ragged(tokenizer.encode(text) for text in self.texts(split))
        if not self.roles.several:
            targets = torch.tensor([int(self.targets[k][0]) for k in chosen])
        else:
            targets = torch.zeros(len(chosen), len(self.labels))
            for place, k in enumerate(chosen):
                targets[place, self.targets[k].long()] = 1
        return Examples(texts, targets, [self.rows[k] for k in chosen])


def _order(label: str) -> tuple[int, float, str]:
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label
