"""How early the right one comes when all are ranked."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Retrieval(NamedTuple):
    """Shares, as fractions of 1, of queries with a right one among the first, and the median rank of the first right
    one, counted from 1."""

    recall_1: float
    recall_5: float
    recall_10: float
    median_rank: float


def first_right_ranks(scores: ArrayLike, right: ArrayLike) -> NDArray[np.int64]:
    """For each query the rank, from 1, of the best of its right documents; of equals the right one comes last.

    scores: (queries, documents), the greatest is the first. right: the same shape, true where the document is right.

    >>> first_right_ranks([[0.9, 0.5, 0.1], [0.3, 0.3, 0.3]], [[False, True, True], [False, False, True]]).tolist()
    [2, 3]
    """
    scores, right = np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=bool)
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    ranks: NDArray[np.int64] = 1 + ((scores >= best) & ~right).sum(axis=1)
    return ranks


def retrieval(ranks: ArrayLike) -> Retrieval:
    """R@1, R@5, R@10 and the median rank of `first_right_ranks`.

    Hodosh, Young and Hockenmaier 2013, "Framing image description as a ranking task", JAIR 47, section 5.

    >>> retrieval([1, 3, 12, 2])
    Retrieval(recall_1=0.25, recall_5=0.75, recall_10=0.75, median_rank=2.5)
    """
    found = np.asarray(ranks)
    first, five, ten = (float((found <= k).mean()) for k in (1, 5, 10))
    return Retrieval(first, five, ten, float(np.median(found)))
