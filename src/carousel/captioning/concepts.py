"""What is in a photo, as words of any kind: a detector that looks at every place and joins what it sees there."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.captioning.photo_encoder import Looked
from carousel.vision.efficientnet import HEAD_CHANNELS, STAGES

PLACES = 49
POOLED, GRID = STAGES[4].channels + STAGES[-1].channels + HEAD_CHANNELS, STAGES[-1].channels

Pooling = Literal["noisy-or", "max", "pooled"]


class LogChances(NamedTuple):
    """log p and log(1 - p) of every word in every photo, (N, C)."""

    there: Tensor
    absent: Tensor


def noisy_or(logits: Tensor) -> LogChances:
    """A word is in the photo where it is in at least one of its J places, each of which decides alone.

        p_w = 1 - Π_j (1 - σ(z_wj)),    log(1 - p_w) = -Σ_j softplus(z_wj),    log p_w = log(-expm1(log(1 - p_w)))

    Viola, Platt and Zhang 2005, "Multiple instance boosting for object detection"; for words of captions Fang et al.
    2015, arXiv:1411.4952v3, section 3. Logits (N, J, C), cut below -80, where float32 ends.

    >>> noisy_or(torch.zeros(1, 2, 1)).there.exp()
    tensor([[0.7500]])
    """
    absent = -F.softplus(logits.clamp(min=-80)).sum(1)
    return LogChances((-torch.expm1(absent)).log(), absent)


def most_likely_place(logits: Tensor) -> LogChances:
    """The chance of the place where the word is likeliest; logits (N, J, C)."""
    best = logits.amax(1)
    return LogChances(F.logsigmoid(best), F.logsigmoid(-best))


class Concepts(nn.Module):
    """Chances of many words at once, whatever their part of speech, from the grid and the whole of a photo.

        z_wj = u_w · g_j + v_w · f + b_w        g_j: the grid at place j, f: the pooled features, both standardised

    "noisy-or" and "max" join the places; v is left out without `context`. "pooled" is a logistic regression of every
    word on f. The context is ours: what is published looks at each place alone.

    >>> seen = Looked(torch.zeros(2, POOLED), torch.zeros(2, PLACES, GRID), torch.zeros(2, PLACES, 112))
    >>> detector = Concepts(["a", "dog"])
    >>> detector(seen).there.shape, detector.places(seen).shape
    (torch.Size([2, 2]), torch.Size([2, 49, 2]))
    """

    pooled_mean: Tensor
    pooled_scale: Tensor
    grid_mean: Tensor
    grid_scale: Tensor

    def __init__(
        self, words: Sequence[str], pooling: Pooling = "noisy-or", context: bool = True, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.words, self.pooling, self.context, self.dropout = list(words), pooling, context, dropout
        sees_the_whole = context or pooling == "pooled"
        self.whole = nn.Linear(POOLED, len(words), bias=False) if sees_the_whole else None
        self.local = nn.Linear(GRID, len(words), bias=False) if pooling != "pooled" else None
        self.bias = nn.Parameter(torch.zeros(len(words)))
        for layer in (self.whole, self.local):
            if layer is not None:
                nn.init.normal_(layer.weight, std=1e-3)
        for name, size in (("pooled", POOLED), ("grid", GRID)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))

    def begin(self, seen: Looked, labels: Tensor) -> None:
        """Standardise by training photos, and begin with every word's share (N, C) of them as its chance."""
        for name in ("pooled", "grid"):
            rows = getattr(seen, name).flatten(0, -2).float()
            getattr(self, f"{name}_mean").copy_(rows.mean(0))
            getattr(self, f"{name}_scale").copy_(rows.std(0, correction=0) + 1e-3)
        rate = labels.mean(0).clamp(1e-4, 1 - 1e-4)
        if self.pooling == "noisy-or":
            self.bias.data = torch.expm1(-torch.log1p(-rate) / PLACES).log()
        else:
            self.bias.data = rate.logit()

    def places(self, seen: Looked) -> Tensor:
        """The logits of every word at every place, (N, 49, C); of "pooled" at the one place that it has."""
        logits = self.bias
        if self.whole is not None:
            f = (seen.pooled - self.pooled_mean) / self.pooled_scale
            logits = logits + self.whole(F.dropout(f.clamp(-5, 5), self.dropout, self.training))[:, None]
        if self.local is not None:
            g = ((seen.grid - self.grid_mean) / self.grid_scale).clamp(-5, 5)
            g = g * F.dropout(torch.ones_like(g[:, :1]), self.dropout, self.training)
            logits = self.local(g) + logits
        return logits

    def forward(self, seen: Looked) -> LogChances:
        logits = self.places(seen)
        return noisy_or(logits) if self.pooling == "noisy-or" else most_likely_place(logits)

    def heat_maps(self, seen: Looked, words: Sequence[str], every_place: Tensor | None = None) -> Tensor:
        """Where words were seen: the chance of each at every place, (N, words, 7, 7).

        With a context the chances of all places rise and fall together with what the whole photo shows. "pooled" needs
        the features (N, 49, 1712) of every place, and tells the chance of a photo that looks like that place all over:
        its logit is the mean of theirs, as in Zhou et al. 2016, arXiv:1512.04150v1, but for the cut at 5 deviations.
        """
        logits = self.places(seen if every_place is None else seen._replace(pooled=every_place.flatten(0, 1)))
        chances = logits[..., [self.words.index(word) for word in words]].sigmoid()
        places = chances.view(len(seen.pooled), -1, len(words)).expand(-1, PLACES, -1)
        side = math.isqrt(PLACES)
        return places.transpose(1, 2).reshape(len(places), len(words), side, side)


