"""From a photo's candidates to a caption, its probability of being right, its grade, or a hedge in its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carousel.captioning.candidates import Candidate
from carousel.captioning.confidence import FOLDS, GRADES, Confidence, Grade, graded, known
from carousel.captioning.dmsm import DMSM
from carousel.captioning.hedge import hedge, surely_seen, things_named
from carousel.captioning.ranking import FEATURES, Ranked, best, ranked, tuned
from carousel.captioning.similarity import similarity_from, similarity_parts
from carousel.metrics.chair import hallucinated_objects
from carousel.metrics.cider import CiderD

Floats = NDArray[np.float64]
TRUSTED = 0.8  # things that are right less often where most of a list name them are left out of hedges


class Verdict(NamedTuple):
    """What is thought of one candidate."""

    place: int  # of the candidate in its list
    confidence: float  # the probability that it is right
    grade: Grade
    hedge: str | None  # what to say in its place, where it is not sure enough


class Judge:
    """Ranks candidates of any school, and says how sure one can be of each; one for the model that made them.

    Args:
        similarity: None where the ranking does without, or the rows come from elsewhere.
        weights: of `Ranked`, (7,), or of `FEATURES`, (10,).
        confidence: trained on captions that were chosen with these weights.
        threshold: captions with a smaller probability to be right become hedges.
        doubted: things that a hedge does not name.
        beam: the length of the lists that all this was tuned on, and the width of the beam that found them.
    """

    def __init__(
        self,
        similarity: DMSM | None,
        weights: Floats,
        confidence: Confidence,
        threshold: float,
        doubted: Sequence[str] = (),
        beam: int = 20,
    ) -> None:
        self.similarity, self.weights, self.confidence = similarity, weights, confidence
        self.threshold, self.doubted, self.beam = threshold, frozenset(doubted), beam

    def __call__(self, features: Tensor, lists: Sequence[Sequence[Candidate]]) -> list[list[Verdict]]:
        """The verdicts on each photo's candidates, the best first; `features` are the photos' (N, F)."""
        rows = features_of(self.similarity, features, lists)
        return [self.verdicts(candidates, known) for candidates, known in zip(lists, rows, strict=True)]

    def verdicts(self, candidates: Sequence[Candidate], rows: Floats) -> list[Verdict]:
        """Those on one photo's candidates with the features (n, F), the best first."""
        if not candidates:
            return []
        order = np.argsort(-(rows @ self.weights), kind="stable").tolist()
        x = np.stack([known(candidates, rows, self.weights, k) for k in order])
        sure, grades = self.confidence.probability(x).tolist(), self.confidence.grade(x).tolist()
        instead = hedge(surely_seen((c.words for c in candidates), doubted=self.doubted))
        return [
            Verdict(place, p, GRADES[grade], instead if p < self.threshold else None)
            for place, p, grade in zip(order, sure, grades, strict=True)
        ]

    @classmethod
    def fit(
        cls,
        similarity: DMSM | None,
        rows: Sequence[Floats],
        lists: Sequence[Sequence[Candidate]],
        references: Sequence[Sequence[str]],
        *,
        beam: int = 20,
        refuse: float = 0.2,
        cost: float = 0.0,
        seed: int = 0,
    ) -> tuple[Self, Floats, NDArray[np.int64]]:
        """A judge of validation photos, with the probabilities (N,) and the true grades (N,) of captions left out.

        The weights are tuned on all lists, for CIDEr-D less `cost` where an object is named that no reference names.
        What the confidence learns from are captions that were chosen by weights tuned on the other folds, so that they
        are no better than a new photo's. `refuse` of these are to become hedges. `rows` are the candidates' features,
        those of `similarity` among them.
        """
        consensus = CiderD(references)
        ciders = consensus.scores([c.text for _, c in _each(lists)], [i for i, _ in _each(lists)])
        invented = np.array([bool(hallucinated_objects(c.text, references[i])) for i, c in _each(lists)])
        ends = np.cumsum([len(candidates) for candidates in lists])[:-1]
        worth, wrong, values = (np.split(each, ends) for each in (ciders, invented, ciders - cost * invented))
        weights = tuned(rows, values, seed=seed)
        fold = np.random.default_rng(seed).permutation(np.arange(len(lists)) % FOLDS)
        x, grade = [], []
        for i, chosen in _left_out(rows, values, fold, seed):
            x.append(known(lists[i], rows[i], weights, chosen))
            grade.append(int(graded(wrong[i][chosen], worth[i][chosen])))
        grades = np.array(grade)
        confidence, logits = Confidence.fit(np.stack(x), grades, seed)
        sure = 1 / (1 + np.exp(-logits))
        threshold = float(np.quantile(sure, refuse))
        return cls(similarity, weights, confidence, threshold, doubted(lists, references), beam), sure, grades

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and facts of which `from_parts` makes the judge again."""
        tensors, facts = similarity_parts(self.similarity) if self.similarity else ({}, None)
        return tensors, {
            "similarity": facts,
            "ranking": dict(zip(FEATURES, self.weights.tolist(), strict=False)),
            "confidence": self.confidence.to_facts(),
            "threshold": self.threshold,
            "doubted": sorted(self.doubted),
            "beam": self.beam,
        }

    @classmethod
    def from_parts(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Self:
        """Restore what `parts` gave. Raises `KeyError` or `ValueError` where they do not fit together."""
        names = FEATURES[: max(len(Ranked._fields), len(facts["ranking"]))]
        if strange := facts["ranking"].keys() ^ set(names):
            raise KeyError(f"ranking feature {min(strange)}")
        weights = np.array([facts["ranking"][name] for name in names], dtype=np.float64)
        beam, threshold, things = facts["beam"], facts["threshold"], facts["doubted"]
        if not (np.isfinite(weights).all() and 0 <= threshold <= 1 and isinstance(beam, int) and 1 <= beam <= 1000):
            raise ValueError("judge: numbers that cannot be")
        similarity = None if facts["similarity"] is None else similarity_from(tensors, facts["similarity"])
        return cls(similarity, weights, Confidence.from_facts(facts["confidence"]), threshold, things, beam)


def features_of(similarity: DMSM | None, features: Tensor, lists: Sequence[Sequence[Candidate]]) -> list[Floats]:
    """The `Ranked` rows of each photo's candidates; without a similarity model all are 0 like their photo."""
    sentences = [candidate.words for candidates in lists for candidate in candidates]
    photo = torch.tensor([i for i, candidates in enumerate(lists) for _ in candidates], dtype=torch.long)
    cosine = torch.zeros(len(sentences))
    if similarity is not None and sentences:
        with torch.inference_mode():
            photos = similarity.photos(features.float())
            parts = [similarity.sentences(sentences[i : i + 1000]) for i in range(0, len(sentences), 1000)]
            cosine = (photos[photo] * torch.cat(parts)).sum(1)
    by_photo = torch.split(cosine, [len(candidates) for candidates in lists])
    return [ranked(candidates, near.numpy()) for candidates, near in zip(lists, by_photo, strict=True)]


