"""Sequences of ids, end to end in one tensor: four bytes an id and eight a sequence, whatever their lengths."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

S = TypeVar("S", bound=Any)
Keep = Literal["start", "end", "both"]


def cut(sequence: S, longest: int, keep: Keep) -> tuple[S, S]:
    """What is left of a longer sequence, as two parts: of its start, its end, or half of `longest` of both.

    >>> cut("abcdef", 3, "both"), cut("abcdef", 3, "end"), cut("abc", 3, "end")
    (('ab', 'f'), ('', 'def'), ('abc', ''))
    """
    if len(sequence) <= longest:
        return sequence, sequence[:0]
    first = {"start": longest, "end": 0, "both": (longest + 1) // 2}[keep]
    return sequence[:first], sequence[len(sequence) - longest + first :]


class Batch(NamedTuple):
    """Ids (T, B), zero in the padding, and lengths (B,)."""

    ids: Tensor
    lengths: Tensor


class Ragged:
    """Sequences of ids.

    >>> some = Ragged([[5, 6, 7], [8], []])
    >>> len(some), some[0].tolist(), some.lengths.tolist(), some.batch([0, 1]).ids.tolist()
    (3, [5, 6, 7], [3, 1, 0], [[5, 8], [6, 0], [7, 0]])
    """

    def __init__(self, sequences: Iterable[Sequence[int]]) -> None:
        ids, ends = array("i"), array("q", [0])
        for sequence in sequences:
            ids.extend(sequence)
            ends.append(len(ids))
        self.ids = torch.frombuffer(ids, dtype=torch.int32) if ids else torch.zeros(0, dtype=torch.int32)
        self.ends = torch.frombuffer(ends, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, k: int) -> Tensor:
        return self.ids[self.ends[k] : self.ends[k + 1]]

    @property
    def lengths(self) -> Tensor:
        """(N,)"""
        return self.ends.diff()

    def batch(self, rows: Sequence[int], longest: int | None = None, keep: Keep = "start") -> Batch:
        """Some of them as a batch, cut to `longest` ids, see `cut`; an empty one becomes a single 0."""
        chosen = [(self[k] if longest is None else torch.cat(cut(self[k], longest, keep))).long() for k in rows]
        lengths = torch.tensor([max(1, len(one)) for one in chosen])
        ids = torch.zeros(int(lengths.max()), len(chosen), dtype=torch.long)
        for k, one in enumerate(chosen):
            ids[: len(one), k] = one
        return Batch(ids, lengths)
