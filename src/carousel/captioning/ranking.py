"""Which candidate becomes the caption: a linear score over what is known of each, its weights tuned for the metric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carousel.captioning.candidates import Candidate

Floats = NDArray[np.float64]


class Ranked(NamedTuple):
    """What the ranking knows of a candidate."""

    similarity: float  # its cosine with the photo, of the similarity model
    logprob: float
    logprob_per_word: float  # its end counts as a word
    length: float  # in words
    log_rank: float  # of its place in the language model's list, from 1
    covered: float  # detected concepts that it says
    agreement: float  # with the others of the list, see `agreement`


class Grounded(NamedTuple):
    """What detected concepts say of a candidate: of the words in it that name things, doings and their looks."""

    mean_chance: float = 0.0  # log p
    least_chance: float = 0.0  # log p
    surprise: float = 0.0  # the sum of log(1 - p): the smaller, the more of what is there is said


FEATURES = (*Ranked._fields, *Grounded._fields)


def ranked(candidates: Sequence[Candidate], similarity: ArrayLike) -> Floats:
    """The rows `Ranked` (n, 7) of one photo's candidates, whose cosines with it are `similarity` (n,)."""
    agreed = agreement([candidate.words for candidate in candidates])
    cosine = np.asarray(similarity, dtype=np.float64)
    rows = [
        Ranked(
            similarity=cosine[k],
            logprob=c.logprob,
            logprob_per_word=c.logprob / (len(c.words) + 1),
            length=len(c.words),
            log_rank=np.log(c.rank + 1),
            covered=c.covered,
            agreement=agreed[k],
        )
        for k, c in enumerate(candidates)
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, len(Ranked._fields))


def agreement(sentences: Sequence[Sequence[str]]) -> Floats:
    """How much each sentence has in common with the others: what most of a list say is less likely an error.

        a_i = mean over j ≠ i of (dice_1(i, j) + dice_2(i, j)) / 2,   dice_n = 2 |shared n-grams| / |n-grams of both|

    A sentence's expected likeness to the truth where the others are draws of it, as in minimum Bayes risk decoding
    (Kumar and Byrne 2004). Alone it is 0.

    >>> agreement([["a", "dog"], ["a", "dog"], ["a", "cat"]]).round(3).tolist()
    [0.625, 0.625, 0.25]
    """
    bags = [[Counter(zip(*(words[i:] for i in range(n)), strict=False)) for n in (1, 2)] for words in sentences]
    n = len(sentences)
    alike = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            alike[i, j] = alike[j, i] = sum(map(_dice, bags[i], bags[j])) / 2
    found: Floats = alike.sum(1) / max(1, n - 1)
    return found


def _dice(first: Counter[tuple[str, ...]], second: Counter[tuple[str, ...]]) -> float:
    size = first.total() + second.total()
    return 2 * sum(min(times, second[gram]) for gram, times in first.items()) / size if size else 0.0


def best(features: Floats, weights: Floats) -> int:
    """The place of the candidate with the greatest score ``features @ weights``; of equals the first."""
    return int((features @ weights).argmax())


class Lists(NamedTuple):
    """Many photos' candidates: their features, and what choosing each is worth."""

    features: Floats  # (P, n, F), 0 where a list is shorter than n
    values: Floats  # (P, n)
    there: NDArray[np.bool_]  # (P, n)

    @classmethod
    def of(cls, features: Sequence[Floats], values: Sequence[Floats]) -> Self:
        """Of the features (n, F) and values (n,) of each photo; photos without candidates are left out."""
        pairs = [(f, v) for f, v in zip(features, values, strict=True) if len(f)]
        most = max(len(f) for f, _ in pairs)
        there = np.arange(most) < np.array([[len(f)] for f, _ in pairs])
        found = cls(np.zeros((*there.shape, pairs[0][0].shape[1])), np.zeros(there.shape), there)
        found.features[there] = np.concatenate([f for f, _ in pairs])
        found.values[there] = np.concatenate([v for _, v in pairs])
        return found

    def lines(self, weights: Floats, direction: Floats) -> tuple[Floats, Floats]:
        """Each candidate's score as a line in t, its weights being ``weights + t direction``: offsets and slopes."""
        slopes = self.features @ direction
        least = np.where(self.there, slopes, np.inf).min(1, keepdims=True)
        return np.where(self.there, self.features @ weights, -np.inf), np.where(self.there, slopes, least)

    def total(self, weights: Floats) -> float:
        """The sum of the values of the candidates that these weights choose."""
        chosen = np.where(self.there, self.features @ weights, -np.inf).argmax(1)
        return float(np.take_along_axis(self.values, chosen[:, None], 1).sum())


