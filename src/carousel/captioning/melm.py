"""The maximum-entropy language model: sentences from the words that a photo was seen to need."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.captioning.ngrams import NGrams, Tokens
from carousel.data.vocabulary import PAD, SPECIALS, STOP

SPECIAL = len(SPECIALS)
LEAST = -7.0  # log p below this is as this: so sure is no detector
LONGEST = 29  # words that length features tell apart


class Evidence(NamedTuple):
    """What a detector says of photos, by the words of the language model; a word that is no concept has score 0."""

    detected: Tensor  # (P, V) bool, the concepts that a caption should say
    score: Tensor  # (P, V), log p of every concept

    def rows(self, which: Tensor) -> Evidence:
        """Those of some photos."""
        return Evidence(self.detected[which], self.score[which])

    def float(self) -> Evidence:
        """In single precision."""
        return self._replace(score=self.score.float())


def evidence(there: Tensor, thresholds: Tensor, concepts: Tensor, size: int) -> Evidence:
    """Detections by the language model's words, of log p (N, C) of the concepts numbered `concepts` (C,) there."""
    score, detected = torch.zeros(len(there), size), torch.zeros(len(there), size, dtype=torch.bool)
    score[:, concepts] = there.clamp(min=LEAST)
    detected[:, concepts] = there >= thresholds
    return Evidence(detected, score)


class MaxEntModel(nn.Module):
    """A maximum-entropy model of the next word, given the words before it and the concepts not yet said.

        Pr(w | h, V) = exp(s(w)) / Σ_v exp(s(v)),    s(w) = Σ_k λ_k f_k(w, h, V)

    V is the set of detected concepts that h does not say, h the words before. The features f_k are

        n-gram+     an n-gram, n = 1..N, ends in w, and w is in V
        n-gram-     the same, and w is not in V
        attribute   w is in V
        score       log p of w, where w is in V                       one weight a word here
        end         w is the stop, and V is empty
        absence     log p of w, a concept neither detected nor said   ours, as all below
        repeat      h says w already
        length      w is the stop, and h has so many words
        trigger     h says u, one of the `triggers` commonest words; one weight for each u and w

    Fang et al. 2015, arXiv:1411.4952v3, section 4 and table 2; triggers are those of Rosenfeld 1996, "A maximum entropy
    approach to adaptive statistical language modelling". Notes: the weight of an n-gram+ is kept as that of the n-gram-
    and a difference, so that what is rare with a concept goes by the n-gram alone; only the n-grams of `ngrams` have
    features.

    >>> from carousel.captioning.ngrams import tokens
    >>> said = tokens([[4, 5]], order=2)
    >>> model = MaxEntModel(NGrams.of(said, size=6, order=2))
    >>> seen = Evidence(torch.zeros(1, 6, dtype=torch.bool), torch.zeros(1, 6))
    >>> model.logits(said.before[:1], Standing.begin(seen)).shape
    torch.Size([1, 6])
    """

    def __init__(self, ngrams: NGrams, triggers: int = 0) -> None:
        super().__init__()
        size = ngrams.size
        self.ngrams, self.triggers = ngrams, min(triggers, size - SPECIAL)
        self.weights = nn.Parameter(torch.zeros(ngrams.features, 2))  # of the n-gram, and the difference with w in V
        self.attribute = nn.Parameter(torch.zeros(()))
        self.end = nn.Parameter(torch.zeros(()))
        self.score, self.absence, self.repeat = (nn.Parameter(torch.zeros(size)) for _ in range(3))
        self.length = nn.Parameter(torch.zeros(LONGEST + 1))
        self.trigger = nn.Parameter(torch.zeros(self.triggers, size))

    def begin(self, corpus: Tokens) -> None:
        """Begin with words as often as the corpus has them."""
        counts = torch.bincount(corpus.word, minlength=self.ngrams.size) + 0.1
        with torch.no_grad():
            self.weights[: self.ngrams.size, 0] = (counts / counts.sum()).log()

    def logits(self, before: Tensor, at: Standing) -> Tensor:
        """s(w) of every word, (R, V), after contexts (R, N-1)."""
        size = self.ngrams.size
        plain, more = self.weights[:size].unbind(1)
        row, word, feature = self.ngrams.after(before)
        weight = self.weights[feature]
        grams = weight[:, 0] + weight[:, 1] * at.open[row, word]
        longer = torch.zeros(len(before) * size, dtype=plain.dtype).index_add(0, row * size + word, grams)
        pulled = at.all_said[:, SPECIAL : SPECIAL + self.triggers].to(plain.dtype) @ self.trigger
        every = torch.arange(size).expand(len(before), -1)
        return self._together(plain + longer.view(-1, size) + pulled, more.expand(len(before), -1), every, at)

    def scores(self, before: Tensor, words: Tensor, at: Standing) -> Tensor:
        """s(w) of words (R, K) after contexts (R, N-1), and of no others; `at` has been asked for these words."""
        found = self.ngrams.find(before, words)  # (R, K, N)
        weight = self.weights[found.clamp(min=0)] * (found >= 0)[..., None]
        plain, more = weight.sum(2).unbind(-1)
        return self._together(plain + self._pulled(words, at), more, words, at)

    def _together(self, plain: Tensor, more: Tensor, words: Tensor, at: Standing) -> Tensor:
        """All features, with the sums of n-grams and triggers, and what the n-grams add where w is in V."""
        concept = more + self.attribute + self.score[words] * at.score
        doubted = self.absence[words] * at.score * ~at.said + self.repeat[words] * at.said
        stop = self.end * at.empty + self.length[at.words.clamp(max=LONGEST)]
        return plain + torch.where(at.open, concept, doubted) + stop[:, None] * (words == STOP)

    def _pulled(self, words: Tensor, at: Standing) -> Tensor:
        """The sum of triggers' weights, (R, K)."""
        if not self.triggers:
            return torch.zeros(words.shape)
        u = at.prefix - SPECIAL
        first = ~((u[:, :, None] == u[:, None]).tril(-1).any(2))  # a word said twice pulls once
        pulls = (u >= 0) & (u < self.triggers) & first
        place = u.clamp(0, self.triggers - 1)[:, :, None] * self.ngrams.size + words[:, None]
        return (self.trigger.view(-1)[place] * pulls[..., None]).sum(1)


