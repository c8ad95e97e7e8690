"""Drawn sentences follow the distribution they are drawn from."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from carousel.decoding import Sentence, beam_search, sample, truncate_logits

from .table import FORBIDDEN, START, STOP, Table, every_sentence, repeats


def draw(table: Table, *inputs: int, seed: int = 0, **options: Any) -> list[list[Sentence]]:
    options = {"forbidden": FORBIDDEN, "max_length": 4, **options}
    generator = torch.Generator().manual_seed(seed)
    start = table.start(*inputs)
    return sample(table.step, start, batch=len(inputs), start=START, stop=STOP, generator=generator, **options)


def greedy(table: Table, *inputs: int) -> list[tuple[int, ...]]:
    found = beam_search(
        table.step,
        table.start(*inputs),
        batch=len(inputs),
        start=START,
        stop=STOP,
        width=1,
        max_length=4,
        forbidden=FORBIDDEN,
    )
    return [best.words for [best] in found]


def tokens(sentence: Sentence) -> tuple[int, ...]:
    return (*sentence.words, STOP) if sentence.finished else sentence.words


def test_the_same_seed_draws_the_same_sentences() -> None:
    table = Table.random(0)
    assert draw(table, 0, 1, n=20) == draw(table, 0, 1, n=20)
    assert draw(table, 0, 1, n=20) != draw(table, 0, 1, n=20, seed=1)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    draw(Table.random(0), 0, n=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("heat", "no_repeat", "photo"), [(1.0, 0, 0), (1.0, 0, 1), (1.0, 1, 0), (0.5, 0, 0), (2.0, 0, 1), (1.0, 2, 1)]
)
def test_frequencies_are_the_probabilities(heat: float, no_repeat: int, photo: int) -> None:
    table, n = Table.random(3, spread=1.0), 20_000
    found = draw(table, 0, 1, n=n, temperature=heat, no_repeat=no_repeat, max_length=3)[photo]
    counts = Counter(map(tokens, found))
    heated = Table(table.logits / heat, table.drift / heat)
    expected = {s: n * math.exp(heated.logprob(photo, s, no_repeat)) for s in every_sentence(3, no_repeat)}
    assert sum(expected.values()) == pytest.approx(n)
    assert set(counts) <= set(expected)
    chi_square = sum((counts[said] - count) ** 2 / count for said, count in expected.items())
    freedom = len(expected) - 1
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


def test_log_probabilities_are_the_models_own() -> None:
    table = Table.random(1)
    for photo, found in enumerate(draw(table, 0, 1, 2, n=30, temperature=3.0, top_k=3, top_p=0.9)):
        for sentence in found:
            assert sentence.logprob == pytest.approx(table.logprob(photo, tokens(sentence)))
            assert len(sentence.word_logprobs) == len(sentence.words)
            assert sentence.finished == (len(sentence.words) < 4)


@pytest.mark.parametrize(
    "cold", [{"temperature": 1e-3}, {"temperature": 1e-30}, {"top_k": 1}, {"top_p": 1e-6}, {"top_p": 0.0}]
)
def test_the_coldest_draw_is_greedy(cold: dict[str, Any]) -> None:
    for seed in range(20):
        table = Table.random(seed)
        found = draw(table, 0, 1, 2, n=3, **cold)
        assert [{sentence.words for sentence in row} for row in found] == [{words} for words in greedy(table, 0, 1, 2)]


@given(seed=st.integers(0, 1000), size=st.integers(1, 3))
def test_nothing_forbidden_and_no_n_gram_twice(seed: int, size: int) -> None:
    table = Table.random(seed)
    table.logits[..., [START, *FORBIDDEN]] += 10
    table.logits[..., STOP] -= 4
    for sentence in draw(table, 0, n=20, max_length=10, no_repeat=size)[0]:
        assert not any(repeats(sentence.words[: i + 1], size) for i in range(len(sentence.words)))
        assert not {START, STOP, *FORBIDDEN} & set(sentence.words)


PROBABILITIES = torch.tensor([[0.05, 0.5, 0.15, 0.3], [0.97, 0.01, 0.01, 0.01]])


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.0, [{1}, {0}]), (0.45, [{1}, {0}]), (0.55, [{1, 3}, {0}]), (0.79, [{1, 3}, {0}]), (0.81, [{1, 2, 3}, {0}])],
)
def test_the_nucleus_is_the_smallest_that_holds_enough(top_p: float, kept: list[set[int]]) -> None:
    logits = truncate_logits(PROBABILITIES.log(), top_p=top_p)
    assert [set(row.isfinite().nonzero()[:, 0].tolist()) for row in logits] == kept
    assert torch.equal(logits[logits.isfinite()], PROBABILITIES.log()[logits.isfinite()])


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"), [(2, 1.0, {1, 3}), (9, 1.0, {0, 1, 2, 3}), (0, 1.0, {0, 1, 2, 3}), (2, 0.6, {1})]
)
def test_the_k_likeliest_then_the_nucleus_of_those(top_k: int, top_p: float, kept: set[int]) -> None:
    logits = truncate_logits(PROBABILITIES[:1].log(), top_k=top_k, top_p=top_p)  # of two: 0.625 and 0.375
    assert set(logits[0].isfinite().nonzero()[:, 0].tolist()) == kept
