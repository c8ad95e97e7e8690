"""Long sequences in pieces, such that the state flows from batch to batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from carousel.errors import ConfigError, DataError


class Piece(NamedTuple):
    """Some steps of a batch of sequences: inputs and targets (T, B, ...)."""

    inputs: Tensor
    targets: Tensor
    lengths: Tensor | None = None  # (B,) where they differ: a sequence that is shorter ends here
    rows: Tensor | None = None  # (B,) in which row of the last piece each was, -1 if it begins here; all as they were
    alive: Tensor | None = None  # rows that have not ended in an earlier part of the piece; made by `cut`

    @property
    def real(self) -> Tensor:
        """Which steps are there: (T, B)."""
        T, B = self.inputs.shape[:2]
        lengths = torch.full((B,), T) if self.lengths is None else self.lengths
        return torch.arange(T)[:, None] < lengths

    def cut(self, start: int, end: int) -> Piece:
        """Some of its steps, of the sequences that have not ended before them."""
        rows = self.rows if start == 0 else None
        inputs, targets = self.inputs[start:end], self.targets[start:end]
        if self.lengths is None:
            return Piece(inputs, targets, None, rows)
        alive = (self.lengths > start).nonzero()[:, 0]
        lengths = (self.lengths - start).clamp(max=end - start)
        if len(alive) == len(lengths):
            return Piece(inputs, targets, lengths, rows)
        return Piece(inputs[:, alive], targets[:, alive], lengths[alive], rows, alive)


class Columns(Sequence[Piece]):
    """One long stream, cut into columns that are read side by side; the state flows from each piece to the next.

        stream   a b c d e f g h i j k l m          batch 3, length 2

        piece 0  a b    piece 1  c d                column 0
                 e f             g h                column 1
                 i j             k l                column 2; what is left of the stream is not read

    Args:
        inputs, targets: (N, ...), one of each for a step; a language model's are `words[:-1]` and `words[1:]`. They
            may be memory-mapped: no more than a piece is read at once.
        batch: how many columns.
        length: of a piece, in steps; the last may be shorter.

    >>> [piece.inputs.tolist() for piece in Columns(torch.arange(13), torch.arange(13), batch=3, length=2)]
    [[[0, 4, 8], [1, 5, 9]], [[2, 6, 10], [3, 7, 11]]]
    """

    def __init__(self, inputs: Tensor, targets: Tensor, batch: int, length: int) -> None:
        _check(batch, length)
        if len(inputs) != len(targets) or len(inputs) < batch:
            raise DataError(
                f"stream: not a stream (got {len(inputs)} inputs, {len(targets)} targets, {batch} columns); as many of "
                "both, and one for each column; a smaller batch"
            )
        self.steps, self.length = len(inputs) // batch, length
        self.inputs, self.targets = (
            t[: self.steps * batch].view(batch, self.steps, *t.shape[1:]).transpose(0, 1) for t in (inputs, targets)
        )

    def __len__(self) -> int:
        return -(-self.steps // self.length)

    def __getitem__(self, k: int) -> Piece:  # type: ignore[override]  # no slices
        if not 0 <= k < len(self):
            raise IndexError(k)
        at = slice(k * self.length, (k + 1) * self.length)
        return Piece(self.inputs[at].contiguous(), self.targets[at].contiguous())


class Streams(Sequence[Piece]):
    """Many sequences of any lengths, `batch` of them side by side: where one ends the next begins, its state anew.

    A sequence begins with a piece; in the piece where it ends its row is shorter, and nothing is computed past the end.
    When no sequence is left to begin, the batch gets smaller.

    Args:
        inputs, targets: (T, ...), one of each for every sequence.
        batch: how many sequences are read side by side.
        length: of a piece, in steps.
        order: in which they begin, such as `epoch_order(...)`; as they are by default.

    >>> inputs = [torch.arange(3), torch.arange(10, 15), torch.arange(20, 22)]
    >>> for piece in Streams(inputs, inputs, batch=2, length=4):
    ...     print(piece.inputs.t().tolist(), piece.lengths.tolist(), piece.rows.tolist())
    [[0, 1, 2, 0], [10, 11, 12, 13]] [3, 4] [-1, -1]
    [[20, 21], [14, 0]] [2, 1] [-1, 1]
    """

    def __init__(
        self,
        inputs: Sequence[Tensor],
        targets: Sequence[Tensor],
        batch: int,
        length: int,
        order: Sequence[int] | None = None,
    ) -> None:
        _check(batch, length)
        for k, (one, other) in enumerate(zip(inputs, targets, strict=True)):
            if len(one) != len(other) or not len(one):
                raise DataError(
                    f"sequence {k}: not as many inputs as targets (got {len(one)} and {len(other)}); 1 or more of "
                    "both; leave it out"
                )
        self.inputs, self.targets, self.length = inputs, targets, length
        self._plan = list(self._planned(batch, iter(range(len(inputs)) if order is None else order)))

    def _planned(self, batch: int, waiting: Iterator[int]) -> Iterator[list[tuple[int, int, int]]]:
        """For each piece: its sequences, where each begins in them, and its row before."""
        row: list[tuple[int, int, int]] = []
        while True:
            ends = [(k, start + self.length, at) for at, (k, start, _) in enumerate(row)]
            ends += [(-1, 0, -1)] * (batch if not row else 0)
            going_on = [one if one[0] >= 0 and one[1] < len(self.inputs[one[0]]) else None for one in ends]
            row = []
            for one in going_on:
                if one is None and (k := next(waiting, None)) is not None:
                    one = (k, 0, -1)
                if one is not None:
                    row.append(one)
            if not row:
                return
            yield row

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, k: int) -> Piece:  # type: ignore[override]  # no slices
        row = self._plan[k]
        inputs, targets = (
            [whole[i][start : start + self.length] for i, start, _ in row] for whole in (self.inputs, self.targets)
        )
        lengths = torch.tensor([len(one) for one in inputs])
        return Piece(pad_sequence(inputs), pad_sequence(targets), lengths, torch.tensor([before for *_, before in row]))


def _check(batch: int, length: int) -> None:
    for name, value in (("batch", batch), ("length", length)):
        if value < 1:
            raise ConfigError(f"{name}: none (got {value}); 1 or more; give a smaller one for less memory")
