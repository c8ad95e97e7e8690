"""Words to ids and back, through JSON too."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carousel.data.vocabulary import PAD, SPECIALS, START, STOP, UNKNOWN, Vocabulary, caption_words
from carousel.errors import DataError
from carousel.metrics.words import normalise

captions = st.lists(st.text(max_size=40).map(caption_words), max_size=8)


def test_the_specials_have_fixed_ids() -> None:
    assert (PAD, START, STOP, UNKNOWN) == (0, 1, 2, 3)
    assert Vocabulary.build([]).to_list() == ["<pad>", "<start>", "<stop>", "<unk>"]


def test_frequent_words_come_first_and_rare_ones_not_at_all() -> None:
    sentences = [["b", "a", "c"], ["b", "a"], ["b", "a"], ["d", "b"], ["d"], ["<unk>"] * 9]
    assert Vocabulary.build(sentences, min_count=2).to_list()[4:] == ["b", "a", "d"]


def test_the_order_of_sentences_does_not_matter() -> None:
    sentences = [["a", "b"], ["c", "a"], ["b"]]
    assert (
        Vocabulary.build(sentences, 1).to_list()
        == Vocabulary.build(sentences[::-1], 1).to_list()
        == [*SPECIALS, "a", "b", "c"]
    )


def test_the_default_keeps_words_seen_five_times() -> None:
    vocabulary = Vocabulary.build([["often"]] * 5 + [["rarely"]] * 4)
    assert "often" in vocabulary and "rarely" not in vocabulary and len(vocabulary) == 5
    assert repr(vocabulary) == "Vocabulary(5 words)"


def test_decoding_ends_at_stop() -> None:
    vocabulary = Vocabulary.build([["a", "dog"]], min_count=1)
    assert vocabulary.decode([PAD, START, 4, UNKNOWN, 5, STOP, 4]) == "a <unk> dog"


@given(captions)
def test_known_words_come_back(sentences: list[list[str]]) -> None:
    vocabulary = Vocabulary.build(sentences, min_count=1)
    restored = Vocabulary.from_list(json.loads(json.dumps(vocabulary.to_list())))
    for words in sentences:
        assert restored.encode(words) == vocabulary.encode(words)
        assert UNKNOWN not in restored.encode(words)
        assert restored.decode(restored.encode(words)) == " ".join(words)


@given(st.text())
def test_the_words_learned_are_the_words_scored(text: str) -> None:
    assert " ".join(caption_words(text)) == normalise(text)
    assert not set(caption_words(text)) & set(SPECIALS)


def test_a_list_without_the_specials_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        Vocabulary.from_list(["a", "dog"])
    assert str(caught.value) == (
        "vocabulary: wrong first words (got ['a', 'dog']); the first four must be <pad>, <start>, <stop>, <unk>; "
        "build it with Vocabulary.build"
    )


def test_a_word_twice_is_refused() -> None:
    with pytest.raises(DataError, match=r"a word twice \(got 'dog'\)"):
        Vocabulary.from_list([*SPECIALS, "dog", "a", "dog"])
