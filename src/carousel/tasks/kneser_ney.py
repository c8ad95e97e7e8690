"""The baseline of language models: counts of n-grams, smoothed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class _Order(NamedTuple):
    """The k-grams that were seen, as numbers in base V, and the contexts that they begin with."""

    grams: Ints
    counts: Ints
    contexts: Ints
    totals: Ints
    kinds: Ints  # different words after each context
    discount: float


class KneserNey:
    """Interpolated Kneser-Ney.

        p_k(w | h) = max(c_k(h w) − D_k, 0) / c_k(h ·) + D_k N(h ·) / c_k(h ·) · p_{k−1}(w | h'),    p_0(w) = 1 / V
        D_k = n_1 / (n_1 + 2 n_2)

    h' is h without its first word, N(h ·) how many different words follow h, n_1 and n_2 how many k-grams are counted
    once and twice (D_k = 1/2 where there are none). c_n of the longest grams counts them; c_k of shorter ones counts
    the different words before them. After a context that was not seen p_k is p_{k−1}.

    Kneser and Ney 1995, ICASSP; in this form Chen and Goodman 1999, Computer Speech and Language 13, section 4.1.6.

    Args:
        ids: (N,) the training text, below `size`.
        size: V.
        order: n; less where V^n would not fit 63 bits.

    >>> import torch
    >>> model = KneserNey(torch.tensor([1, 2, 3] * 20), size=4, order=3)
    >>> model.surprise(torch.tensor([1, 2, 3, 1])).round(2).tolist()[2:]
    [0.01, 0.01]
    """

    def __init__(self, ids: Tensor, size: int, order: int) -> None:
        self.size, self.order = size, order
        while size**self.order >= 2**63:
            self.order -= 1
        self.orders: list[_Order] = []
        longer, counts = np.unique(_grams(_numbers(ids), size, self.order), return_counts=True)
        self.orders.append(_counted(longer, counts, size))
        for k in range(self.order - 1, 0, -1):
            longer, counts = np.unique(longer % size**k, return_counts=True)
            self.orders.append(_counted(longer, counts, size))
        self.orders.reverse()

    def surprise(self, ids: Tensor) -> Floats:
        """−ln p of each token (N,) of a text, given those before it."""
        numbers = _numbers(ids)
        chances = np.full(len(numbers), 1 / self.size)
        for k, order in enumerate(self.orders[: len(numbers)], start=1):
            grams = _grams(numbers, self.size, k)
            seen = _looked_up(order.grams, order.counts, grams)
            total, kinds = (_looked_up(order.contexts, of, grams // self.size) for of in (order.totals, order.kinds))
            known, lower = total > 0, chances[k - 1 :]
            here = np.maximum(seen - order.discount, 0) + order.discount * kinds * lower
            chances[k - 1 :] = np.where(known, here / np.maximum(total, 1), lower)
        surprise: Floats = -np.log(chances)
        return surprise


def _numbers(ids: Tensor) -> Ints:
    numbers: Ints = ids.numpy().astype(np.int64)
    return numbers


def _grams(numbers: Ints, size: int, k: int) -> Ints:
    """The k-gram that ends at each token but the first k − 1."""
    count = len(numbers) - k + 1
    found = np.zeros(count, dtype=np.int64)
    for place in range(k):
        found = found * size + numbers[place : place + count]
    return found


def _counted(grams: Ints, counts: Ints, size: int) -> _Order:
    contexts, starts, kinds = np.unique(grams // size, return_index=True, return_counts=True)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    discount = once / (once + 2 * twice) if once and twice else 0.5
    return _Order(grams, counts, contexts, np.add.reduceat(counts, starts), kinds, discount)


def _looked_up(keys: Ints, values: Ints, wanted: Ints) -> Ints:
    """The value of each wanted key, 0 where it is not among the sorted keys."""
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    found: Ints = np.where(keys[places] == wanted, values[places], 0)
    return found
