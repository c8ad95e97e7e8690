"""Corpus BLEU-1 to BLEU-4, as the COCO caption evaluation computes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.metrics.words import check_pairs

ORDERS = 4
TINY, SMALL = 1e-15, 1e-9  # the official constants: a corpus without a match scores almost 0, never 0/0


class Bleu(NamedTuple):
    """BLEU up to n-grams of 1, 2, 3 and 4 words, fractions of 1."""

    bleu_1: float
    bleu_2: float
    bleu_3: float
    bleu_4: float


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Bleu:
    """Corpus BLEU of one candidate per image against several references.

        p_n    = Σ_images Σ_g min(count_c(g), max_r count_r(g)) / Σ_images Σ_g count_c(g)      g: n-grams
        BLEU_N = min(1, exp(1 − r/c)) · (p_1 ⋯ p_N)^(1/N)

    c is the total length of the candidates, r the total length of the closest reference of each (the shorter of two
    equally close). The texts are words separated by spaces: `normalise` them first. Fractions of 1, not percent.

    Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine translation". Equal to pycocoevalcap 1.2.
    Notes: counts are summed over the corpus before dividing, so this is not the mean of sentence scores.

    >>> bleu(["a dog runs on grass"], [["a dog runs on the grass", "dogs run"]]).bleu_2    # √(5/5 · 3/4) · e^(1 − 6/5)
    0.7090416307237545
    """
    sums = bleu_statistics(candidates, references).sum(axis=0)
    return Bleu(*bleu_from_statistics(sums).tolist())


def bleu_statistics(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """What BLEU needs from every image, (images, 10): their sums over any set of images give its BLEU.

    Columns: candidate length, closest reference length, matched n-grams for n = 1..4, candidate n-grams for n = 1..4.

    >>> bleu_statistics(["a dog runs"], [["a dog sat", "dogs"]]).tolist()
    [[3.0, 3.0, 2.0, 1.0, 0.0, 0.0, 3.0, 2.0, 1.0, 0.0]]
    """
    check_pairs(candidates, references)
    rows = [_image_statistics(*pair) for pair in zip(candidates, references, strict=True)]
    return np.array(rows, dtype=np.float64)


def bleu_from_statistics(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """BLEU-1..4 (..., 4) from summed statistics (..., 10).

    >>> bleu_from_statistics(np.array([9, 9, 9, 8, 7, 6, 9, 8, 7, 6.0])).round(6).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    length, closest = sums[..., 0:1], sums[..., 1:2]
    matched, total = sums[..., 2 : 2 + ORDERS], sums[..., 2 + ORDERS :]
    precisions = (matched + TINY) / (total + SMALL)
    means = np.cumprod(precisions, axis=-1) ** (1 / np.arange(1, ORDERS + 1))
    ratio = (length + TINY) / (closest + SMALL)
    brevity: NDArray[np.float64] = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return means * brevity


def _image_statistics(candidate: str, references: Sequence[str]) -> list[int]:
    words = candidate.split()
    counts = ngram_counts(words)
    limits: Counter[tuple[str, ...]] = Counter()
    for reference in references:
        limits |= ngram_counts(reference.split())  # | keeps the larger count
    matched = [0] * ORDERS
    for gram, count in (counts & limits).items():
        matched[len(gram) - 1] += count
    total = [max(0, len(words) - n) for n in range(ORDERS)]
    closest = min((len(r.split()) for r in references), key=lambda length: (abs(length - len(words)), length))
    return [len(words), closest, *matched, *total]


def ngram_counts(words: Sequence[str], orders: int = ORDERS) -> Counter[tuple[str, ...]]:
    """How often every run of 1 to `orders` words occurs.

    >>> ngram_counts(["a", "b", "a"], orders=2)
    Counter({('a',): 2, ('b',): 1, ('a', 'b'): 1, ('b', 'a'): 1})
    """
    return Counter(gram for n in range(orders) for gram in zip(*(words[k:] for k in range(n + 1)), strict=False))
