"""Beam search against plain beams and against everything that can be said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from carousel.decoding import Sentence, beam_search, greedy_search

from .table import FORBIDDEN, START, STOP, Table, every_sentence, plain_beam, repeats

PLENTY = 400  # more than there are sentences


def search(table: Table, *inputs: int, **options: Any) -> list[list[Sentence]]:
    options = {"forbidden": FORBIDDEN, "max_length": 4, **options}
    return beam_search(table.step, table.start(*inputs), batch=len(inputs), start=START, stop=STOP, **options)


def tokens(sentence: Sentence) -> tuple[int, ...]:
    return (*sentence.words, STOP) if sentence.finished else sentence.words


@pytest.mark.parametrize("power", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("no_repeat", [0, 1, 2, 3])
@pytest.mark.parametrize("max_length", [1, 2, 4])
def test_a_wide_beam_finds_everything(max_length: int, no_repeat: int, power: float) -> None:
    table = Table.random(max_length)
    options = {"max_length": max_length, "no_repeat": no_repeat, "length_normalisation": power}
    for photo, found in enumerate(search(table, 0, 1, 2, width=PLENTY, n_best=PLENTY, **options)):
        exact = {said: table.logprob(photo, said, no_repeat) for said in every_sentence(max_length, no_repeat)}
        best = sorted(exact, key=lambda said: exact[said] / len(said) ** power, reverse=True)
        assert [tokens(sentence) for sentence in found] == best
        assert [sentence.logprob for sentence in found] == pytest.approx([exact[said] for said in best], abs=1e-9)


@given(
    seed=st.integers(0, 1000),
    width=st.integers(1, 12),
    power=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    max_length=st.integers(1, 6),
    no_repeat=st.integers(0, 3),
)
def test_it_is_the_plain_beam(seed: int, width: int, power: float, max_length: int, no_repeat: int) -> None:
    table = Table.random(seed)
    options = {"max_length": max_length, "no_repeat": no_repeat, "length_normalisation": power}
    for photo, found in enumerate(search(table, 0, 1, 2, width=width, n_best=width, **options)):
        plain = plain_beam(table, photo, width, max_length, power, no_repeat)
        assert [tokens(sentence) for sentence in found] == [said for said, _ in plain]
        assert [sentence.logprob for sentence in found] == pytest.approx([total for _, total in plain], abs=1e-9)


@given(seed=st.integers(0, 1000), width=st.integers(1, 9), n_best=st.integers(1, 9), power=st.sampled_from([0.0, 1.0]))
def test_the_list_is_sorted_distinct_and_adds_up(seed: int, width: int, n_best: int, power: float) -> None:
    table = Table.random(seed, spread=1.0)
    for photo, found in enumerate(search(table, 0, 1, width=width, n_best=n_best, length_normalisation=power)):
        scores = [sentence.logprob / len(tokens(sentence)) ** power for sentence in found]
        assert scores == sorted(scores, reverse=True)
        assert len({sentence.words for sentence in found}) == len(found) == n_best
        for sentence in found:
            stop = table.next_logprobs(photo, sentence.words)[STOP] if sentence.finished else 0.0
            assert len(sentence.word_logprobs) == len(sentence.words)
            assert sum(sentence.word_logprobs) + stop == pytest.approx(sentence.logprob)
            assert sentence.finished == (len(sentence.words) < 4)


@given(seed=st.integers(0, 1000), width=st.integers(1, 6))
def test_together_is_one_by_one(seed: int, width: int) -> None:
    table = Table.random(seed)
    together = search(table, 2, 0, 1, 0, width=width, n_best=3)
    assert together == [search(table, photo, width=width, n_best=3)[0] for photo in (2, 0, 1, 0)]


@given(seed=st.integers(0, 1000))
def test_width_one_is_greedy(seed: int) -> None:
    table = Table.random(seed)
    for photo, [found] in enumerate(search(table, 0, 1, 2, width=1, max_length=6)):
        said: tuple[int, ...] = ()
        while len(said) < 6 and said[-1:] != (STOP,):
            ahead = table.next_logprobs(photo, said)
            said = (*said, max(ahead, key=ahead.__getitem__))
        assert tokens(found) == said


@given(seed=st.integers(0, 1000))
def test_greedy_search_is_width_one(seed: int) -> None:
    table = Table.random(seed)
    table.logits[..., [*FORBIDDEN]] = -1e9
    found = greedy_search(table.step, table.start(0, 1), batch=2, start=START, stop=STOP, max_length=5)
    assert found == [best for [best] in search(table, 0, 1, width=1, max_length=5)]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_n_gram_twice(size: int) -> None:
    repeated = 0
    for seed in range(20):
        table = Table.random(seed)
        table.logits[..., STOP] -= 4  # long sentences
        for [free], [held] in zip(
            search(table, 0, 1, 2, max_length=12), search(table, 0, 1, 2, max_length=12, no_repeat=size), strict=True
        ):
            assert not any(repeats(held.words[: i + 1], size) for i in range(len(held.words)))
            repeated += any(repeats(free.words[: i + 1], size) for i in range(len(free.words)))
    assert repeated  # else this shows nothing


def test_n_best_beyond_what_can_be_said() -> None:
    [found] = search(Table.random(0), 0, width=1, n_best=50, max_length=2)
    assert sorted(tokens(sentence) for sentence in found) == sorted(every_sentence(2))


def test_a_certain_end_comes_at_once() -> None:
    table = Table.random(0)
    table.logits[..., STOP] = 100.0
    [found] = search(table, 0, width=1, max_length=1000)[0:1]
    assert found[0].words == () and found[0].finished and found[0].logprob == pytest.approx(0.0)


def test_no_step_after_the_last_sentence_ended() -> None:
    table, calls = Table.random(0), 0
    table.logits[..., STOP] = 100.0

    def counted(words: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        nonlocal calls
        calls += 1
        return table.step(words, state)

    beam_search(counted, table.start(0), batch=1, start=START, stop=STOP, width=1, max_length=1000)
    assert calls == 1


def test_the_start_is_never_said() -> None:
    table = Table.random(0)
    table.logits[..., START] = 50.0
    found = search(table, 0, 1, width=8, n_best=8)
    assert not {START, *FORBIDDEN} & {word for sentences in found for sentence in sentences for word in sentence.words}
