"""Dialogs in the text format of Dialog bAbI, and words as ids that are known or numbered.

    1 hello                          hello what can i help you with today      a turn: what is said, a tab, the answer
    2 resto_rome R_phone 123                                                   a fact that comes up: no tab
    3 thanks                         you're welcome

A line numbered 1 begins another dialog; blank lines are none. Bordes, Boureau and Weston 2017, arXiv:1605.07683v4.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from carousel.data.captions import Split
from carousel.data.tables import Table
from carousel.data.vocabulary import SPECIALS, STOP, Vocabulary
from carousel.errors import DataError

_LINE = re.compile(r"(\d+) ([^\t]+)(?:\t(.+))?")
USER, SYSTEM = "<user>", "<system>"


class Turn(NamedTuple):
    """What is read, line after line of one or more facts and what was said last, and the answer to it."""

    heard: tuple[str, ...]
    answer: str


class Dialog(NamedTuple):
    turns: tuple[Turn, ...]
    split: Split | None = None


def parse_line(line: str) -> tuple[int, str, str | None] | None:
    """Number, what is said and the answer of a line; None where it is none.

    >>> parse_line("3 <SILENCE>\\tany preference?"), parse_line("hello")
    ((3, '<SILENCE>', 'any preference?'), None)
    """
    found = _LINE.fullmatch(line.strip())
    return None if found is None else (int(found[1]), found[2], found[3])


def read_dialogs(table: Table) -> Iterator[Dialog]:
    """The dialogs of a table of lines. Raises `DataError` with the line that is none."""
    turns: list[Turn] = []
    heard: list[str] = []
    split: Split | None = None
    for row in table.rows():
        found = parse_line(row.text("text"))
        if found is None:
            raise DataError(
                f"{row.place}: no line of a dialog (got {row.text('text')[:40]!r}); NUMBER SAID<tab>ANSWER; mend it"
            )
        number, said, answer = found
        if number == 1 and turns:
            yield Dialog(tuple(turns), split)
            turns = []
        if number == 1:
            heard, split = [], row.split
        heard.append(said)
        if answer is not None:
            turns.append(Turn(tuple(heard), answer))
            heard = []
    if turns:
        yield Dialog(tuple(turns), split)


def digest_of(dialogs: Iterable[Dialog]) -> str:
    """Names the data."""
    digest = hashlib.blake2b(digest_size=8)
    for dialog in dialogs:
        digest.update(repr(dialog).encode())
    return digest.hexdigest()


class NumberedWords:
    """Words as ids; those that are not known are numbered in the order in which a dialog brings them up.

    A word that nobody has seen can so be understood by where it stands, and be said again. Hermann et al. 2015,
    arXiv:1506.03340v3, section 3.2, replace entities by such numbers.

    >>> words = NumberedWords.train([Dialog((Turn(("in rome please",), "ok rome"),))] * 2, numbers=3)
    >>> names = {}
    >>> ids = words.encode("in oslo please oslo", names)
    >>> words.decode(ids, names), names
    ('in oslo please oslo', {'oslo': 0})
    """

    def __init__(self, vocabulary: Vocabulary, numbers: int) -> None:
        self.vocabulary, self.numbers = vocabulary, numbers
        self.known = len(vocabulary)

    @classmethod
    def train(cls, dialogs: Iterable[Dialog], numbers: int = 100, min_count: int = 2) -> NumberedWords:
        """The words that occur in `min_count` dialogs or more."""
        counts: Counter[str] = Counter()
        for dialog in dialogs:
            texts = (text for turn in dialog.turns for text in (*turn.heard, turn.answer))
            counts.update({word for text in texts for word in text.split()})
        kept = Vocabulary.of_counts(counts, min_count).to_list()[len(SPECIALS) :]
        return cls(Vocabulary([*SPECIALS, USER, SYSTEM, *kept]), numbers)

    def __len__(self) -> int:
        return self.known + self.numbers

    def encode(self, text: str, names: dict[str, int], strange: frozenset[str] = frozenset()) -> list[int]:
        """Ids; words that are not known, or are in `strange`, are numbered by `names`, which grows.

        When the numbers are used up they begin again.
        """
        found = []
        for word in text.split():
            if word in self.vocabulary and word not in strange:
                found += self.vocabulary.encode([word])
            else:
                found.append(self.known + names.setdefault(word, len(names)) % self.numbers)
        return found

    def decode(self, ids: Sequence[int], names: Mapping[str, int]) -> str:
        """The words of ids, up to the stop."""
        named = {self.known + number % self.numbers: word for word, number in names.items()}
        words = []
        for i in ids:
            if i == STOP:
                break
            words.append(self.vocabulary.word(i) if i < self.known else named.get(i, SPECIALS[-1]))
        return " ".join(words)

    def heard(self, turn: Sequence[str], names: dict[str, int], strange: frozenset[str] = frozenset()) -> list[int]:
        """What was heard as ids, each line behind the mark of the user."""
        mark = self.vocabulary.encode([USER])
        return [i for line in turn for i in (*mark, *self.encode(line, names, strange))]

    def said(self, answer: str, names: dict[str, int], strange: frozenset[str] = frozenset()) -> list[int]:
        """An answer as ids, behind the mark of the system."""
        return [*self.vocabulary.encode([SYSTEM]), *self.encode(answer, names, strange)]
