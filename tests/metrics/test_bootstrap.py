from __future__ import annotations

import numpy as np
import pytest

from carousel.metrics import (
    bleu_from_statistics,
    bleu_statistics,
    bootstrap,
    bootstrap_difference,
    mean_from_statistics,
    mean_statistics,
)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_mean_has_the_interval_of_the_normal_law() -> None:
    values = generator(1).normal(size=400)
    (estimate,) = bootstrap(mean_statistics(values), mean_from_statistics, generator=generator(), resamples=4000)
    half = 1.96 * values.std() / np.sqrt(400)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.006)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.006)


def test_intervals_cover() -> None:
    hits = 0
    for seed in range(200):
        statistics = mean_statistics(generator(seed).exponential(size=100))
        (estimate,) = bootstrap(statistics, mean_from_statistics, generator=generator(seed), resamples=200)
        hits += estimate.low <= 1 <= estimate.high
    assert 0.88 <= hits / 200 <= 0.98


def test_bleu_is_recomputed_from_resampled_counts() -> None:
    candidates, references = ["a b c d", "x"], [["a b c d"], ["a b c d"]]
    statistics = bleu_statistics(candidates, references)
    estimates = bootstrap(statistics, bleu_from_statistics, generator=generator())
    assert len(estimates) == 4
    assert estimates[0].value == pytest.approx(bleu_from_statistics(statistics.sum(axis=0))[0])
    assert estimates[0].high == pytest.approx(1)
    assert estimates[0].low == pytest.approx(0, abs=1e-4)


def test_the_seed_decides() -> None:
    statistics = mean_statistics(generator(1).normal(size=50))
    first, same, other = (
        bootstrap(statistics, mean_from_statistics, generator=generator(seed), resamples=50) for seed in (0, 0, 1)
    )
    assert first == same != other


def test_pairing_finds_a_small_difference_that_the_intervals_hide() -> None:
    hard = generator(1).normal(size=300)
    worse, better = mean_statistics(hard), mean_statistics(hard + 0.05 + 0.1 * generator(2).normal(size=300))
    (alone,) = bootstrap(better, mean_from_statistics, generator=generator())
    (paired,) = bootstrap_difference(better, worse, mean_from_statistics, generator=generator())
    assert alone.low < hard.mean()
    assert 0 < paired.low < paired.value < paired.high
    assert paired.p == pytest.approx(2 / 1001)


def test_no_difference() -> None:
    same = mean_statistics(generator(1).normal(size=30))
    assert bootstrap_difference(same, same, mean_from_statistics, generator=generator()) == [(0, 0, 0, 1)]


def test_a_swap_changes_the_sign() -> None:
    first, second = (mean_statistics(generator(seed).normal(size=30)) for seed in (1, 2))
    (there,) = bootstrap_difference(first, second, mean_from_statistics, generator=generator())
    (back,) = bootstrap_difference(second, first, mean_from_statistics, generator=generator())
    assert (back.value, back.low, back.high, back.p) == pytest.approx((-there.value, -there.high, -there.low, there.p))
