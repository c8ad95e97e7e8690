"""Calibration, discrimination and refusal, against direct definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from carousel.metrics.calibration import auroc, brier, calibration_error, refusing, reliability


@pytest.fixture
def forecast() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    probability = draw.random(203).round(2)  # with equals
    return probability, (draw.random(203) < probability).astype(float)


def test_auroc_is_the_share_of_pairs_in_the_right_order(forecast: tuple[np.ndarray, np.ndarray]) -> None:
    score, right = forecast
    pairs = [(s > t) + (s == t) / 2 for s, r in zip(score, right, strict=True) if r
             for t, q in zip(score, right, strict=True) if not q]  # fmt: skip
    assert auroc(score, right) == pytest.approx(sum(pairs) / len(pairs))
    assert auroc(-score, right) == pytest.approx(1 - auroc(score, right))
    assert math.isnan(auroc(score, np.ones_like(right)))


def test_the_calibration_error_is_the_mean_gap_over_equal_parts(forecast: tuple[np.ndarray, np.ndarray]) -> None:
    probability, right = forecast
    order = sorted(range(len(right)), key=lambda i: probability[i])
    total, start = 0.0, 0
    for b in range(10):
        size = len(right) // 10 + (b < len(right) % 10)
        part = order[start : start + size]
        total += abs(sum(probability[i] for i in part) - sum(right[i] for i in part))
        start += size
    assert calibration_error(probability, right) == pytest.approx(total / len(right))
    assert sum(b.cases for b in reliability(probability, right)) == len(right)


def test_a_forecast_that_says_the_truth_has_a_small_error_and_a_bold_one_a_large() -> None:
    draw = np.random.default_rng(1)
    probability = draw.random(20_000)
    right = (draw.random(20_000) < probability).astype(float)
    assert calibration_error(probability, right) < 0.02
    assert calibration_error((probability > 0.5).astype(float), right) == pytest.approx(0.25, abs=0.02)
    assert brier(probability, right) == pytest.approx(1 / 6, abs=0.01)


def test_fewer_cases_than_bins() -> None:
    assert calibration_error(np.array([0.25]), np.array([1.0])) == 0.75


def test_refusing_the_least_sure_removes_what_is_wrong_among_them() -> None:
    right = np.array([0, 0, 1, 1, 1, 0, 1, 1, 1, 1.0])
    found = refusing(np.linspace(0, 1, 10), right)
    assert found == pytest.approx((2 / 3, 0.3, 1 / 8))
    assert refusing(np.linspace(0, 1, 10), np.ones(10)).wrong_removed == 0
