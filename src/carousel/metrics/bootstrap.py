"""How far a score would move with other test images: bootstrap intervals and paired comparisons."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Aggregate = Callable[[Floats], Floats]  # summed statistics (..., columns) -> scores (..., scores)


class Estimate(NamedTuple):
    """A score with its percentile bootstrap interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """How much better the first of two systems scores, with interval and two-sided p-value of "no difference"."""

    value: float
    low: float
    high: float
    p: float


def bootstrap(
    statistics: Floats,
    aggregate: Aggregate,
    *,
    generator: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> list[Estimate]:
    """Percentile bootstrap intervals, over images, of scores that depend on sums over images.

        s*_b = Σ_i w_bi s_i,   w_b ~ Multinomial(n; 1/n, ..., 1/n),   b = 1..resamples
        low, high = quantiles (1 ∓ level) / 2 of aggregate(s*_b)

    statistics: (images, columns), such as `bleu_statistics`; aggregate turns sums of rows into scores, such as
    `bleu_from_statistics`, along the last axis. For a mean of per-image values see `mean_statistics`. One estimate is
    returned for each score of `aggregate`.

    Efron and Tibshirani 1993, "An introduction to the bootstrap", sec. 13.3.
    Notes: document frequencies of CIDEr-D stay those of the whole test set.

    >>> from carousel.metrics.bootstrap import mean_from_statistics, mean_statistics
    >>> values = mean_statistics(np.array([0.0, 1.0, 1.0, 0.0] * 25))
    >>> bootstrap(values, mean_from_statistics, generator=np.random.default_rng(0))[0]
    Estimate(value=0.5, low=0.41, high=0.6)
    """
    sums = _resampled(statistics, generator, resamples)
    values, (low, high) = aggregate(statistics.sum(axis=0)), _bounds(aggregate(sums), level)
    return [Estimate(*row) for row in np.stack([values, low, high], axis=-1).tolist()]


def bootstrap_difference(
    first: Floats,
    second: Floats,
    aggregate: Aggregate,
    *,
    generator: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> list[Difference]:
    """Paired bootstrap of `first` minus `second`: both systems are scored on the same resampled images.

        p = 2 min(#{b: d*_b ≤ 0} + 1, #{b: d*_b ≥ 0} + 1) / (resamples + 1), at most 1

    The rows of both (images, columns) belong to the same images in the same order.

    Koehn 2004, "Statistical significance tests for machine translation evaluation".
    Notes: one training run each: says nothing about other seeds.

    >>> from carousel.metrics.bootstrap import mean_from_statistics, mean_statistics
    >>> values = np.random.default_rng(1).random(200)
    >>> better, worse = mean_statistics(values + 0.1), mean_statistics(values)
    >>> bootstrap_difference(better, worse, mean_from_statistics, generator=np.random.default_rng(0))[0].p < 0.01
    True
    """
    both = _resampled(np.concatenate([first, second], axis=1), generator, resamples)
    columns = first.shape[1]
    draws = aggregate(both[:, :columns]) - aggregate(both[:, columns:])
    values = aggregate(first.sum(axis=0)) - aggregate(second.sum(axis=0))
    low, high = _bounds(draws, level)
    tail = np.minimum((draws <= 0).sum(axis=0), (draws >= 0).sum(axis=0)) + 1
    p = np.minimum(1.0, 2 * tail / (resamples + 1))
    return [Difference(*row) for row in np.stack([values, low, high, p], axis=-1).tolist()]


def mean_statistics(values: Floats) -> Floats:
    """Statistics (images, scores + 1) whose aggregate `mean_from_statistics` is the mean over images.

    values: (images,) or (images, scores).

    >>> mean_statistics(np.array([0.25, 0.75])).tolist()
    [[0.25, 1.0], [0.75, 1.0]]
    """
    return np.column_stack([values, np.ones(len(values))])


def mean_from_statistics(sums: Floats) -> Floats:
    """Means (..., scores) from sums of `mean_statistics` (..., scores + 1).

    >>> mean_from_statistics(np.array([1.0, 3.0, 2.0])).tolist()
    [0.5, 1.5]
    """
    return sums[..., :-1] / sums[..., -1:]


def _resampled(statistics: Floats, generator: np.random.Generator, resamples: int) -> Floats:
    images = len(statistics)
    chances = np.full(images, 1 / images)
    # One resample at a time: all the weights at once would take resamples × images numbers.
    return np.stack([generator.multinomial(images, chances) @ statistics for _ in range(resamples)])


def _bounds(draws: Floats, level: float) -> tuple[Floats, Floats]:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
