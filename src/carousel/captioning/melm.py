"""The maximum-entropy language model: sentences from the words that a photo was seen to need."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.captioning.ngrams import NGrams, Tokens
from carousel.data.vocabulary import STOP


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


class MaxEntModel(nn.Module):
    """A maximum-entropy model of the next word, given the words before it and the concepts not yet said.

        Pr(w | h, V) = exp(s(w)) / Σ_v exp(s(v)),    s(w) = Σ_k λ_k f_k(w, h, V)

    V is the set of detected concepts that h does not say, h the words before. The features f_k are

        n-gram+     an n-gram, n = 1..N, ends in w, and w is in V
        n-gram-     the same, and w is not in V
        attribute   w is in V
        score       log p of w, where w is in V                     one weight a word here
        absence     log p of w, a concept neither detected nor said; one weight a word (ours; `absence`)
        end         w is the stop, and V is empty

    Fang et al. 2015, arXiv:1411.4952v3, section 4 and table 2. Notes: the weight of an n-gram+ is kept as that of the
    n-gram- and a difference, so that what is rare with a concept goes by the n-gram alone; the n-grams of `ngrams` have
    features, not all that there are.

    >>> from carousel.captioning.ngrams import tokens
    >>> said = tokens([[4, 5]], order=2)
    >>> model = MaxEntModel(NGrams.of(said, size=6, order=2))
    >>> seen = Evidence(torch.zeros(1, 6, dtype=torch.bool), torch.zeros(1, 6))
    >>> model.logits(said.before, Unsaid.begin(seen).rows(torch.tensor([0, 0, 0]))).shape
    torch.Size([3, 6])
    """

    def __init__(self, ngrams: NGrams, absence: bool = True) -> None:
        super().__init__()
        self.ngrams, self.absence = ngrams, absence
        self.weights = nn.Parameter(torch.zeros(ngrams.features, 2))  # of the n-gram, and the difference with w in V
        self.attribute = nn.Parameter(torch.zeros(()))
        self.score = nn.Parameter(torch.zeros(ngrams.size))
        self.absent = nn.Parameter(torch.zeros(ngrams.size), requires_grad=absence)
        self.end = nn.Parameter(torch.zeros(()))

    def logits(self, before: Tensor, unsaid: Unsaid) -> Tensor:
        """s(w) of every word, (R, V), after contexts (R, N-1)."""
        size = self.ngrams.size
        plain, more = self.weights[:size].unbind(1)
        extra = torch.where(unsaid.open, more + self._concepts(unsaid), self._absent(unsaid))
        row, word, feature = self.ngrams.after(before)
        weight = self.weights[feature]
        grams = weight[:, 0] + weight[:, 1] * unsaid.open[row, word]
        longer = torch.zeros(len(before) * size, dtype=plain.dtype).index_add(0, row * size + word, grams)
        ends = self.end * unsaid.empty[:, None] * F.one_hot(torch.tensor(STOP), size)
        return plain + extra + longer.view(-1, size) + ends

    def _concepts(self, unsaid: Unsaid) -> Tensor:
        return self.attribute + self.score * unsaid.score

    def _absent(self, unsaid: Unsaid) -> Tensor:
        return self.absent * unsaid.score * ~unsaid.said

    def scores(self, before: Tensor, words: Tensor, unsaid: Unsaid) -> Tensor:
        """s(w) of words (R, K) after contexts (R, N-1), and of no others; `unsaid` is of these words."""
        found = self.ngrams.find(before, words)  # (R, K, N)
        weight = self.weights[found.clamp(min=0)] * (found >= 0)[..., None]
        plain, more = weight.sum(2).unbind(-1)
        concepts = more + self.attribute + self.score[words] * unsaid.score
        absent = self.absent[words] * unsaid.score * ~unsaid.said
        ends = self.end * (unsaid.empty[:, None] & (words == STOP))
        return plain + torch.where(unsaid.open, concepts, absent) + ends


class Unsaid(NamedTuple):
    """Where some sentences stand with their photos: of every word, or of some of them (R, K)."""

    open: Tensor  # bool, detected and not yet said
    said: Tensor  # bool
    score: Tensor
    empty: Tensor  # (R,) bool, all that was detected is said

    @classmethod
    def begin(cls, seen: Evidence) -> Unsaid:
        """Before the first word."""
        return cls(seen.detected, torch.zeros_like(seen.detected), seen.score, ~seen.detected.any(1))

    def rows(self, which: Tensor) -> Unsaid:
        """Those of some sentences."""
        return Unsaid(*(field[which] for field in self))

    def say(self, words: Tensor) -> Unsaid:
        """After one more word (R,) of each."""
        said = self.said.scatter(1, words[:, None], True)
        left = self.open & ~said
        return Unsaid(left, said, self.score, ~left.any(1))


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
