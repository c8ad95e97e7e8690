"""Schemes of spans: written, read again, recognised, and checked."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, product

import pytest

from carousel.data.schemes import LETTERS, Pair, Scheme, broken, inventory, may_follow, scheme_of, written
from carousel.metrics.spans import Span, spans

SENTENCES = [
    ([Span(0, 1, "A"), Span(1, 3, "A"), Span(4, 5, "C")], 6),
    ([Span(0, 3, "C"), Span(3, 4, "A"), Span(4, 5, "A")], 5),
    ([], 2),
]


def pairs(tags: list[str]) -> list[Pair]:
    return list(pairwise([None, *tags, None]))


@pytest.mark.parametrize("scheme", LETTERS)
def test_what_is_written_is_read_again_and_recognised(scheme: Scheme) -> None:
    seen: Counter[Pair] = Counter()
    for some, length in SENTENCES:
        tags = written(some, length, scheme)
        assert spans(tags) == some and set(tags) <= set(inventory(["A", "C"], scheme))
        seen.update(pairs(tags))
    assert scheme_of(seen) == scheme and not broken(seen, scheme)


@pytest.mark.parametrize("scheme", LETTERS)
def test_tags_that_may_follow_are_those_of_some_spans(scheme: Scheme) -> None:
    every = inventory(["A", "C"], scheme)
    for tags in product(every, repeat=3):
        allowed = all(may_follow(*pair, scheme) for pair in pairs(list(tags)))
        assert allowed == (written(spans(tags), 3, scheme) == list(tags)), tags


def test_a_few_mistakes_do_not_change_the_scheme() -> None:
    seen = Counter(pairs(["B-A", "I-A", "O", "B-A"]) * 9 + pairs(["O", "I-A"]))
    assert scheme_of(seen) == "bio" and broken(seen, "bio") == [("O", "I-A")]


@pytest.mark.parametrize("tags", [["NOUN", "VERB"], ["O", "O"], ["B", "I", "O"], ["B-A", "NOUN"]])
def test_other_tags_are_no_spans(tags: list[str]) -> None:
    assert scheme_of(Counter(pairs(tags))) is None
