"""Ranking: what is known of candidates, the exact line search, and weights that are found again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from carousel.captioning.candidates import Candidate
from carousel.captioning.ranking import Lists, Ranked, agreement, best, envelopes, line_search, ranked, tuned


def lists_of(seed: int, lists: int = 40, size: int = 6, features: int = 3) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.normal(size=(size, features)) for _ in range(lists)]


def total(lists: list[np.ndarray], values: list[np.ndarray], weights: np.ndarray) -> float:
    return float(sum(value[best(features, weights)] for features, value in zip(lists, values, strict=True)))


def test_what_is_known_of_each_candidate() -> None:
    first = Candidate("a dog runs", ("a", "dog", "runs"), -4.0, 2, 0)
    second = Candidate("a cat", ("a", "cat"), -6.0, 1, 1)
    one, two = (Ranked(*row) for row in ranked([first, second], [0.5, 0.25]).tolist())
    assert one == Ranked(0.5, -4.0, -1.0, 3.0, 0.0, 2.0, pytest.approx((2 / 5 + 0) / 2))
    assert (two.similarity, two.logprob_per_word, two.log_rank) == (0.25, -2.0, pytest.approx(math.log(2)))
    assert ranked([], []).shape == (0, len(Ranked._fields))


def test_agreement_is_that_with_the_others_and_repeated_words_count_once_each() -> None:
    assert agreement([["a", "dog"]]).tolist() == [0.0]
    assert agreement([[], ["a"]]).tolist() == [0.0, 0.0]
    found = agreement([["a", "a"], ["a"]])
    assert found == pytest.approx([(2 / 3) / 2] * 2)


@pytest.mark.parametrize("seed", range(20))
def test_the_envelope_is_the_greatest_line_at_every_point(seed: int) -> None:
    draw = np.random.default_rng(seed)
    offsets, slopes = draw.normal(size=(5, 8)).round(1), draw.integers(-2, 3, size=(5, 8)).astype(float)  # parallels
    changes: list[list[tuple[float, int]]] = [[] for _ in offsets]
    for rows, since, line in envelopes(offsets, slopes):
        for row, at, k in zip(rows, since, line, strict=True):
            changes[row].append((at, k))
    for found, offset, slope in zip(changes, offsets, slopes, strict=True):
        assert found == sorted(found, key=lambda change: change[0])
        for t in np.linspace(-9, 9, 301):
            line = [k for at, k in found if at <= t][-1]
            assert offset[line] + t * slope[line] == pytest.approx((offset + t * slope).max())


@pytest.mark.parametrize("seed", range(10))
def test_the_line_search_is_exact(seed: int) -> None:
    lists = [*lists_of(seed, lists=7), *lists_of(seed, lists=3, size=2), *lists_of(seed, lists=1, size=1)]
    draw = np.random.default_rng(100 + seed)
    values = [draw.random(len(features)) - 0.5 for features in lists]
    weights, direction = draw.normal(size=(2, 3))
    step, found = line_search(Lists.of(lists, values), weights, direction)
    assert total(lists, values, weights + step * direction) == pytest.approx(found)
    assert Lists.of(lists, values).total(weights) == pytest.approx(total(lists, values, weights))
    grid = np.linspace(-20, 20, 4001)
    assert found >= max(total(lists, values, weights + t * direction) for t in grid) - 1e-9


def test_a_direction_that_changes_nothing_is_no_step() -> None:
    lists = Lists.of([np.array([[1.0, 5.0], [0.0, 5.0]])], [np.array([0.3, 0.9])])
    assert line_search(lists, np.array([1.0, 0.0]), np.array([0.0, 1.0])) == (0.0, 0.3)


def test_a_photo_without_candidates_does_not_matter() -> None:
    lists, values = lists_of(3), [np.arange(6.0) for _ in range(40)]
    more = [np.zeros((0, 3)), *lists], [np.zeros(0), *values]
    assert tuned(*more, restarts=1).tolist() == tuned(lists, values, restarts=1).tolist()


def test_the_weights_that_made_the_lists_are_found_again() -> None:
    """Each list's true best is known by planted weights: those found choose it, on lists not tuned on as well."""
    planted = np.array([2.0, -1.0, 0.0])
    lists, fresh = lists_of(0, lists=150), lists_of(1, lists=200)
    values = [(features @ planted == (features @ planted).max()).astype(float) for features in lists]
    weights = tuned(lists, values, restarts=3)
    assert total(lists, values, weights) == len(lists)
    again = np.mean([best(features, weights) == best(features, planted) for features in fresh])
    assert again > 0.95 and (weights / np.linalg.norm(weights)) @ planted > 0.99 * np.linalg.norm(planted)


def test_a_feature_that_never_varies_gets_no_weight_and_a_seed_gives_the_same() -> None:
    lists = [np.column_stack([features, np.ones(len(features))]) for features in lists_of(2, features=2)]
    values = [features[:, 0] for features in lists]
    weights = tuned(lists, values, restarts=1)
    assert weights[2] == 0.0 and total(lists, values, weights) == pytest.approx(sum(v.max() for v in values))
    assert tuned(lists, values, restarts=1).tolist() == weights.tolist()


def test_of_equals_the_first_is_best() -> None:
    assert best(np.zeros((3, 2)), np.ones(2)) == 0
