"""How spans are written as one tag for each token: IOB1, BIO, BIOES, BILOU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from carousel.metrics.spans import Span, parts

Scheme = Literal["bio", "iob1", "bioes", "bilou"]
LETTERS: Mapping[Scheme, str] = {"bio": "BI", "iob1": "IB", "bioes": "BIES", "bilou": "BILU"}
Pair = tuple[str | None, str | None]  # a tag and the next; None is before the first and behind the last


def may_follow(before: str | None, tag: str | None, scheme: Scheme) -> bool:
    """Whether two neighbours keep to a scheme; None is before the first tag and behind the last.

    >>> [may_follow("O", "I-PER", scheme) for scheme in ("bio", "iob1", "bioes")]
    [False, True, False]
    >>> may_follow("B-PER", None, "bio"), may_follow("B-PER", None, "bioes")
    (True, False)
    """
    (p, was), (q, kind) = parts(before or "O"), parts(tag or "O")
    goes_on = p in ("B", "I") and was == kind
    if scheme == "bio":
        return goes_on or q != "I"
    if scheme == "iob1":
        return goes_on or q != "B"
    begun = p in ("B", "I")
    return goes_on and q in ("I", "E", "L") if begun else q not in ("I", "E", "L")


def scheme_of(pairs: Mapping[Pair, int]) -> Scheme | None:
    """The scheme that the fewest of these neighbours break; None for tags that are no spans.

    >>> scheme_of({(None, "B-PER"): 2, ("B-PER", "I-PER"): 2, ("I-PER", None): 2})
    'bio'
    >>> scheme_of({(None, "NOUN"): 2, ("NOUN", None): 2}) is None
    True
    """
    tags = {tag for pair in pairs for tag in pair if tag is not None}
    letters = {parts(tag)[0] for tag in tags if tag != "O"}
    if not letters or "O" in letters:  # all are O, or one is neither O nor has a letter and a dash
        return None
    possible: list[Scheme] = ["bio", "iob1"] if letters <= {"B", "I"} else ["bioes"] if letters & {*"ES"} else ["bilou"]
    return min(possible, key=lambda scheme: sum(pairs[pair] for pair in broken(pairs, scheme)))


def broken(pairs: Iterable[Pair], scheme: Scheme) -> list[Pair]:
    """Those neighbours that do not keep to the scheme."""
    return [pair for pair in pairs if not may_follow(*pair, scheme)]


def written(spans: Sequence[Span], length: int, scheme: Scheme) -> list[str]:
    """The tags of a sentence with these spans; `carousel.metrics.spans.spans` is the way back.

    >>> written([Span(0, 2, "PER"), Span(3, 4, "LOC")], 4, "bioes")
    ['B-PER', 'E-PER', 'O', 'S-LOC']
    >>> written([Span(0, 2, "PER"), Span(2, 3, "PER")], 3, "iob1")
    ['I-PER', 'I-PER', 'B-PER']
    """
    tags, before = ["O"] * length, Span(0, 0, "")
    for span in spans:
        letters = "B" + "I" * (span.stop - span.start - 1)
        if scheme == "iob1" and not (before.stop == span.start and before.kind == span.kind):
            letters = "I" * len(letters)
        if scheme in ("bioes", "bilou"):
            end, single = LETTERS[scheme][2], LETTERS[scheme][3]
            letters = letters[:-1] + end if len(letters) > 1 else single
        tags[span.start : span.stop] = [f"{letter}-{span.kind}" for letter in letters]
        before = span
    return tags


def inventory(kinds: Iterable[str], scheme: Scheme) -> list[str]:
    """Every tag that spans of these kinds can have.

    >>> inventory(["PER", "LOC"], "bio")
    ['O', 'B-LOC', 'I-LOC', 'B-PER', 'I-PER']
    """
    return ["O", *(f"{letter}-{kind}" for kind in sorted(kinds) for letter in LETTERS[scheme])]
