"""Confidence: grades, the fitted probability, what is known of a caption, and its numbers in a file."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from carousel.captioning.candidates import Candidate
from carousel.captioning.confidence import GRADES, Confidence, Known, graded, known
from carousel.captioning.ranking import Ranked, ranked
from carousel.errors import DataError
from carousel.metrics.calibration import auroc, calibration_error

SIZE = len(Known._fields)


def planted(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of which the second column says how good a caption is, by proportional odds."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, SIZE)) * np.arange(1, SIZE + 1)
    score = 1.5 * x[:, 1] / 2 + draw.logistic(size=n)
    return x, 3 - np.digitize(score, [-2.0, -0.5, 1.0])


def test_grades_of_every_kind() -> None:
    invents, cider = zip(*itertools.product([False, True], [0.0, 0.0999, 0.1, 0.4999, 0.5, 9.0]), strict=True)
    assert graded(invents, cider).tolist() == [2, 2, 1, 1, 0, 0, 3, 3, 2, 2, 2, 2]


def test_the_planted_signal_is_found_and_the_probability_rises_with_it() -> None:
    x, grade = planted(1500, 0)
    trained, _ = Confidence.fit(x, grade)
    fresh, truth = planted(4000, 1)
    right = (truth <= 1).astype(float)
    assert calibration_error(trained.probability(fresh), right) < 0.04
    assert auroc(trained.probability(fresh), right) > auroc(fresh[:, 1], right) - 0.01
    slope = trained.weights / trained.scale
    assert slope[1] == pytest.approx(0.75, rel=0.15) and np.abs(np.delete(slope, 1)).max() < 0.1
    line = np.zeros((50, SIZE))
    line[:, 1] = np.linspace(-9, 9, 50)
    assert (np.diff(trained.probability(line)) > 0).all()
    assert (np.diff(trained.grade(line)) <= 0).all() and set(trained.grade(line)) == {0, 1, 2, 3}
    means = [trained.probability(fresh)[truth == k].mean() for k in range(len(GRADES))]
    assert means == sorted(means, reverse=True)


def test_cases_left_out_are_not_flattered() -> None:
    """Of noise alone nothing can be known: what is said of cases left out must not look better than chance."""
    draw = np.random.default_rng(0)
    x, grade = draw.normal(size=(120, SIZE)), draw.integers(0, 4, 120)
    _, logit = Confidence.fit(x, grade)
    assert auroc(logit, (grade <= 1).astype(float)) < 0.65


def test_the_fit_is_the_least_penalised_surprise() -> None:
    x, grade = planted(200, 3)
    found = Confidence._fitted(x, grade, 0.01)
    standard = torch.from_numpy((x - found.mean) / found.scale)

    def surprise(weights: torch.Tensor, boundaries: torch.Tensor) -> torch.Tensor:
        logits = (standard @ weights)[:, None] + boundaries
        edges = torch.nn.functional.pad(torch.sigmoid(logits), (1, 0), value=0.0)
        edges = torch.nn.functional.pad(edges, (0, 1), value=1.0)
        chance = (edges[:, 1:] - edges[:, :-1])[torch.arange(len(grade)), torch.from_numpy(grade)]
        return -chance.log().mean() + 0.005 * weights.square().sum()

    weights = torch.from_numpy(found.weights).requires_grad_()
    boundaries = torch.from_numpy(found.boundaries).requires_grad_()
    gradients = torch.autograd.grad(surprise(weights, boundaries), (weights, boundaries))
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-4


def test_a_column_that_never_varies_counts_for_nothing() -> None:
    x, grade = planted(200, 2)
    x[:, 5] = 7.0
    trained, _ = Confidence.fit(x, grade)
    other = x.copy()
    other[:, 5] = -1e6
    np.testing.assert_allclose(trained.probability(other), trained.probability(x))


def test_too_little_to_learn_from_is_refused_in_one_line() -> None:
    with pytest.raises(DataError) as refused:
        Confidence.fit(np.zeros((30, SIZE)), np.full(30, 3))
    assert str(refused.value) == (
        "confidence: too few captions to learn from (got 30, 0 of them right); 10 or more, right and wrong ones; more "
        "validation photos"
    )


def test_what_is_known_of_a_caption() -> None:
    lists = [
        Candidate("a dog on a couch", ("a", "dog", "on", "a", "couch"), -4.0, 2, 0, (0.9, 0.5, 0.4, 0.9, 0.1), True),
        Candidate("a dog runs", ("a", "dog", "runs"), -5.0, 1, 1, (0.9, 0.5, 0.3)),
    ]
    rows = ranked(lists, [0.3, 0.5])
    weights = np.eye(len(Ranked._fields))[Ranked._fields.index("similarity")]
    found = Known(*known(lists, rows, weights, 0))
    assert found.score == 0.3 and found.similarity == 0.3 and found.list_similarity == pytest.approx(0.4)
    assert found.least == pytest.approx(math.log(0.1)) and found.length == 5 and found.novel == 1
    assert (found.objects, found.list_objects, found.object_agreement) == (2, 2, 0.5)
    assert found.margin == pytest.approx(1.0) and found.mass == pytest.approx(math.log(math.exp(-4) + math.exp(-5)))
    assert found.covered == pytest.approx(2 / 4)  # different words
    alone = Known(*known(lists[1:], rows[1:], weights, 0))
    assert alone.margin == 0 and alone.object_agreement == 1


def test_the_numbers_in_a_file_give_the_same_probabilities() -> None:
    x, grade = planted(100, 4)
    x[:, 3] = 1.0
    trained, _ = Confidence.fit(x, grade)
    again = Confidence.from_facts(trained.to_facts())
    np.testing.assert_array_equal(again.probability(x), trained.probability(x))
    np.testing.assert_array_equal(again.grade(x), trained.grade(x))
