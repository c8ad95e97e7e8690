"""How sure one can be of a caption: the probability that it is right, and a grade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from carousel.captioning.candidates import Candidate
from carousel.captioning.ranking import Grounded, Ranked
from carousel.errors import DataError
from carousel.metrics.chair import objects_mentioned

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Grade = Literal["without errors", "with minor errors", "somewhat related", "unrelated"]
GRADES: tuple[Grade, ...] = get_args(Grade)
PENALTIES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
FOLDS = 5


def graded(hallucinates: ArrayLike, cider: ArrayLike) -> Ints:
    """Numbers of the grades (N,) that captions deserve by their references: a definition of ours.

        without errors      no object that no reference names, CIDEr-D of at least 0.5
        with minor errors   no such object, CIDEr-D of at least 0.1
        somewhat related    one of both: such an object, or a CIDEr-D below 0.1
        unrelated           both

    The first two are right, the others bad.

    >>> [GRADES[k] for k in graded([False, True, True], [0.7, 0.3, 0.05])]
    ['without errors', 'somewhat related', 'unrelated']
    """
    invents, worth = np.asarray(hallucinates, dtype=bool), np.asarray(cider, dtype=np.float64)
    good = ~invents & (worth >= 0.1)
    found: Ints = np.where(good, np.where(worth >= 0.5, 0, 1), np.where(invents & (worth < 0.1), 3, 2))
    return found


class Known(NamedTuple):
    """What the confidence knows of a caption and of the list it was chosen from; what nobody can know is 0 for all."""

    score: float  # of the ranking
    similarity: float
    list_similarity: float  # the mean of the list
    logprob: float
    logprob_per_word: float
    least: float  # the log-probability of its least probable word
    length: float
    agreement: float
    list_agreement: float
    object_agreement: float  # the share of the list that names the object of its that fewest name
    objects: float  # how many it names
    list_objects: float  # how many different ones the list names
    margin: float  # by how much the list's likeliest is likelier than the next, in log-probability
    mass: float  # the log-probability of the whole list
    covered: float  # the share of its words that are detected concepts
    novel: float
    mean_chance: float  # of the concepts that it says, as those below; see `Grounded`
    least_chance: float
    surprise: float


def known(candidates: Sequence[Candidate], features: Floats, weights: Floats, chosen: int) -> Floats:
    """The row `Known` of the candidate `chosen` from a photo's list, whose `Ranked` rows are `features` (n, 7), or
    with the columns of `Grounded` (n, 10)."""
    width = len(Ranked._fields)
    candidate, row, mean = candidates[chosen], Ranked(*features[chosen, :width]), Ranked(*features.mean(0)[:width])
    logprobs = np.sort([c.logprob for c in candidates])[::-1]
    named = [set(objects_mentioned(c.text)) for c in candidates]
    shares = [np.mean([thing in others for others in named]) for thing in named[chosen]]
    found = Known(
        score=float(features[chosen] @ weights),
        similarity=row.similarity,
        list_similarity=mean.similarity,
        logprob=row.logprob,
        logprob_per_word=row.logprob_per_word,
        least=float(np.log(max(min(candidate.probabilities, default=1.0), 1e-9))),
        length=row.length,
        agreement=row.agreement,
        list_agreement=mean.agreement,
        object_agreement=float(min(shares, default=1.0)),
        objects=len(named[chosen]),
        list_objects=len(set().union(*named)),
        margin=float(logprobs[0] - logprobs[1]) if len(logprobs) > 1 else 0.0,
        mass=float(np.logaddexp.reduce(logprobs)),
        covered=candidate.covered / max(1, len(set(candidate.words))),
        novel=float(candidate.novel),
        **Grounded(*features[chosen, width:])._asdict(),
    )
    return np.array(found, dtype=np.float64)


class Confidence(NamedTuple):
    """Proportional odds: one linear score, and a place on it for each boundary between two grades.

        P(grade k or better | x) = σ(w · (x − mean) / scale + b_k),     b_1 < b_2 < b_3

    The probability that a caption is right is that of the second grade or better. McCullagh 1980, "Regression models
    for ordinal data". Fitted with a penalty that cross-validation chooses, and then, as Platt 1999 ("Probabilistic
    outputs for support vector machines"), scaled and shifted to the truth of cases that were left out.

    >>> draw = np.random.default_rng(0)
    >>> x = draw.normal(size=(300, 2))
    >>> grade = np.digitize(-x[:, 0] + draw.logistic(size=300), [-1, 0, 1])
    >>> trained, _ = Confidence.fit(x, grade)
    >>> bool(trained.probability(np.array([[2.0, 0]])) > trained.probability(np.array([[-2.0, 0]])))
    True
    """

    mean: Floats
    scale: Floats
    weights: Floats
    boundaries: Floats  # (3,)

    def logits(self, x: Floats) -> Floats:
        """Of each grade or a better one, (N, 3), of rows (N, F)."""
        found: Floats = (((x - self.mean) / self.scale) @ self.weights)[:, None] + self.boundaries
        return found

    def probability(self, x: Floats) -> Floats:
        """That the caption is right, (N,)."""
        return _sigmoid(self.logits(x)[:, 1])

    def grade(self, x: Floats) -> Ints:
        """The likeliest grade, (N,)."""
        at_least = np.pad(_sigmoid(self.logits(x)), ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1)))
        found: Ints = np.diff(at_least, axis=1).argmax(1)
        return found

    @classmethod
    def fit(cls, x: Floats, grade: Ints, seed: int = 0) -> tuple[Self, Floats]:
        """From rows (N, F) and the numbers of their grades (N,); with each case's logit (N,) by models without it."""
        if len(grade) < 2 * FOLDS or len(set((grade <= 1).tolist())) < 2:
            raise DataError(
                f"confidence: too few captions to learn from (got {len(grade)}, {int((grade <= 1).sum())} of them "
                f"right); {2 * FOLDS} or more, right and wrong ones; more validation photos"
            )
        tried = {penalty: cls.left_out(x, grade, penalty, seed) for penalty in PENALTIES}
        penalty = min(PENALTIES, key=lambda penalty: _surprise(tried[penalty][:, 1], grade <= 1))
        left_out = tried[penalty][:, 1]
        scale, shift = _platt(left_out, grade <= 1)
        found = cls._fitted(x, grade, penalty)
        found = found._replace(weights=scale * found.weights, boundaries=scale * found.boundaries + shift)
        return found, scale * left_out + shift

    @classmethod
    def left_out(cls, x: Floats, grade: Ints, penalty: float, seed: int = 0) -> Floats:
        """The logits (N, 3) of each case by a model of the other folds."""
        fold = np.random.default_rng(seed).permutation(np.arange(len(grade)) % FOLDS)
        found = np.zeros((len(grade), len(GRADES) - 1))
        for k in range(FOLDS):
            found[fold == k] = cls._fitted(x[fold != k], grade[fold != k], penalty).logits(x[fold == k])
        return found

    @classmethod
    def _fitted(cls, x: Floats, grade: Ints, penalty: float) -> Self:
        """The maximum of the penalised likelihood."""
        mean, scale = x.mean(0), x.std(0)
        scale[scale < 1e-9] = np.inf  # what never varies counts for nothing
        standard = torch.from_numpy((x - mean) / scale)
        truth = torch.from_numpy(grade)[:, None] <= torch.arange(len(GRADES) - 1)
        weights = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
        steps = torch.tensor([-1.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([weights, steps], max_iter=200, line_search_fn="strong_wolfe")

        def boundaries() -> torch.Tensor:
            return torch.cat([steps[:1], steps[1:].exp()]).cumsum(0)

        def loss() -> torch.Tensor:
            optimiser.zero_grad()
            at_least = torch.sigmoid((standard @ weights)[:, None] + boundaries())
            lower = torch.cat([torch.zeros_like(at_least[:, :1]), at_least], 1)
            upper = torch.cat([at_least, torch.ones_like(at_least[:, :1])], 1)
            likely = (upper - lower).gather(1, (len(GRADES) - 1 - truth.sum(1))[:, None])
            value = -likely.clamp(min=1e-12).log().mean() + penalty * weights.square().sum() / 2
            value.backward()  # type: ignore[no-untyped-call]
            return value

        with torch.enable_grad():
            optimiser.step(loss)  # type: ignore[no-untyped-call]
        return cls(mean, scale, weights.detach().numpy(), boundaries().detach().numpy())

    def to_facts(self) -> dict[str, Any]:
        """Plain numbers by name, ready for JSON."""
        scale = np.where(np.isinf(self.scale), 0.0, self.scale)
        named = dict(zip(Known._fields, zip(self.mean, scale, self.weights, strict=True), strict=True))
        return {
            "features": {name: [float(value) for value in row] for name, row in named.items()},
            "boundaries": self.boundaries.tolist(),
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self:
        """Restore what `to_facts` gave; a feature that it does not name counts for nothing. Raises `KeyError` for one
        that is not known here, and `ValueError` for numbers that cannot be."""
        if strange := facts["features"].keys() - set(Known._fields):
            raise KeyError(f"feature {min(strange)}")
        rows = np.array([facts["features"].get(name, [0.0, 0.0, 0.0]) for name in Known._fields], dtype=np.float64)
        boundaries = np.array(facts["boundaries"], dtype=np.float64)
        if rows.shape != (len(Known._fields), 3) or boundaries.shape != (len(GRADES) - 1,):
            raise ValueError("confidence: not as many numbers as features and grades")
        if not (np.isfinite(rows).all() and np.isfinite(boundaries).all() and (np.diff(boundaries) >= 0).all()):
            raise ValueError("confidence: numbers that cannot be")
        mean, scale, weights = rows.T
        return cls(mean, np.where(scale == 0, np.inf, scale), weights, boundaries)


def _sigmoid(x: Floats) -> Floats:
    return np.exp(-np.logaddexp(0, -x))


def _surprise(logit: Floats, right: ArrayLike) -> float:
    return float(np.logaddexp(0, np.where(right, -logit, logit)).mean())


def _platt(logit: Floats, right: ArrayLike) -> tuple[float, float]:
    """The scale and shift after which the logits (N,) are least surprised by the truth."""
    truth, z = torch.from_numpy(np.asarray(right, dtype=np.float64)), torch.from_numpy(logit)
    line = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)  # the logarithm of the scale, the shift
    optimiser = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(line[0].exp() * z + line[1], truth)
        value = value + 1e-3 * line.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    return float(line[0].detach().exp()), float(line[1].detach())
