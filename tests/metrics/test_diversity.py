from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carousel.metrics import are_novel, distinct_captions, normalise, sentence_hash, sentence_hashes, vocabulary_used

from .conftest import Scored

TWO_DOGS_PLAY = -6354489147280315610
EMPTY = -5426141060434712860


def test_a_hash_never_changes() -> None:
    assert sentence_hash("Two dogs play .") == sentence_hash("two dogs play") == TWO_DOGS_PLAY
    assert sentence_hash("") == EMPTY


@given(st.text())
def test_a_hash_fits_64_bits_and_sees_only_the_words(text: str) -> None:
    assert -(2**63) <= sentence_hash(text) < 2**63
    assert sentence_hash(text) == sentence_hash(normalise(text))


def test_hashes_may_come_from_an_array() -> None:
    stored = np.array(sorted(sentence_hashes(["A dog.", "a cat"])), dtype=np.int64)
    assert are_novel(["a dog", "A cat .", "a bird"], stored.tolist()).tolist() == [False, False, True]
    assert are_novel(["a dog", "a bird"], stored).tolist() == [False, True]


@pytest.mark.data
def test_equal_to_published_counts(published: Scored, flickr8k: dict[str, dict[str, list[str]]]) -> None:
    training = sentence_hashes(caption for image in flickr8k["train"].values() for caption in image)
    assert (~are_novel(published.candidates, training)).sum() == published.scores["num_existing_caps"]
    assert vocabulary_used(published.candidates) == published.scores["vocab_used"]
    assert 700 < distinct_captions(published.candidates) < 900
