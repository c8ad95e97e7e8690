"""A score that knows how far it would move with other test examples, and whether it is better than another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from carousel.metrics.bootstrap import (
    Aggregate,
    Difference,
    Estimate,
    Floats,
    bootstrap,
    bootstrap_difference,
    mean_from_statistics,
    mean_statistics,
)


@dataclass(frozen=True)
class Score:
    """What a test set says of a model, as sums over examples.

    Args:
        name: such as "accuracy in %".
        statistics: (examples, columns), what is summed over examples.
        aggregate: sums (..., columns) -> the score (..., 1).
        seed: of the bootstrap.

    >>> ours = Score.mean("accuracy in %", np.array([100.0, 100, 0, 100] * 50))
    >>> ours.estimate.value, str(ours)
    (75.0, 'accuracy in % 75.00 (69.00 .. 81.00)')
    >>> ours.better_than(Score.mean("accuracy in %", np.zeros(200)))
    True
    """

    name: str
    statistics: Floats
    aggregate: Aggregate
    higher_is_better: bool = True
    seed: int = 0

    @classmethod
    def mean(cls, name: str, values: Floats, *, higher_is_better: bool = True) -> Score:
        """The mean of one value for each example (N,)."""
        return cls(name, mean_statistics(values), mean_from_statistics, higher_is_better)

    @property
    def value(self) -> float:
        """The score alone."""
        return float(self.aggregate(self.statistics.sum(axis=0))[0])

    @cached_property
    def estimate(self) -> Estimate:
        """The score with its 95% percentile bootstrap interval over examples."""
        return bootstrap(self.statistics, self.aggregate, generator=np.random.default_rng(self.seed))[0]

    def minus(self, other: Score) -> Difference:
        """How much larger this is than the score of another model on the same examples, by a paired bootstrap."""
        draw = np.random.default_rng(self.seed)
        return bootstrap_difference(self.statistics, other.statistics, self.aggregate, generator=draw)[0]

    def better_than(self, other: Score) -> bool | None:
        """Whether it is, on the same examples; None where the 95% interval of the difference holds zero."""
        difference = self.minus(other)
        if difference.low <= 0 <= difference.high:
            return None
        return (difference.value > 0) == self.higher_is_better

    def __str__(self) -> str:
        value, low, high = self.estimate
        return f"{self.name} {value:.2f} ({low:.2f} .. {high:.2f})"
