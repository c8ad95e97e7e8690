"""Scores as sums over examples: what they are, and whether one is better than another."""

from __future__ import annotations

import numpy as np
import pytest

from carousel.metrics.classification import accuracy, macro_f1, micro_f1
from carousel.metrics.score import Score

RIGHT, SAID = np.array([0, 0, 0, 0, 1, 1, 2, 0]), np.array([0, 0, 1, 0, 1, 0, 2, 0])


def test_f1_is_that_of_its_definition() -> None:
    right, said = RIGHT, SAID

    def f1(k: int) -> float:
        tp = ((right == k) & (said == k)).sum()
        return 100 * tp / (tp + ((right == k) ^ (said == k)).sum() / 2)

    assert macro_f1(RIGHT, SAID, 4).value == pytest.approx(np.mean([f1(0), f1(1), f1(2)]))  # nothing is a 3
    assert accuracy(RIGHT, SAID).value == 75
    several, said_of = np.array([[1, 0, 1], [0, 0, 0]]), np.array([[1, 1, 0], [0, 0, 1]])
    assert micro_f1(several, said_of).value == pytest.approx(100 * 2 / (2 + 3))


def test_intervals_are_of_the_same_score() -> None:
    right = np.arange(900) % 3
    said = np.where(np.arange(900) % 10 < 8, right, 0)
    low, high = macro_f1(right, said, 3).estimate[1:]
    assert low < macro_f1(right, said, 3).value < high and high - low < 8


@pytest.mark.parametrize(("higher", "better"), [(True, True), (False, False)])
def test_better_worse_and_no_different(higher: bool, better: bool) -> None:
    draw = np.random.default_rng(0)
    noise = draw.normal(size=400)
    ours, theirs = (
        Score.mean("x", noise + 1, higher_is_better=higher),
        Score.mean("x", noise + 0.9, higher_is_better=higher),
    )
    assert ours.better_than(theirs) is better and theirs.better_than(ours) is not better  # paired: the noise is shared
    assert ours.better_than(Score.mean("x", noise + 1 + draw.normal(size=400), higher_is_better=higher)) is None
