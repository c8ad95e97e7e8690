"""The n-grams of a corpus as numbered features, found by bisection in sorted tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carousel.data.vocabulary import START, STOP

Ints = NDArray[np.int64]


class Tokens(NamedTuple):
    """Every word of some sentences, and the stop of each, with what stands before it."""

    before: Tensor  # (T, order - 1), the words before, <start> where there are none
    word: Tensor  # (T,)
    sentence: Tensor  # (T,) which sentence it is of
    place: Tensor  # (T,) how many words of the sentence come before

    def rows(self, which: Tensor) -> Tokens:
        """Some of them."""
        return Tokens(*(field[which] for field in self))


def tokens(sentences: Sequence[Sequence[int]], order: int) -> Tokens:
    """The tokens of sentences of word ids; `order` is at least 2.

    >>> tokens([[7, 8]], order=3).before.tolist(), tokens([[7, 8]], order=3).word.tolist()
    ([[1, 1], [1, 7], [7, 8]], [7, 8, 2])
    """
    padded = [[START] * (order - 1) + list(words) + [STOP] for words in sentences]
    lengths = torch.tensor([len(words) + 1 for words in sentences])
    flat = torch.tensor([word for words in padded for word in words])
    sentence = torch.arange(len(sentences)).repeat_interleave(lengths)
    place = torch.arange(int(lengths.sum())) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    here = torch.arange(len(sentence)) + (order - 1) * (sentence + 1)  # the place in `flat`
    before = torch.stack([flat[here - back] for back in range(order - 1, 0, -1)], 1)
    return Tokens(before, flat[here], sentence, place)


class NGrams:
    """Which n-grams, n = 2..N, a corpus has, and a number for each.

    An n-gram is written as one number in base V, its last word last, so that those with one context stand together in
    the sorted table of their n. Features 0..V-1 are the words alone; those of longer n-grams follow, n by n.

    Args:
        tables: for n = 2, 3, ... the n-grams, sorted.
        size: V.

    >>> found = NGrams.of(tokens([[4, 5], [4, 6]], order=2), size=7, order=2)
    >>> found.features, found.find(torch.tensor([[4]]), torch.tensor([[6, 4]])).tolist()
    (12, [[[6, 9], [4, -1]]])
    """

    def __init__(self, tables: Sequence[Tensor], size: int) -> None:
        self.tables, self.size, self.order = list(tables), size, len(tables) + 1
        lengths = [size, *(len(table) for table in tables)]
        self.starts = [sum(lengths[: n + 1]) for n in range(len(tables))]  # the first feature of n = 2, 3, ...
        self.features = sum(lengths)

    @classmethod
    def of(cls, corpus: Tokens, size: int, order: int, min_count: int = 1) -> NGrams:
        """Those that occur `min_count` times; of smaller order where V^order would not fit 63 bits."""
        while size**order >= 2**63:
            order -= 1
        tables = []
        for n in range(2, order + 1):
            grams = _context(corpus.before, n, size) * size + corpus.word
            found, counts = np.unique(grams.numpy(), return_counts=True)
            tables.append(torch.from_numpy(found[counts >= min_count]))
        return cls(tables, size)

    def find(self, before: Tensor, words: Tensor) -> Tensor:
        """The features (R, K, N) of words (R, K) after contexts (R, N-1); -1 for an n-gram that is not there."""
        found = [words]
        for n, table in enumerate(self.tables, start=2):
            grams = _context(before, n, self.size)[:, None] * self.size + words
            places = torch.searchsorted(table, grams).clamp_(max=max(0, len(table) - 1))
            there = table[places] == grams if len(table) else torch.zeros_like(grams, dtype=torch.bool)
            found.append(torch.where(there, places + self.starts[n - 2], -1))
        return torch.stack(found, -1)

    def after(self, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Every n-gram, n > 1, that goes on from contexts (R, N-1): its row, its last word, its feature."""
        rows, words, features = [], [], []
        for n, table in enumerate(self.tables, start=2):
            context = _context(before, n, self.size) * self.size
            low, high = torch.searchsorted(table, context), torch.searchsorted(table, context + self.size)
            counts = high - low
            row = torch.arange(len(before)).repeat_interleave(counts)
            place = torch.arange(len(row)) + (low - counts.cumsum(0) + counts)[row]
            rows.append(row)
            words.append(table[place] % self.size)
            features.append(place + self.starts[n - 2])
        none = torch.zeros(0, dtype=torch.int64)
        return torch.cat([none, *rows]), torch.cat([none, *words]), torch.cat([none, *features])


def _context(before: Tensor, n: int, size: int) -> Tensor:
    """The last n - 1 words before, as one number."""
    number = torch.zeros(len(before), dtype=torch.int64)
    for word in before[:, before.shape[1] - n + 1 :].unbind(1):
        number = number * size + word
    return number
