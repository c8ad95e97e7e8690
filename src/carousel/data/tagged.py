"""Sentences with a tag for each token: which columns hold them, which scheme the tags follow, which split each has."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from carousel.data.captions import Split
from carousel.data.columns import named_column, split_column, split_of
from carousel.data.ragged import Ragged
from carousel.data.schemes import Pair, Scheme, broken, scheme_of
from carousel.data.splits import complete_splits
from carousel.data.tables import Row, Table
from carousel.errors import DataError

TOKEN_NAMES = ("tokens", "words", "form", "forms", "sentence", "text")
TAG_NAMES = ("tags", "ner_tags", "upos", "labels", "ner", "pos_tags", "pos", "entities", "slots")
MOST_TAGS = 1000


@dataclass(frozen=True)
class TagColumns:
    """Which column is what."""

    tokens: str
    tags: str
    split: str | None = None

    @classmethod
    def of(cls, table: Table, tokens: str = "", tags: str = "", split: str = "") -> TagColumns | None:
        """Those that are named, and the others inferred; None where there are no two columns of equally long lists."""
        for what, name in (("words", tokens), ("tags", tags), ("split", split)):
            if name:
                named_column(table, name, what)
        rows = table.first_rows
        lists = [name for name in table.columns if all(_listed(row.values.get(name)) for row in rows)]
        words = [name for name in lists if name != tags and any(_words(row.values.get(name)) for row in rows)]
        tokens = tokens or _first(TOKEN_NAMES, words) or next(iter(words), "")
        alike = [name for name in lists if name != tokens and _as_long(rows, tokens, name)]
        tags = tags or _first(TAG_NAMES, alike) or (alike[-1] if alike else "")
        return cls(tokens, tags, split or split_column(table)) if tokens and tags else None

    def read(self, row: Row) -> tuple[list[str], list[str]]:
        """The tokens of a row and their tags. Raises `DataError` where these are no two lists of one length."""
        found = row.values.get(self.tokens), row.values.get(self.tags)
        for name, value in zip((self.tokens, self.tags), found, strict=True):
            if not _listed(value):
                raise DataError(
                    f"{row.place}: {name} is not a list of words (got {str(value)[:40]}); one string for each token; "
                    "mend it"
                )
        tokens, tags = [[str(one) for one in value or []] for value in found]
        if len(tokens) != len(tags):
            raise DataError(f"{row.place}: not a tag for each token (got {len(tags)} for {len(tokens)}); one; mend it")
        return tokens, tags


def _listed(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(one, str | int) for one in value))


def _words(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(one, str) for one in value)


def _first(wanted: Sequence[str], names: Sequence[str]) -> str:
    return next((name for want in wanted for name in names if name.strip().lower() == want), "")


def _as_long(rows: Sequence[Row], a: str, b: str) -> bool:
    """Whether one of the first rows has lists of one length there: a wrong line among them is told when it is read."""
    return any(row.values.get(a) and len(row.values[a]) == len(row.values.get(b) or []) for row in rows)


@dataclass(frozen=True)
class TaggedTexts:
    """Sentences as numbers: of forms, which are words as they are written, and of tags. Form 0 is "", for padding."""

    table: Table
    columns: TagColumns
    forms: tuple[str, ...]
    tags: tuple[str, ...]
    scheme: Scheme | None
    tokens: Ragged  # of each sentence its forms
    targets: Ragged  # and their tags
    splits: Sequence[Split | None]
    digest: str
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, table: Table, columns: TagColumns) -> TaggedTexts:
        """Go through the rows once. Raises `DataError` where there are no two tags, or too many."""
        forms, tags = {"": 0}, dict[str, int]()
        splits: list[Split | None] = []
        pairs: Counter[Pair] = Counter()
        places: dict[Pair, str] = {}
        digest = hashlib.blake2b(digest_size=8)
        targets: list[list[int]] = []

        def tokens() -> Iterator[list[int]]:
            for row in table.rows():
                words, right = columns.read(row)
                if not words:
                    continue
                splits.append(split_of(row, columns.split))
                digest.update(f"{words}\0{right}\0{splits[-1]}\n".encode())
                for pair in pairwise([None, *right, None]):
                    pairs[pair] += 1
                    places.setdefault(pair, row.place)
                targets.append([tags.setdefault(tag, len(tags)) for tag in right])
                yield [forms.setdefault(word, len(forms)) for word in words]

        sentences = Ragged(tokens())
        if not 2 <= len(tags) <= MOST_TAGS:
            raise DataError(
                f"{table.path}: {len(tags)} tags in {columns.tags!r} (got {', '.join(list(tags)[:3])} ...); 2 to "
                f"{MOST_TAGS}; name the column of tags with --set tags=COLUMN"
            )
        scheme = scheme_of(pairs)
        notes = _notes(pairs, places, scheme)
        return cls(
            table,
            columns,
            tuple(forms),
            tuple(tags),
            scheme,
            sentences,
            Ragged(targets),
            splits,
            digest.hexdigest(),
            notes,
        )

    def with_splits(self, seed: int) -> TaggedTexts:
        """Every sentence with a split; see `complete_splits`."""
        splits, said = complete_splits(self.splits, [0] * len(self.splits), seed)
        return replace(self, splits=splits, notes=(*self.notes, said))

    def rows(self, split: Split) -> list[int]:
        """The sentences of a split. Raises `DataError` where there is none."""
        found = [k for k, one in enumerate(self.splits) if one == split]
        if not found:
            raise DataError(
                f"{self.table.path}: nothing in {split!r} (got {len(self.splits)} sentences of other splits); one that "
                "has some; choose it with --split, or add sentences"
            )
        return found

    def words(self, row: int) -> list[str]:
        """The tokens of a sentence."""
        return [self.forms[k] for k in self.tokens[row].tolist()]

    def right(self, row: int) -> list[str]:
        """Its tags."""
        return [self.tags[k] for k in self.targets[row].tolist()]


def _notes(pairs: Counter[Pair], places: dict[Pair, str], scheme: Scheme | None) -> tuple[str, ...]:
    """A line on what breaks the scheme."""
    wrong = broken(pairs, scheme) if scheme else []
    if not scheme or not wrong:
        return ()
    before, tag = wrong[0]
    what = f"{tag or 'the end'} after {before or 'the start'}"
    return (
        f"{sum(pairs[pair] for pair in wrong)} tags break {scheme.upper()} and are read as conlleval does, the first: "
        f"{what} in the sentence at {places[wrong[0]]}",
    )
