"""Spans as conlleval counts them."""

from __future__ import annotations

import random
import re

import pytest

from carousel.metrics.spans import Found, Span, parts, span_f1, spans, spans_by_kind, token_accuracy


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-A I-A O B-A", [(0, 2, "A"), (3, 4, "A")]),
        ("B-A B-A", [(0, 1, "A"), (1, 2, "A")]),
        ("I-A I-A", [(0, 2, "A")]),  # I begins a span behind O
        ("I-A B-A I-A", [(0, 1, "A"), (1, 3, "A")]),  # IOB1
        ("B-A I-B I-B", [(0, 1, "A"), (1, 3, "B")]),  # another kind begins another span
        ("O I-A O", [(1, 2, "A")]),
        ("B-A I-A E-A", [(0, 3, "A")]),
        ("E-A E-A I-A", [(0, 1, "A"), (1, 2, "A"), (2, 3, "A")]),
        ("S-A S-A B-A E-A", [(0, 1, "A"), (1, 2, "A"), (2, 4, "A")]),
        ("U-A B-A L-A", [(0, 1, "A"), (1, 3, "A")]),
        ("O O", []),
        ("", []),
        ("NOUN VERB", []),
    ],
)
def test_spans(tags: str, expected: list[tuple[int, int, str]]) -> None:
    assert spans(tags.split()) == [Span(*one) for one in expected]


def by_definition(tags: list[str]) -> set[tuple[int, int, str]]:
    """Spans in B, I, E and O by a regular expression over a string in which each begin is marked."""
    marked = []
    for before, tag in zip(["O", *tags], tags, strict=False):
        (p, was), (q, kind) = parts(before), parts(tag)
        begins = q != "O" and (p == "O" or was != kind or q == "B" or (p == "E" and q in "EI"))
        marked.append("." if q == "O" else kind.upper() if begins else kind.lower())
    runs = re.finditer("A[a]*|C[c]*", "".join(marked))
    return {(run.start(), run.end(), run[0][0]) for run in runs}


def test_random_tags_against_the_definition() -> None:
    draw = random.Random(0)
    every = ["O", *(f"{letter}-{kind}" for letter in "BIE" for kind in "AC")]
    for _ in range(2000):
        tags = draw.choices(every, k=draw.randint(0, 7))
        if re.search("E-(.) B-", " ".join(tags)):
            continue
        assert {tuple(span) for span in spans(tags)} == by_definition(tags), tags


def test_f1_is_two_both_over_all() -> None:
    right = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG", "O"]]
    said = [["B-PER", "I-PER", "O", "B-ORG"], ["B-ORG", "B-ORG", "O"]]
    score = span_f1(right, said)
    assert score.value == pytest.approx(100 * 2 * 2 / (3 + 4))  # precision 2/4, recall 2/3
    assert spans_by_kind(right, said)["ORG"] == Found(right=1, said=3, both=1)
    assert spans_by_kind(right, said)["ORG"].shares == (1 / 3, 1.0, 0.5)
    assert token_accuracy(right, said).value == pytest.approx(100 * 5 / 7)


def test_a_span_with_one_wrong_end_or_kind_is_wrong() -> None:
    right = ["B-PER", "I-PER", "I-PER"]
    for said in (["B-PER", "I-PER", "O"], ["O", "B-PER", "I-PER"], ["B-LOC", "I-LOC", "I-LOC"]):
        assert span_f1([right], [said]).value == 0


def test_nothing_to_find_is_zero() -> None:
    assert span_f1([["O"]], [["O"]]).value == 0 and token_accuracy([], []).value == 0
