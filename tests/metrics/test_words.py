from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carousel.errors import DataError
from carousel.metrics import normalise
from carousel.metrics.words import check_pairs


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("A tri-colored dog .", "a tricolored dog"),
        ('\tThe "boy\'s"\n 2 bikes!', "the boys 2 bikes"),
        ("snake_case", "snakecase"),
        ("Cafe\u0301", "caf\u00e9"),
        ("हिन्दी में", "हिन्दी में"),
        (" . ", ""),
    ],
)
def test_normalise(raw: str, words: str) -> None:
    assert normalise(raw) == words


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        (["a"], [], "captions to score: 1 candidates for 0 images; one candidate for every image is needed"),
        ([], [], "captions to score: 0 candidates for 0 images"),
        (["a", "b"], [["a"], []], "references[1]: no caption; every image needs at least one reference"),
        (["a"], ["a dog"], "references[0]: one string (got 'a dog'); every image needs a list of captions"),
    ],
)
def test_pairs_that_do_not_belong_together(candidates: list[str], references: list[list[str]], message: str) -> None:
    with pytest.raises(DataError) as caught:
        check_pairs(candidates, references)
    assert str(caught.value).startswith(message)