def _each(lists: Sequence[Sequence[Candidate]]) -> Iterator[tuple[int, Candidate]]:
    """Each candidate with the place of its list."""
    return ((i, candidate) for i, candidates in enumerate(lists) for candidate in candidates)


def _left_out(
    rows: Sequence[Floats], values: Sequence[Floats], fold: NDArray[np.int64], seed: int
) -> list[tuple[int, int]]:
    """For each photo, in order, the candidate chosen by weights that were tuned on the other folds."""
    found = []
    for k in range(FOLDS):
        inside = np.flatnonzero(fold != k).tolist()
        weights = tuned([rows[i] for i in inside], [values[i] for i in inside], seed=seed, restarts=2)
        found += [(i, best(rows[i], weights)) for i in np.flatnonzero(fold == k).tolist() if len(rows[i])]
    return sorted(found)


def doubted(lists: Sequence[Sequence[Candidate]], references: Sequence[Sequence[str]]) -> list[str]:
    """Things that most of a list say, and that the photos' references name in fewer than `TRUSTED` of the cases.

    Each share is drawn to `TRUSTED` as by two cases more.
    """
    said, right = Counter[str](), Counter[str]()
    for candidates, captions in zip(lists, references, strict=True):
        there = {thing for caption in captions for thing in things_named(caption.split())}
        things = surely_seen((c.words for c in candidates), named=True)
        said.update(things)
        right.update(there.intersection(things))
    return sorted(thing for thing, n in said.items() if (right[thing] + 2 * TRUSTED) / (n + 2) < TRUSTED)
