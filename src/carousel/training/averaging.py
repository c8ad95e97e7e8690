"""A running average of the weights, which generalises better than the weights it averages."""

from __future__ import annotations

from collections.abc import Iterator
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
