"""Where the rows of a packed batch are."""

from __future__ import annotations

import ctypes
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor


class Extent:
    """The sequences alive at each step; their number never grows.

    >>> ragged = Extent((3, 2, 2, 1))
    >>> ragged.rows, ragged.batch, ragged.lengths.tolist()
    (8, 3, [4, 3, 1])
    >>> ragged.last_rows.tolist()
    [7, 6, 2]
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes
        self.rows, self.batch, self.steps = sum(sizes), sizes[0], len(sizes)
        self.uniform = sizes[-1] == sizes[0]
        self.words = (ctypes.c_int64 * len(sizes))(*sizes)
        self._pieces: dict[tuple[int, bool], np.ndarray[Any, Any]] = {}

    @cached_property
    def lengths(self) -> np.ndarray[Any, Any]:
        """(B,) the steps of each sequence."""
        return np.searchsorted(-np.asarray(self.sizes), -np.arange(self.batch), side="left")

    @cached_property
    def last_rows(self) -> Tensor:
        """(B,) the row of each sequence's last step."""
        starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        return torch.from_numpy(starts[self.lengths - 1] + np.arange(self.batch))

    def pieces(self, rows: int, backward: bool = False) -> np.ndarray[Any, Any]:
        """All steps in pieces of about so many rows, and of an even number of steps but for the last.

        Columns: 1, the first row, rows, the first step, steps, the row where the step before begins, whether another
        piece is done before, B, the address of the sizes, the row where it begins in a padded batch.

        >>> Extent((3, 2, 2, 1)).pieces(rows=5)[:, :7].tolist()
        [[1, 0, 5, 0, 2, 0, 0], [1, 5, 3, 2, 2, 3, 1]]
        """
        key = (min(rows, self.rows), backward)
        if key not in self._pieces:
            self._pieces[key] = self._cut(*key)
        return self._pieces[key]

    def _cut(self, rows: int, backward: bool) -> np.ndarray[Any, Any]:
        count = -(-self.rows // rows)
        starts = np.concatenate([[0], np.cumsum(self.sizes)])
        even = [*range(0, self.steps, 2), self.steps]
        at = np.searchsorted(starts[even], [self.rows * k / count for k in range(count + 1)])
        bounds = np.array([even[place] for place in sorted(set(at.tolist()))])
        steps, last = bounds[:-1], bounds[1:]
        pieces = np.zeros((len(steps), 10), np.int64)
        pieces[:, 0] = 1
        pieces[:, 1], pieces[:, 2] = starts[steps], starts[last] - starts[steps]
        pieces[:, 3], pieces[:, 4] = steps, last - steps
        pieces[:, 5] = starts[np.maximum(steps - 1, 0)]
        pieces[:, 7], pieces[:, 8] = self.batch, ctypes.addressof(self.words) + 8 * steps
        pieces[:, 9] = self.batch * steps
        if backward:
            pieces = pieces[::-1].copy()
        pieces[1:, 6] = 1
        return pieces

    def ends(self, field: Tensor) -> Tensor:
        """(B, w) of (N, w): the rows of the last steps."""
        if self.uniform:
            return field[self.rows - self.batch :].clone()
        return field.index_select(0, self.last_rows)

    def carried(self, halves: Tensor) -> Tensor:
        """(B, w) of (2, B, w), written by turns: each sequence's last."""
        if self.uniform:
            return halves[(self.steps - 1) & 1].clone()
        return halves[torch.from_numpy((self.lengths - 1) & 1), torch.arange(self.batch)]

    def shares(self, parts: int, pieces: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """(parts, pieces, 2) from which sequence to which: in each piece about equally many steps for each part.

        The sequences that have ended before are the last part's.

        >>> ragged = Extent((4, 2, 1, 1))
        >>> ragged.shares(2, ragged.pieces(rows=4)).tolist()
        [[[0, 2], [0, 1]], [[2, 4], [1, 4]]]
        """
        bounds = np.full((parts + 1, len(pieces)), self.batch)
        bounds[0] = 0
        for k, (start, count) in enumerate(pieces[:, 3:5]):
            steps = np.clip(self.lengths - start, 0, count).cumsum()
            bounds[1:-1, k] = np.searchsorted(steps, [steps[-1] * part / parts for part in range(1, parts)]) + 1
        return np.stack([bounds[:-1], bounds[1:]], axis=-1)


class Layout(Protocol):
    """Where the rows of a packed batch are in a padded one (T, B, ·)."""

    @property
    def shape(self) -> tuple[int, int]: ...  # T, B
    @property
    def sizes(self) -> list[int]: ...  # the sequences alive at each step
    @property
    def places(self) -> np.ndarray[Any, Any] | None: ...  # (B,) the sequences in the order of packing

    def pack(self, padded: Tensor) -> Tensor: ...
    def unpack(self, packed: Tensor) -> Tensor: ...


class Padded(NamedTuple):
    """Which ends of a loop are padded batches, and how they are laid out: they are packed piece by piece of time."""

    inputs: Layout | None = None
    outputs: Layout | None = None

    @property
    def which(self) -> tuple[bool, bool]:
        return self.inputs is not None, self.outputs is not None

    def order(self) -> Tensor | None:
        """(B,) of either."""
        layout = self.inputs or self.outputs
        return None if layout is None else torch.from_numpy(layout.places)

    def room(self, extent: Extent, shape: tuple[int, ...]) -> Tensor:
        """A batch (T, B, ·) whose steps are still to be written, but for those past the longest sequence."""
        room = torch.empty(shape)
        room[extent.steps :] = 0
        return room


PACKED = Padded()


@lru_cache(maxsize=256)
def extent(sizes: tuple[int, ...]) -> Extent:
    """The extent of those sizes: batches of one form share what is found out about them."""
    return Extent(sizes)
