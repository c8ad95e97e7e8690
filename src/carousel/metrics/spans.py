"""Scores of taggers: spans found, as conlleval counts them, and tokens."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from carousel.metrics.bootstrap import Floats
from carousel.metrics.score import Score

Tags = Sequence[str]
_TAG = re.compile(r"([BIESLU])-(.+)", re.DOTALL)
ENDS = ("E", "S", "L", "U")  # a span that has such a tag ends there
BEGINS = ("B", "S", "U")


class Span(NamedTuple):
    """Tokens start, ..., stop − 1 are a `kind`."""

    start: int
    stop: int
    kind: str


def parts(tag: str) -> tuple[str, str]:
    """What stands before the dash, and the kind of span; ("O", "") for all else.

    >>> parts("B-PER"), parts("I-B-cell"), parts("O"), parts("NOUN")
    (('B', 'PER'), ('I', 'B-cell'), ('O', ''), ('O', ''))
    """
    found = _TAG.fullmatch(tag)
    return (found[1], found[2]) if found else ("O", "")


def spans(tags: Tags) -> list[Span]:
    """The spans of a sentence in IOB1, BIO, BIOES or BILOU, right or wrong, as conlleval sees them.

    A span goes on while its kind does, and ends before B, S and U and after E, S, L and U; a tag that breaks its
    scheme, such as I after O, begins one.

    Tjong Kim Sang, conlleval of CoNLL-2000, version 2000-04-14, `startOfChunk` and `endOfChunk`.
    Notes: the script knows B, I, E and O; S counts as B and E at once, L as E, and U as S.

    >>> spans(["I-PER", "I-PER", "B-PER", "O", "I-LOC", "I-ORG"])
    [Span(start=0, stop=2, kind='PER'), Span(start=2, stop=3, kind='PER'), Span(start=4, ...
    """
    found: list[Span] = []
    start, before, kind = 0, "O", ""
    for t, tag in enumerate([*tags, "O"]):
        prefix, this = parts(tag)
        if this != kind or prefix in BEGINS or before in ENDS:
            if kind:
                found.append(Span(start, t, kind))
            start = t
        before, kind = prefix, this
    return found


def span_f1(right: Sequence[Tags], said: Sequence[Tags]) -> Score:
    """F1 over the spans of all sentences: one counts that has both its ends and its kind right.

        P = both / said,   R = both / right,   F1 = 2 P R / (P + R) = 2 both / (said + right);   0 where there is none

    >>> span_f1([["B-PER", "I-PER", "O"]], [["B-PER", "O", "O"]]).value
    0.0
    """
    rows = []
    for gold, guess in zip(right, said, strict=True):
        a, b = set(spans(gold)), set(spans(guess))
        rows.append([2 * len(a & b), len(a) + len(b)])
    return _share("span F1 in %", rows)


def token_accuracy(right: Sequence[Tags], said: Sequence[Tags]) -> Score:
    """The share of the tokens with the right tag; the interval is over sentences.

    >>> token_accuracy([["A", "B"], ["A"]], [["A", "A"], ["A"]]).value
    66.66...
    """
    pairs = zip(right, said, strict=True)
    rows = [[sum(map(str.__eq__, gold, guess)), len(gold)] for gold, guess in pairs]
    return _share("token accuracy in %", rows)


def _share(name: str, rows: Sequence[Sequence[int]]) -> Score:
    def aggregate(sums: Floats) -> Floats:
        hits, of = sums[..., :1], sums[..., 1:]
        return np.asarray(100 * np.divide(hits, of, out=np.zeros_like(hits), where=of > 0))

    return Score(name, np.array(rows, dtype=float).reshape(-1, 2), aggregate)


class Found(NamedTuple):
    """How often something was right, was said, and both."""

    right: int
    said: int
    both: int

    @property
    def shares(self) -> tuple[float, float, float]:
        """Precision, recall and F1, from 0 to 1."""
        return (
            self.both / max(1, self.said),
            self.both / max(1, self.right),
            2 * self.both / max(1, self.said + self.right),
        )


def spans_by_kind(right: Sequence[Tags], said: Sequence[Tags]) -> dict[str, Found]:
    """Counts for each kind of span, in order.

    >>> spans_by_kind([["B-PER", "O"]], [["B-PER", "B-LOC"]])
    {'LOC': Found(right=0, said=1, both=0), 'PER': Found(right=1, said=1, both=1)}
    """
    pairs = [(set(spans(gold)), set(spans(guess))) for gold, guess in zip(right, said, strict=True)]
    return _counted(
        Counter(span.kind for gold, _ in pairs for span in gold),
        Counter(span.kind for _, guess in pairs for span in guess),
        Counter(span.kind for gold, guess in pairs for span in gold & guess),
    )


def tokens_by_tag(right: Sequence[Tags], said: Sequence[Tags]) -> dict[str, Found]:
    """Counts for each tag, in order.

    >>> tokens_by_tag([["A", "B"]], [["A", "A"]])
    {'A': Found(right=1, said=2, both=1), 'B': Found(right=1, said=0, both=0)}
    """
    gold, guess = [tag for tags in right for tag in tags], [tag for tags in said for tag in tags]
    both = Counter(a for a, b in zip(gold, guess, strict=True) if a == b)
    return _counted(Counter(gold), Counter(guess), both)


def _counted(right: Counter[str], said: Counter[str], both: Counter[str]) -> dict[str, Found]:
    return {name: Found(right[name], said[name], both[name]) for name in sorted({*right, *said})}
