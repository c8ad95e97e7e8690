"""How well scores tell the right from the wrong, whatever the threshold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def average_precision(scores: Floats, right: Floats, wrong: Floats | None = None) -> Floats:
    """The mean, over the right items, of the precision among all that score at least as high; of each column.

        AP = Σ_k P(k) r_k / Σ_k r_k,    P(k) = Σ_{i ≤ k} r_i / Σ_{i ≤ k} (r_i + w_i),    best scores first

    Args:
        scores: (N, C).
        right: (N, C) how right each is, 0 or 1, or a weight.
        wrong: (N, C) how wrong; 1 - right where it is not given.

    Columns without anything right are nan; of equal scores the first is looked at first.

    >>> average_precision(np.array([[0.9], [0.8], [0.1]]), np.array([[1.0], [0.0], [1.0]])).round(3).tolist()
    [0.833]
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    r = np.take_along_axis(right, order, 0)
    w = np.take_along_axis(1 - right if wrong is None else wrong, order, 0)
    seen = np.cumsum(r + w, 0)
    precision = np.divide(np.cumsum(r, 0), seen, out=np.zeros_like(r), where=seen > 0)
    with np.errstate(invalid="ignore"):
        found: Floats = (precision * r).sum(0) / r.sum(0)
    return found


def caption_weights(counts: Floats, captions: int) -> tuple[Floats, Floats]:
    """How right and how wrong it is to detect a word that `counts` of a photo's K captions say.

        r = c (1 - 1/K),    w = 1 where c = 0, 1/K where c = 1, else 0

    Those of the word detectors of Fang et al. 2015, arXiv:1411.4952, in the evaluation code that they published.

    >>> [part.tolist() for part in caption_weights(np.array([0.0, 1.0, 5.0]), captions=5)]
    [[0.0, 0.8, 4.0], [1.0, 0.2, 0.0]]
    """
    wrong: Floats = np.select([counts == 0, counts == 1], [1.0, 1 / captions], 0.0)
    return counts * (1 - 1 / captions), wrong
