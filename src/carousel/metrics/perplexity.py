"""How surprised a language model is by a text."""

from __future__ import annotations

from math import log

import numpy as np
from numpy.typing import NDArray

from carousel.metrics.score import Score

Floats = NDArray[np.float64]
BLOCKS = 1000


def perplexity(surprise: Floats) -> Score:
    """exp of the mean −ln p of a token (N,); the interval is over blocks of about N / 1000 tokens in a row.

    >>> perplexity(np.log(np.full(5000, 8.0))).value.__round__(6)
    8.0
    """
    return Score("perplexity", _blocks(surprise, np.ones(len(surprise))), _exp_of_mean, higher_is_better=False)


def bits_per_character(surprise: Floats, characters: int) -> Score:
    """The sum of −log₂ p, over the characters that the text has; every token counts for the mean of them.

    >>> bits_per_character(np.log(np.full(5000, 8.0)), 10000).value.__round__(6)
    1.5
    """
    share = np.full(len(surprise), characters / len(surprise))
    return Score("bits per character", _blocks(surprise, share), _bits, higher_is_better=False)


def _blocks(surprise: Floats, weights: Floats) -> Floats:
    """Sums (blocks, 2) over tokens in a row, which are less alike than tokens beside each other."""
    starts = np.linspace(0, len(surprise), min(BLOCKS, len(surprise)), endpoint=False).astype(int)
    return np.add.reduceat(np.column_stack([surprise, weights]), starts, axis=0)


def _exp_of_mean(sums: Floats) -> Floats:
    found: Floats = np.exp(sums[..., :1] / sums[..., 1:])
    return found


def _bits(sums: Floats) -> Floats:
    found: Floats = sums[..., :1] / sums[..., 1:] / log(2)
    return found
