"""Candidates: what a decoder says, as the next part of the pipeline reads it."""

from carousel.captioning import Caption
from carousel.captioning.candidates import Candidate


def test_a_candidate_has_the_captions_words_and_counts_each_concept_once() -> None:
    words = [("a", 0.9), ("dog", 0.8), ("and", 0.3), ("a", 0.9), ("dog", 0.1)]
    caption = Caption("a dog and a dog", -4.0, False, words)
    found = Candidate.of(caption, 2, ["a", "dog", "cat"])
    assert found.words == ("a", "dog", "and", "a", "dog") and found.text == caption.text
    assert (found.logprob, found.covered, found.rank, found.probabilities[-1]) == (-4.0, 2, 2, 0.1)


def test_an_empty_sentence_is_a_candidate() -> None:
    assert Candidate.of(Caption("", -9.0, False, []), 0) == Candidate("", (), -9.0, 0, 0)