def envelopes(offsets: Floats, slopes: Floats) -> Iterator[tuple[NDArray[np.int64], Floats, NDArray[np.int64]]]:
    """Which of each row's lines ``offsets + t slopes`` (P, n) is the greatest as t grows from -∞ to ∞.

    Yields rows, the t from which on, and the line that is the greatest from there on: first of all rows, from -∞, then
    of those where it changes once, then of those where it changes again ...

    >>> [(at.tolist(), line.tolist()) for _, at, line in envelopes(np.array([[0.0, 1, 0]]), np.array([[-1.0, 0, 1]]))]
    [([-inf], [0]), ([-1.0], [1]), ([1.0], [2])]
    """
    rows = np.arange(len(offsets))
    line = np.where(slopes == slopes.min(1, keepdims=True), offsets, -np.inf).argmax(1)
    since = np.full(len(rows), -np.inf)
    while len(rows):
        yield rows, since, line
        steeper = slopes[rows] - slopes[rows, line][:, None]
        lead = offsets[rows, line][:, None] - offsets[rows]
        meets = np.divide(lead, steeper, out=np.full(lead.shape, np.inf), where=steeper > 0)
        at = meets.min(1)
        line = np.where(meets == at[:, None], slopes[rows], -np.inf).argmax(1)
        goes_on = np.isfinite(at)
        rows, line, since = rows[goes_on], line[goes_on], np.maximum(at, since)[goes_on]


def line_search(lists: Lists, weights: Floats, direction: Floats) -> tuple[float, float]:
    """The step along `direction` after which the candidates chosen have the greatest sum of values, and that sum.

    Exact: between two steps at which some list's best candidate changes the sum is constant, and all such intervals are
    looked at. The middle of the best one is taken, 1 beyond the last change where it has no end.

    Och 2003, "Minimum error rate training in statistical machine translation", section 4.
    """
    (_, _, first), *later = envelopes(*lists.lines(weights, direction))
    worth = np.take_along_axis(lists.values, first[:, None], 1)[:, 0]
    total = float(worth.sum())
    if not later:
        return 0.0, total
    gains = []
    for rows, _, line in later:
        now = lists.values[rows, line]
        gains.append(now - worth[rows])
        worth[rows] = now
    at, gain = np.concatenate([since for _, since, _ in later]), np.concatenate(gains)
    order = at.argsort(kind="stable")
    edges, last = np.unique(at[order], return_index=True)
    sums = total + np.concatenate([[0.0], np.add.reduceat(gain[order], last).cumsum()])
    k = int(sums.argmax())
    low, high = (edges[k - 1] if k else None), (edges[k] if k < len(edges) else None)
    if low is None or high is None:
        return float(edges[0] - 1 if low is None else edges[-1] + 1), float(sums[k])
    return float((low + high) / 2), float(sums[k])


def tuned(
    lists: Sequence[Floats], values: Sequence[Floats], *, seed: int = 0, restarts: int = 8, extra: int = 4
) -> Floats:
    """Weights (F,) with which the best-scored candidates have the greatest sum of values found.

        for each start: repeat: for every coordinate and `extra` random directions: exact line search; take the best
        step; until no step gains

    Starts are the first candidate of each list being the best (the rank alone) and random weights. Features are
    compared in units of their deviations over all candidates; a feature that does not vary gets no weight.

    Args:
        lists: (n, F) features of each photo's candidates.
        values: (n,) what choosing each is worth, such as its CIDEr-D.
    """
    draw = np.random.default_rng(seed)
    spread = np.concatenate(lists).std(0)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-12)
    scaled = Lists.of([features * scale for features in lists], values)
    size = len(scale)
    starts = [np.eye(size)[k] for k in range(size) if scale[k]][:1] + [draw.normal(size=size) for _ in range(restarts)]
    found = [_ascended(scaled, start, draw, extra) for start in starts]
    weights: Floats = scale * max(found, key=lambda pair: pair[1])[0]
    return weights


def _ascended(lists: Lists, weights: Floats, draw: np.random.Generator, extra: int) -> tuple[Floats, float]:
    reached = lists.total(weights)
    while True:
        directions = [*np.eye(len(weights)), *draw.normal(size=(extra, len(weights)))]
        steps = [(*line_search(lists, weights, direction), direction) for direction in directions]
        step, total, direction = max(steps, key=lambda found: found[1])
        if total <= reached + 1e-9:
            return weights, reached
        weights, reached = weights + step * direction, total
        weights = weights / np.linalg.norm(weights)
