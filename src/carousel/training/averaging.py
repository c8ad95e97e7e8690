"""Averages of the weights, which generalise better than the weights that they average."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of a model's trained parameters.

        a_n = d_n a_{n-1} + (1 - d_n) w_n,    d_n = min(decay, (1 + n) / (10 + n))

    so that the first steps count little. Polyak and Juditsky 1992, SIAM J. Control Optim. 30(4), in the exponential
    form. With decay 0 it is the weights themselves.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> average = WeightAverage(layer, decay=0.5)
    >>> before = layer.weight.item()
    >>> _ = layer.weight.data.add_(1.0)
    >>> average.update()
    >>> round(average.tensors["weight"].item() - before, 4)  # d_1 = 2 / 11
    0.8182
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.tensors: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._trained.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they now are."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.decay else 0.0
        torch._foreach_lerp_(list(self.tensors.values()), list(self._trained.values()), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this block the model has the averaged weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self._trained.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.tensors[name])
            self.tensors[name] = kept


class TriggeredAverage(WeightAverage):
    """The mean of the weights since validation stopped to get better: NT-ASGD, where the optimiser is SGD.

        after the t-th validation, with score v, smaller being better:
            if T = 0 and t > n and v > min logs[0 ... t − n − 1]:  T ← k, the number of steps so far
            logs[t] ← v
        a = (w_T + ... + w_k) / (k − T + 1), and until then w_k

    Merity, Keskar and Socher 2018, ICLR (arXiv:1708.02182), algorithm 1.

    Args:
        model: whose trained parameters are averaged.
        patience: n, how many of the latest validations do not count when the best so far is asked for.

    Notes:
        arXiv:1708.02182v1 prints min over the last n scores, which the authors call a misprint
        (github.com/salesforce/awd-lstm-lm, issue 13); this is the condition of their program and of the ICLR text.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> average = TriggeredAverage(layer, patience=1)
    >>> average.observe([5.0, 4.0, 4.5]), average.observe([5.0, 4.0, 4.5, 4.6])
    (False, True)
    """

    def __init__(self, model: nn.Module, patience: int) -> None:
        super().__init__(model, 0.0)
        self.patience, self.triggered = patience, False

    def observe(self, scores: Sequence[float]) -> bool:
        """Whether averaging has begun, or begins now, after these validation scores, all so far; smaller is better."""
        if not self.triggered:
            n = self.patience
            self.triggered = any(t > n and v > min(scores[: t - n]) for t, v in enumerate(scores))
            self.updates = 1  # the weights as they are count
        return self.triggered

    @torch.no_grad()
    def update(self) -> None:
        self.updates = self.updates + 1 if self.triggered else 1
        torch._foreach_lerp_(list(self.tensors.values()), list(self._trained.values()), 1 / self.updates)
