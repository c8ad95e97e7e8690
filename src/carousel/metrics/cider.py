"""CIDEr-D: consensus with the references, by n-grams weighted with how few images they describe."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carousel.metrics.bleu import ORDERS, ngram_counts
from carousel.metrics.words import check_pairs, check_references

SIGMA = 6.0
SCALE = 10.0  # the official factor: 1.0 in tables of fractions is "100" in tables of percent, the largest value is 10
RELIABLE_IMAGES = 100  # below this, document frequencies are mostly chance

Gram = tuple[str, ...]


class CiderD:
    """CIDEr-D against fixed references: everything that does not depend on the candidate is computed once.

        idf(g)       = ln N − ln max(1, number of images whose references contain g)          N images
        v_n(s)       = (count_s(g) · idf(g)) over the n-grams g of sentence s
        sim_n(c, r)  = min(v_n(c), v_n(r)) · v_n(r) / (‖v_n(c)‖ ‖v_n(r)‖) · exp(−(|c| − |r|)² / 2σ²),  σ = 6
        CIDEr-D(c)   = 10 · mean over n = 1..4 and references r of sim_n(c, r)

    min is elementwise: repeating a word does not pay. The document frequencies come from the references given here and
    from nothing else, so that a score belongs to its test set; `reliable` is False for fewer than 100 images. The texts
    are words separated by spaces: `normalise` them first.

    Vedantam et al. 2015, arXiv:1411.5726v2, sec. 4 and 8. Equal to pycocoevalcap 1.2 ("CIDEr" there is CIDEr-D).
    Notes: |·| counts bigrams, as the official code does: one less than the number of words, or 0.

    >>> reward = CiderD([["a dog runs", "the dog runs"], ["a cat sits"], ["two birds fly"]])
    >>> reward.scores(["a dog runs", "a cat runs", "a dog runs"], [0, 0, 1]).round(4).tolist()
    [5.3625, 1.1586, 0.1594]
    >>> reward.reliable
    False
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        check_references(references)
        self.images = len(references)
        counted = [[ngram_counts(reference.split()) for reference in image] for image in references]
        frequency = Counter(gram for image in counted for gram in set().union(*image))
        self._unseen = math.log(self.images)  # the idf of an n-gram in no reference
        self._idf = {gram: self._unseen - math.log(count) for gram, count in frequency.items()}
        self._references = [[_Vector(counts, self._idf, self._unseen) for counts in image] for image in counted]

    @property
    def reliable(self) -> bool:
        """Whether there are enough images (100) for the document frequencies to mean something."""
        return self.images >= RELIABLE_IMAGES

    def scores(self, candidates: Sequence[str], images: Sequence[int]) -> NDArray[np.float64]:
        """CIDEr-D of each candidate against the references of its image, (candidates,), from 0 to 10.

        `images[i]` is the position, in the references given, of the image that `candidates[i]` describes; one image
        may have many candidates, or none.
        """
        return np.array([self._score(c, self._references[i]) for c, i in zip(candidates, images, strict=True)])

    def _score(self, candidate: str, references: list[_Vector]) -> float:
        vector = _Vector(ngram_counts(candidate.split()), self._idf, self._unseen)
        return SCALE / len(references) * sum(vector.similarity(reference) for reference in references)


class _Vector:
    """The n-gram weights of one sentence, with the norm of each order and the length."""

    __slots__ = ("length", "norms", "weights")

    def __init__(self, counts: Counter[Gram], idf: dict[Gram, float], unseen: float) -> None:
        self.weights = {gram: count * idf.get(gram, unseen) for gram, count in counts.items()}
        squares = [0.0] * ORDERS
        for gram, weight in self.weights.items():
            squares[len(gram) - 1] += weight * weight
        self.norms = [math.sqrt(square) for square in squares]
        self.length = sum(count for gram, count in counts.items() if len(gram) == 2)

    def similarity(self, reference: _Vector) -> float:
        dots = [0.0] * ORDERS
        for gram in self.weights.keys() & reference.weights.keys():
            target = reference.weights[gram]
            dots[len(gram) - 1] += min(self.weights[gram], target) * target
        cosines = (dot / (a * b) for dot, a, b in zip(dots, self.norms, reference.norms, strict=True) if a * b)
        penalty = math.exp(-((self.length - reference.length) ** 2) / (2 * SIGMA**2))
        return sum(cosines) / ORDERS * penalty


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean CIDEr-D over images, one candidate for each; see `CiderD`. Published tables multiply it by 100.

    >>> cider_d(["a dog runs fast", "a cat sits there"], [["a dog runs fast"], ["a cat sits there"]])
    10.0
    """
    check_pairs(candidates, references)
    return float(CiderD(references).scores(candidates, range(len(candidates))).mean())