class Standing(NamedTuple):
    """Where sentences stand with their photos: of every word (R, V), or of some words (R, K)."""

    open: Tensor  # bool, detected and not yet said
    said: Tensor  # bool
    score: Tensor  # log p
    empty: Tensor  # (R,) bool, all that was detected is said
    prefix: Tensor  # (R, L) the words said, with <pad> behind them
    all_said: Tensor  # (R, V) `said`, of every word whichever are asked for

    @property
    def words(self) -> Tensor:
        """How many words there are, (R,)."""
        return (self.prefix != PAD).sum(1)

    @classmethod
    def begin(cls, seen: Evidence) -> Standing:
        """Before the first word."""
        return cls.after(seen, torch.zeros(len(seen.score), 0, dtype=torch.int64))

    @classmethod
    def after(cls, seen: Evidence, prefix: Tensor) -> Standing:
        """After the words `prefix` (R, L), with <pad> behind them, about as many photos."""
        said = torch.zeros_like(seen.detected).scatter(1, prefix, True)
        said[:, PAD] = False
        left = seen.detected & ~said
        return cls(left, said, seen.score, ~left.any(1), prefix, said)

    def rows(self, which: Tensor) -> Standing:
        """Those of some sentences."""
        return Standing(*(field[which] for field in self))

    def of(self, words: Tensor) -> Standing:
        """Of some words (R, K) of each sentence."""
        open_, said, score = (field.gather(1, words) for field in self[:3])
        return Standing(open_, said, score, self.empty, self.prefix, self.all_said)

    def say(self, words: Tensor) -> Standing:
        """After one more word (R,) of each."""
        said = self.all_said.scatter(1, words[:, None], True)
        left = self.open & ~said
        return Standing(left, said, self.score, ~left.any(1), torch.cat([self.prefix, words[:, None]], 1), said)


class Noise:
    """What noise-contrastive estimation tells the text from: half words alone, half words after the word before.

        q(w | v) = ½ c(w) / T + ½ c(v w) / c(v)

    After a v that the corpus does not have, words alone.
    """

    def __init__(self, corpus: Tokens, size: int) -> None:
        previous = corpus.before[:, -1]
        order = torch.argsort(previous, stable=True)
        self.size, self.words, self.followers = size, corpus.word, corpus.word[order]
        self.counts = torch.bincount(previous, minlength=size)
        self.starts = self.counts.cumsum(0) - self.counts
        self.alone = torch.bincount(corpus.word, minlength=size) / len(corpus.word)
        self.pairs, self.times = torch.unique(previous * size + corpus.word, return_counts=True)

    def draw(self, previous: Tensor, k: int, generator: torch.Generator) -> Tensor:
        """k words (R, k) after each of `previous` (R,)."""
        shape = (len(previous), k)
        alone = self.words[torch.randint(len(self.words), shape, generator=generator)]
        counts = self.counts[previous][:, None]
        picked = (torch.rand(shape, generator=generator) * counts).long().clamp(max=(counts - 1).clamp(min=0))
        after = self.followers[(self.starts[previous][:, None] + picked).clamp(max=len(self.followers) - 1)]
        return torch.where((torch.rand(shape, generator=generator) < 0.5) | (counts == 0), alone, after)

    def logprob(self, previous: Tensor, words: Tensor) -> Tensor:
        """log q of words (R, K)."""
        numbers = previous[:, None] * self.size + words
        places = torch.searchsorted(self.pairs, numbers).clamp(max=len(self.pairs) - 1)
        counts = self.counts[previous][:, None]
        after = torch.where(self.pairs[places] == numbers, self.times[places], 0) / counts.clamp(min=1)
        alone = self.alone[words]
        return torch.where(counts > 0, (alone + after) / 2, alone).log()


def nce_loss(scores: Tensor, noise_logprobs: Tensor) -> Tensor:
    """How badly a model tells the true words, in column 0, from k words of noise; the mean over rows.

        L = -log σ(Δ_0) - Σ_i log σ(-Δ_i),    Δ = s(w) - log k - log q(w)

    Least where exp(s) is the distribution of the data, its normalisation learned too (Gutmann and Hyvärinen 2010,
    AISTATS; for language models Mnih and Teh 2012, arXiv:1206.6426v1). scores, noise_logprobs: (R, 1 + k).
    """
    k = scores.shape[1] - 1
    delta = scores - noise_logprobs - torch.tensor(float(k)).log()
    return (F.softplus(-delta[:, 0]) + F.softplus(delta[:, 1:]).sum(1)).mean()
