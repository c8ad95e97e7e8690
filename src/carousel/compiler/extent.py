"""Where the rows of a packed batch are."""

from __future__ import annotations

import ctypes
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Extent:
    """The sequences alive at each step; their number never grows.

    >>> ragged = Extent((3, 2, 2, 1))
    >>> ragged.rows, ragged.batch, ragged.lengths.tolist()
    (8, 3, [4, 3, 1])
    >>> ragged.last_rows.tolist(), ragged.rows_before.tolist()
    ([7, 6, 2], [0, 1, 3, 4, 5])
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes
        self.rows, self.batch, self.steps = sum(sizes), sizes[0], len(sizes)
        self.uniform = sizes[-1] == sizes[0]
        self.words = (ctypes.c_int64 * len(sizes))(*sizes)

    @cached_property
    def lengths(self) -> np.ndarray[Any, Any]:
        """(B,) the steps of each sequence."""
        return np.searchsorted(-np.asarray(self.sizes), -np.arange(self.batch), side="left")

    @cached_property
    def last_rows(self) -> Tensor:
        """(B,) the row of each sequence's last step."""
        starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        return torch.from_numpy(starts[self.lengths - 1] + np.arange(self.batch))

    @cached_property
    def rows_before(self) -> Tensor:
        """For each row from the second step on, the row of the same sequence one step before."""
        sizes = np.asarray(self.sizes)
        return torch.from_numpy(np.arange(self.batch, self.rows) - np.repeat(sizes[:-1], sizes[1:]))

    def ends(self, field: Tensor) -> Tensor:
        """(B, w) of (N, w): the rows of the last steps."""
        if self.uniform:
            return field[self.rows - self.batch :].clone()
        return field.index_select(0, self.last_rows)

    def before(self, field: Tensor) -> Tensor:
        """(N - B, w) of (N, w): what each row from the second step on had before it."""
        return field[: self.rows - self.batch] if self.uniform else field.index_select(0, self.rows_before)

    def carried(self, halves: Tensor) -> Tensor:
        """(B, w) of (2, B, w), written by turns: each sequence's last."""
        if self.uniform:
            return halves[(self.steps - 1) & 1].clone()
        return halves[torch.from_numpy((self.lengths - 1) & 1), torch.arange(self.batch)]

    def shares(self, parts: int) -> list[tuple[int, int]]:
        """The sequences in at most that many parts with about equally many steps each."""
        if parts == 1:
            return [(0, self.batch)]
        steps = list(accumulate(self.lengths.tolist(), initial=0))
        bounds = np.searchsorted(steps, [steps[-1] * part / parts for part in range(parts + 1)])
        return [(int(first), int(last)) for first, last in pairwise(bounds) if last > first]


@lru_cache(maxsize=256)
def extent(sizes: tuple[int, ...]) -> Extent:
    """The extent of those sizes: batches of one form share what is found out about them."""
    return Extent(sizes)
