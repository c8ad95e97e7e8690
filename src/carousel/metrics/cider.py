"""CIDEr-D: consensus with the references, by n-grams weighted with how few images they describe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.metrics.bleu import ORDERS
from carousel.metrics.words import check_pairs, check_references

SIGMA = 6.0
SCALE = 10.0  # the official factor: the largest value is 10, and tables in "percent" print 1.0 as 100
RELIABLE_IMAGES = 100  # below this, document frequencies are mostly chance

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class CiderD:
    """CIDEr-D against fixed references: everything that does not depend on the candidate is computed once.

        idf(g)      = ln N − ln max(1, number of images whose references contain g)                  N images
        v_n(s)      = (count_s(g) · idf(g)) over the n-grams g of sentence s
        sim_n(c, r) = min(v_n(c), v_n(r)) · v_n(r) / (‖v_n(c)‖ ‖v_n(r)‖) · exp(−(|c| − |r|)² / 2σ²),  σ = 6
        CIDEr-D(c)  = 10 · mean over n = 1..4 and references r of sim_n(c, r)

    min is elementwise: repeating a word does not pay. The document frequencies come from the references given here and
    from nothing else, so that a score belongs to its test set; `reliable` is False for fewer than 100 images. The texts
    are words separated by spaces: `normalise` them first. Raises `DataError` for an image without references.

    Vedantam et al. 2015, arXiv:1411.5726v2, sec. 4 and 8. Equal to pycocoevalcap 1.2, where "CIDEr" is CIDEr-D.
    Notes: |·| counts words; the official code counts bigrams, which has the same differences.

    >>> reward = CiderD([["a dog runs", "the dog runs"], ["a cat sits"], ["two birds fly"]])
    >>> reward.scores(["a dog runs", "a cat runs", "a dog runs"], [0, 0, 1]).round(4).tolist()
    [5.3625, 1.1586, 0.1594]
    >>> reward.reliable
    False
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        check_references(references)
        self.images = len(references)
        self._sizes = np.array([len(image) for image in references])
        self._first = np.cumsum(self._sizes) - self._sizes  # (images,) its first row among all the references
        image_of = np.repeat(np.arange(self.images), self._sizes)
        texts = [text for image in references for text in image]
        self._grams = _GramNumbers()
        self._lengths = _lengths(texts)
        self._orders = [_Order(bag, image_of, self.images) for bag in self._grams.learn(texts)]

    @property
    def reliable(self) -> bool:
        """Whether there are enough images (100) for the document frequencies to mean something."""
        return self.images >= RELIABLE_IMAGES

    def scores(self, candidates: Sequence[str], images: Sequence[int] | Integers) -> Floats:
        """CIDEr-D of each candidate against the references of its image, (candidates,), from 0 to 10.

        `images[i]` is the position, in the references given, of the image that `candidates[i]` describes; one image
        may have many candidates, or none. Made for thousands of candidates a call, as the reward of a training step.

            [10 * mean(sim_n(c, r) for n in 1..4 for r in references[i]) for c, i in zip(candidates, images)]

        Raises `DataError` for an image that is not there, or for two arguments of different lengths.
        """
        image = np.asarray(images, dtype=np.int64).reshape(-1)
        if len(image) != len(candidates):
            raise DataError(f"images: {len(image)} positions for {len(candidates)} candidates; one for each is needed")
        if len(image) == 0:
            return np.zeros(0)
        if image.min() < 0 or image.max() >= self.images:
            raise DataError(
                f"images: a position outside the references (got {image.min()}..{image.max()}); "
                f"0..{self.images - 1} is allowed"
            )
        slots = np.arange(self._sizes.max())  # images may have fewer references: cosine 0 with those not there
        rows = np.where(slots < self._sizes[image, None], self._first[image, None] + slots, 0)
        cosines = sum(
            order.cosines(bag, image, rows)
            for order, bag in zip(self._orders, self._grams.look_up(candidates), strict=True)
        )
        gap = _lengths(candidates)[:, None] - self._lengths[rows]
        similarity = cosines / ORDERS * np.exp(-(gap**2) / (2 * SIGMA**2))
        scores: Floats = SCALE * similarity.sum(axis=1) / self._sizes[image]
        return scores


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean CIDEr-D over images, one candidate for each; see `CiderD`. Tables in "percent" print it times 100.

    >>> cider_d(["a dog runs fast", "a cat sits there"], [["a dog runs fast"], ["a cat sits there"]])
    10.0
    """
    check_pairs(candidates, references)
    return float(CiderD(references).scores(candidates, range(len(candidates))).mean())


class _Bag(NamedTuple):
    """The distinct n-grams, of one n, of each of several sentences: one row for each."""

    sentence: Integers
    gram: Integers
    times: Integers


class _GramNumbers:
    """Numbers for n-grams, from 0 for each n: first those learnt, then those that only the texts at hand have."""

    def __init__(self) -> None:
        self._vocabulary: dict[str, int] = {}
        self._known: list[Integers] = []

    def learn(self, texts: Sequence[str]) -> Iterator[_Bag]:
        """The bags of `texts` for n = 1..4, remembering their n-grams."""
        yield from self._bags(texts, learn=True)

    def look_up(self, texts: Sequence[str]) -> Iterator[_Bag]:
        """The bags of `texts` for n = 1..4."""
        yield from self._bags(texts, learn=False)

    def _bags(self, texts: Sequence[str], learn: bool) -> Iterator[_Bag]:
        sentences = [text.split() for text in texts]
        lengths = np.array([len(words) for words in sentences])
        number = self._vocabulary
        flat = (number.setdefault(word, len(number)) for words in sentences for word in words)
        word = np.fromiter(flat, np.int64, count=int(lengths.sum()))
        sentence = np.repeat(np.arange(len(texts)), lengths)
        end = np.repeat(np.cumsum(lengths), lengths)
        start = np.arange(len(word))
        gram = np.zeros_like(word)
        for n in range(ORDERS):
            inside = start + n < end[start]
            start, gram = start[inside], gram[inside]
            code = gram << 32 | word[start + n]  # an n-gram is the number of its first n − 1 words, then one word
            if learn:
                self._known.append(np.unique(code))
            gram = _positions(self._known[n], code)
            yield _count(sentence[start], gram)


def _positions(known: Integers, codes: Integers) -> Integers:
    place = np.searchsorted(known, codes)
    found = np.append(known, -1)[place] == codes
    fresh = len(known) + np.unique(codes, return_inverse=True)[1]
    return np.where(found, place, fresh)


def _count(sentence: Integers, gram: Integers) -> _Bag:
    width = int(gram.max(initial=0)) + 1
    pairs, times = np.unique(sentence * width + gram, return_counts=True)
    return _Bag(pairs // width, pairs % width, times)


class _Order:
    """All references' n-grams for one n, sorted by image and n-gram: candidates find theirs by bisection."""

    def __init__(self, bag: _Bag, image_of: Integers, images: int) -> None:
        self._grams = int(bag.gram.max(initial=-1)) + 1
        key = image_of[bag.sentence] * self._grams + bag.gram
        frequency = np.bincount(np.unique(key) % max(1, self._grams), minlength=self._grams)
        self._unseen = math.log(images)
        self._idf = self._unseen - np.log(frequency)
        weight = bag.times * self._idf[bag.gram]
        self._norm = np.sqrt(np.bincount(bag.sentence, weight**2, minlength=len(image_of)))
        order = np.argsort(key, kind="stable")
        self._key, self._reference, self._weight = key[order], bag.sentence[order], weight[order]

    def cosines(self, bag: _Bag, image: Integers, rows: Integers) -> Floats:
        """Clipped cosine of each candidate with its references in `rows`, both (candidates, slots)."""
        known = bag.gram < self._grams
        weight = bag.times * np.where(known, np.append(self._idf, 0)[bag.gram * known], self._unseen)
        norm = np.sqrt(np.bincount(bag.sentence, weight**2, minlength=len(image)))
        candidate, weight = bag.sentence[known], weight[known]
        key = image[candidate] * self._grams + bag.gram[known]
        first, last = np.searchsorted(self._key, key, "left"), np.searchsorted(self._key, key, "right")
        hits = last - first
        hit = np.repeat(first - np.cumsum(hits) + hits, hits) + np.arange(hits.sum())
        candidate, weight = np.repeat(candidate, hits), np.repeat(weight, hits)
        product = np.minimum(weight, self._weight[hit]) * self._weight[hit]
        cell = candidate * rows.shape[1] + self._reference[hit] - rows[candidate, 0]
        dots = np.zeros(rows.shape)
        np.add.at(dots.reshape(-1), cell, product)
        norms = norm[:, None] * self._norm[rows]
        cosines: Floats = np.divide(dots, norms, out=np.zeros(rows.shape), where=norms > 0)
        return cosines


def _lengths(texts: Sequence[str]) -> Integers:
    return np.array([len(text.split()) for text in texts], dtype=np.int64)