def detection_loss(chances: LogChances, labels: Tensor) -> Tensor:
    """Cross-entropy, summed over words, the mean over photos; labels (N, C) from 0 to 1.

    L = -Σ_w y_w log p_w + (1 - y_w) log(1 - p_w)
    """
    return -(labels * chances.there + (1 - labels) * chances.absent).sum(1).mean()


def commonest_words(captions: Iterable[Sequence[Sequence[str]]], most: int) -> list[str]:
    """The words that occur in captions most often; equals by alphabet.

    >>> commonest_words([[["a", "dog"], ["a", "cat"]]], most=2)
    ['a', 'cat']
    """
    counts = Counter(word for photo in captions for words in photo for word in words)
    return sorted(counts, key=lambda word: (-counts[word], word))[:most]


def mentions(captions: Sequence[Sequence[Sequence[str]]], words: Sequence[str]) -> Tensor:
    """How many captions of each photo say each word, (N, C).

    >>> mentions([[["a", "dog"], ["a", "a"]]], ["a", "dog", "cat"]).tolist()
    [[2.0, 1.0, 0.0]]
    """
    place = {word: i for i, word in enumerate(words)}
    found = torch.zeros(len(captions), len(words))
    for i, photo in enumerate(captions):
        for caption in photo:
            found[i, [place[word] for word in set(caption) & place.keys()]] += 1
    return found


def thresholds(scores: Tensor, right: Tensor, precision: float, prior: float = 2.0) -> Tensor:
    """The least score (C,) of each word from which on it is right often enough on photos held out; inf for never.

        precision at a score = (right ones of at least that score + prior · rate) / (all of them + prior)

    `prior` photos as the word is on the whole keep it from being trusted for one lucky photo. scores, right: (N, C).

    >>> scores = torch.tensor([[0.9], [0.7], [0.5], [0.1]])
    >>> thresholds(scores, torch.tensor([[1.0], [1.0], [0.0], [0.0]]), precision=0.7).round(decimals=2)
    tensor([0.7000])
    """
    ordered, place = scores.sort(0, descending=True)
    hits = right.gather(0, place).cumsum(0)
    count = torch.arange(1, len(scores) + 1)[:, None]
    enough = (hits + prior * right.mean(0)) / (count + prior) >= precision
    last = torch.where(enough, count, 0).amax(0)
    return torch.where(last > 0, ordered.gather(0, (last - 1).clamp(min=0)[None])[0], torch.inf)
