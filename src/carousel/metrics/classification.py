"""Scores of classifiers, as sums over examples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from carousel.metrics.bootstrap import Floats
from carousel.metrics.score import Score

Ints = NDArray[np.int64]


def accuracy(right: Ints, said: Ints) -> Score:
    """Of classes (N,).

    >>> accuracy(np.array([0, 1]), np.array([0, 0])).estimate.value
    50.0
    """
    return Score.mean("accuracy in %", 100.0 * (right == said))


def macro_f1(right: Ints, said: Ints, classes: int) -> Score:
    """The mean of all classes' F1, of classes (N,); one that neither is nor is said counts as none.

        F1_k = 2 tp_k / (2 tp_k + fp_k + fn_k)

    >>> macro_f1(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).estimate.value
    66.66...
    """
    each = np.arange(classes)
    return _f1("macro F1 in %", right[:, None] == each, said[:, None] == each, macro=True)


def micro_f1(right: Floats, said: Floats) -> Score:
    """F1 over all decisions, of zeros and ones (N, K): several labels each.

    >>> micro_f1(np.array([[1, 0, 1]]), np.array([[1, 1, 0]])).estimate.value
    50.0
    """
    return _f1("micro F1 in %", right > 0, said > 0, macro=False)


def _f1(name: str, right: NDArray[np.bool_], said: NDArray[np.bool_], *, macro: bool) -> Score:
    hits, errors = (right & said).astype(float), (right != said).astype(float)
    if not macro:
        hits, errors = hits.sum(1, keepdims=True), errors.sum(1, keepdims=True)
    classes = hits.shape[1]

    def aggregate(sums: Floats) -> Floats:
        twice, wrong = 2 * sums[..., :classes], sums[..., classes:]
        there = twice + wrong > 0
        shares = np.divide(twice, twice + wrong, out=np.zeros_like(twice), where=there)
        return np.asarray(100 * shares.sum(-1, keepdims=True) / np.maximum(there.sum(-1, keepdims=True), 1))

    return Score(name, np.concatenate([hits, errors], axis=1), aggregate)
