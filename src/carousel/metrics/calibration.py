"""Whether a probability means what it says, and whether the sure are right more often than the unsure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Bin(NamedTuple):
    """Some cases of about one probability."""

    said: float  # mean probability
    right: float  # share that is right
    cases: int


def reliability(probability: Floats, right: Floats, bins: int = 10) -> list[Bin]:
    """Cases sorted by their probability and cut into `bins` parts of equal size; `right` (N,) is 0 or 1.

    >>> reliability(np.array([0.1, 0.9, 0.8, 0.2]), np.array([0, 1, 1, 0]), bins=2)
    [Bin(said=0.15000000000000002, right=0.0, cases=2), Bin(said=0.8500000000000001, right=1.0, cases=2)]
    """
    parts = np.array_split(np.argsort(probability, kind="stable"), min(bins, len(probability)))
    return [Bin(float(probability[p].mean()), float(right[p].mean()), len(p)) for p in parts]


def calibration_error(probability: Floats, right: Floats, bins: int = 10) -> float:
    """How far from the truth the probability is on average, over bins with equally many cases.

        ECE = Σ_b n_b / n · |mean right_b − mean probability_b|

    Naeini, Cooper and Hauskrecht 2015, "Obtaining well calibrated probabilities using Bayesian binning", with bins of
    equal size. A perfect forecast of 1,000 cases still has some .02 to .03, by chance.

    >>> round(calibration_error(np.array([0.5, 0.5, 0.9, 0.9]), np.array([0, 1, 1, 1]), bins=2), 3)
    0.05
    """
    found = reliability(probability, right, bins)
    return sum(b.cases * abs(b.said - b.right) for b in found) / len(probability)


def auroc(score: Floats, right: Floats) -> float:
    """How often a right case has a greater score than a wrong one, equals counted half; nan where one kind is missing.

        AUROC = P(s_right > s_wrong) + P(s_right = s_wrong) / 2

    >>> auroc(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0]))
    0.875
    """
    values, place = np.unique(score, return_inverse=True)
    good = np.bincount(place, right, len(values))
    bad = np.bincount(place, 1 - right, len(values))
    below = np.cumsum(bad) - bad
    pairs = good.sum() * bad.sum()
    return float((good * (below + bad / 2)).sum() / pairs) if pairs else float("nan")


def brier(probability: Floats, right: Floats) -> float:
    """The mean squared error of the probability (Brier 1950).

    >>> brier(np.array([1.0, 0.5]), np.array([1.0, 0.0]))
    0.125
    """
    return float(((probability - right) ** 2).mean())


class Refused(NamedTuple):
    """What refusing the least sure cases does."""

    wrong_removed: float  # the share of all wrong cases that are among the refused
    wrong_before: float  # the share of cases that are wrong
    wrong_after: float  # of those that are left


def refusing(probability: Floats, right: Floats, share: float = 0.2) -> Refused:
    """What is wrong when the least sure `share` of cases is refused.

    >>> refusing(np.array([0.1, 0.9, 0.8, 0.7, 0.6]), np.array([0, 1, 1, 0, 1]))
    Refused(wrong_removed=0.5, wrong_before=0.4, wrong_after=0.25)
    """
    wrong = 1 - np.asarray(right, dtype=np.float64)
    order = np.argsort(probability, kind="stable")
    refused = round(share * len(order))
    removed = wrong[order[:refused]].sum() / max(1.0, wrong.sum())
    return Refused(float(removed), float(wrong.mean()), float(wrong[order[refused:]].mean()))
