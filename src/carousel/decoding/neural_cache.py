"""What was read lately is likelier again: a cache of outputs and of the words that followed them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FLATNESS = (0.05, 0.1, 0.2, 0.3, 0.5)  # θ
SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)  # λ
CHUNK = 512


class NeuralCache(NamedTuple):
    """A mixture of a language model with what its latest outputs remember.

        p_cache(w | h_1 .. h_t) ∝ Σ_{i = t − size}^{t − 1} 1[w = x_{i+1}] exp(θ h_t · h_i)
        p = (1 − λ) p_model + λ p_cache

    Nothing is trained; θ and λ are chosen on validation text by `chosen`.

    Grave, Joulin and Usunier 2017, ICLR (arXiv:1612.04426), section 3.

    >>> outputs, words = torch.eye(2)[[0, 1, 0, 1]] * 9, torch.tensor([5, 6, 5, 6])
    >>> NeuralCache(size=3, flatness=1.0, share=0.5).surprise(torch.ones(4), outputs, words).round(decimals=2)
    tensor([1.0000, 1.6900, 0.3800, 0.3800])
    """

    size: int
    flatness: float  # θ
    share: float  # λ

    def remembered(self, outputs: Tensor, words: Tensor) -> Tensor:
        """p_cache of each word (N,), given outputs (N, W) of which the t-th predicts the t-th word."""
        found = torch.zeros(len(words))
        for start in range(0, len(words), CHUNK):
            end, first = min(start + CHUNK, len(words)), max(0, start - self.size)
            ages = torch.arange(start, end)[:, None] - torch.arange(first, end)
            alike = self.flatness * outputs[start:end] @ outputs[first:end].t()
            weights = alike.masked_fill((ages <= 0) | (ages > self.size), -torch.inf).softmax(1).nan_to_num(0.0)
            found[start:end] = (weights * (words[start:end, None] == words[first:end])).sum(1)
        return found

    def surprise(self, surprise: Tensor, outputs: Tensor, words: Tensor) -> Tensor:
        """−ln p of each word (N,), given that of the model alone; of the first, which nothing precedes, as it is."""
        return self._mixed(surprise, self.remembered(outputs, words))

    def _mixed(self, surprise: Tensor, remembered: Tensor) -> Tensor:
        mixed = -((1 - self.share) * (-surprise.double()).exp() + self.share * remembered.double()).log()
        mixed[:1] = surprise[:1].double()
        return mixed.to(surprise.dtype)

    @classmethod
    def chosen(cls, size: int, surprise: Tensor, outputs: Tensor, words: Tensor) -> NeuralCache:
        """The θ and λ of a grid with the least mean surprise on some text."""
        tried = []
        for flatness in FLATNESS:
            remembered = cls(size, flatness, 0.0).remembered(outputs, words)
            caches = [cls(size, flatness, share) for share in SHARES]
            tried += [(float(cache._mixed(surprise, remembered).mean()), cache) for cache in caches]
        return min(tried)[1]
