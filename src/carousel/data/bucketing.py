"""Batches of sequences of about one length, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor

WINDOW = 20  # batches whose sequences are sorted together: lengths are alike, and the order is still random


class Buckets:
    """Which sequences each batch of an epoch holds, a function of (seed, epoch, step).

        order    a permutation of all, from (seed, epoch)
        windows  every WINDOW batches of it, sorted by length, equals in the order they had
        batches  the windows cut into batches, these in a random order

    Args:
        lengths: of the sequences (N,).
        size: sequences in a batch; one batch of each epoch may have fewer.

    >>> buckets = Buckets(torch.tensor([3, 9, 3, 8]), size=2)
    >>> len(buckets), sorted(sorted(buckets.rows(0, 0, step)) for step in range(2))
    (2, [[0, 2], [1, 3]])
    >>> f"{buckets.padding():.0%} padding in buckets, {buckets.padding(sort=False):.0%} in random batches"
    '4% padding in buckets, 32% in random batches'
    """

    def __init__(self, lengths: Tensor, size: int) -> None:
        self.lengths, self.size = lengths, size
        self._epoch = lru_cache(maxsize=2)(self._batches)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.lengths) // self.size)

    def rows(self, seed: int, epoch: int, step: int) -> list[int]:
        """The sequences of that batch."""
        return self._epoch(seed, epoch)[step]

    def _batches(self, seed: int, epoch: int, sort: bool = True) -> list[list[int]]:
        draw = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        found: list[list[int]] = []
        order = torch.randperm(len(self.lengths), generator=draw)
        for window in torch.split(order, WINDOW * self.size):
            by_length = window[self.lengths[window].argsort(stable=True)] if sort else window
            found += [part.tolist() for part in torch.split(by_length, self.size)]
        return [found[k] for k in torch.randperm(len(found), generator=draw).tolist()]

    def padding(self, *, sort: bool = True) -> float:
        """The share of steps that are padding, in the first epoch; without `sort` in batches of any lengths."""
        return padding(self.lengths, self._batches(0, 0, sort))


def padding(lengths: Tensor, batches: Iterable[list[int]]) -> float:
    """The share of steps in these batches at which there is nothing."""
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return 1 - int(lengths.sum()) / max(1, padded)


def by_length(lengths: Tensor, size: int) -> list[list[int]]:
    """All sequences in batches, the shortest first: for evaluation, where the order does not matter.

    >>> by_length(torch.tensor([3, 9, 1]), size=2)
    [[2, 0], [1]]
    """
    return [part.tolist() for part in torch.split(lengths.argsort(stable=True), size)]
