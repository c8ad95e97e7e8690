from __future__ import annotations

import pytest
from hypothesis import given

from carousel.metrics import normalise, rouge_l, rouge_l_scores
from carousel.metrics.rouge import longest_common_subsequence

from .conftest import Scored
from .sentences import corpora


@pytest.mark.parametrize(
    ("first", "second", "length"), [("", "a", 0), ("a b c", "c b a", 1), ("a x b y c", "a b c", 3), ("a a", "a", 1)]
)
def test_longest_common_subsequence(first: str, second: str, length: int) -> None:
    assert longest_common_subsequence(first.split(), second.split()) == length


def test_precision_and_recall_come_from_different_references() -> None:
    # P = 3/4 from the first reference, R = 1 from the second
    expected = (1 + 1.44) * 0.75 * 1 / (1 + 1.44 * 0.75)
    assert rouge_l(["a b c d"], [["a x b x c x", "d"]]) == pytest.approx(expected)


def test_recall_counts_more_than_precision() -> None:
    longer, shorter = rouge_l_scores(["a b c d", "a b"], [["a b"], ["a b c d"]])
    assert longer > shorter


def test_nothing_shared_is_zero() -> None:
    assert rouge_l_scores(["", "x"], [["a"], ["a b"]]).tolist() == [0, 0]


@given(corpora)
def test_properties(corpus: list[tuple[str, list[str]]]) -> None:
    candidates, references = map(list, zip(*corpus, strict=True))
    scores = rouge_l_scores(candidates, references)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores.tolist() == rouge_l_scores(candidates, [image[::-1] for image in references]).tolist()
    assert rouge_l(candidates, [[candidate] for candidate in candidates]) == pytest.approx(1)


@pytest.mark.data
def test_equal_to_the_official_score(oracle: Scored) -> None:
    assert rouge_l(oracle.candidates, oracle.references) == pytest.approx(oracle.scores["ROUGE_L"], abs=1e-9)


@pytest.mark.data
def test_equal_to_published_scores(published: Scored) -> None:
    texts = [normalise(candidate) for candidate in published.candidates]
    truths = [[normalise(caption) for caption in image] for image in published.references]
    assert rouge_l(texts, truths) == pytest.approx(published.scores["ROUGE_L"], abs=1e-3)
