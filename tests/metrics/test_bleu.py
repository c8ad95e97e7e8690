from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

from carousel.metrics import bleu, bleu_from_statistics, bleu_statistics, normalise

from .conftest import Scored
from .sentences import corpora


def test_by_hand() -> None:
    scores = bleu(["the cat the cat on the mat"], [["the cat is on the mat", "there is a cat on the mat"]])
    # the 2 of 3 (clipped), cat 1 of 2, on 1, mat 1; the-cat 1 of 2, cat-on 1, on-the 1, the-mat 1; closest length 7
    assert scores.bleu_1 == pytest.approx(5 / 7)
    assert scores.bleu_2 == pytest.approx(math.sqrt(5 / 7 * 4 / 6))
    assert scores.bleu_4 == pytest.approx((5 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** (1 / 4))


def test_published_counts_of_the_official_demo() -> None:
    sums = np.array([9893, 9855, 5732, 2510, 1043, 423, 9893, 8893, 7893, 6893.0])
    assert bleu_from_statistics(sums).round(3).tolist() == [0.579, 0.404, 0.279, 0.191]


def test_the_shorter_of_two_equally_close_references_counts() -> None:
    assert bleu_statistics(["a b c"], [["a b c d", "a b"]])[0, 1] == 2


def test_brevity_is_a_matter_of_the_corpus() -> None:
    references = [["a b c d"], ["a b c d"]]
    short_and_long = bleu(["a b", "a b c d e f"], references)
    assert short_and_long.bleu_1 == pytest.approx(6 / 8)
    assert bleu(["a b c", "a b c"], references).bleu_1 == pytest.approx(math.exp(1 - 8 / 6))


@pytest.mark.parametrize("candidate", ["", "x", "x y z"])
def test_nothing_shared_is_almost_zero_and_finite(candidate: str) -> None:
    assert all(0 <= score < 1e-4 for score in bleu([candidate], [["a b c d"]]))


@given(corpora)
def test_properties(corpus: list[tuple[str, list[str]]]) -> None:
    candidates, references = map(list, zip(*corpus, strict=True))
    scores = bleu(candidates, references)
    assert all(0 <= score <= 1 for score in scores)
    assert scores == bleu(candidates, [list(reversed(image)) for image in references])
    assert scores == pytest.approx(bleu(candidates[::-1], references[::-1]))
    assert bleu(candidates, [[candidate] for candidate in candidates]).bleu_1 == pytest.approx(1)


@pytest.mark.data
def test_equal_to_the_official_scores(oracle: Scored) -> None:
    scores = bleu(oracle.candidates, oracle.references)
    assert scores == pytest.approx([oracle.scores[f"Bleu_{n}"] for n in (1, 2, 3, 4)], abs=1e-9)


@pytest.mark.data
def test_equal_to_published_scores(published: Scored) -> None:
    texts = [normalise(candidate) for candidate in published.candidates]
    truths = [[normalise(caption) for caption in image] for image in published.references]
    assert bleu(texts, truths) == pytest.approx([published.scores[f"Bleu_{n}"] for n in (1, 2, 3, 4)], abs=1e-3)
