"""The adding problem: two of many numbers are marked, and their sum is asked for when the sequence has ended."""

from __future__ import annotations

from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.errors import ConfigError
from carousel.tasks.problem import Examples, Held, Tally, squared_errors
from carousel.training.seeding import generator

Variant = Literal["le-2015", "1997"]


def adding(size: int, length: int, generator: torch.Generator) -> Examples:
    """`size` sequences of the adding problem as Le et al. 2015 pose it.

    Each element is a number, uniform in [0, 1), and a mark, which is 1 at two random places and 0 elsewhere; the target
    is the sum of the two marked numbers. Always saying 1 has a squared error of 1/6.

    Le et al. 2015, arXiv:1504.00941v2, section 4.1.

    >>> inputs, targets, _ = adding(5, 20, torch.Generator().manual_seed(0))
    >>> torch.allclose((inputs[..., 0] * inputs[..., 1]).sum(0), targets)
    True
    """
    numbers = torch.rand(length, size, generator=generator)
    marked = torch.rand(length, size, generator=generator).topk(2, dim=0).indices
    marks = torch.zeros(length, size).scatter_(0, marked, 1.0)
    return Examples(torch.stack([numbers, marks], dim=-1), (numbers * marks).sum(0))


def adding_1997(size: int, length: int, generator: torch.Generator) -> Examples:
    """`size` sequences of the adding problem as it was first posed, of `length` to 1.1 `length` elements.

    Numbers are uniform in [-1, 1]. One of the first ten elements is marked, and one of the first length/2 - 1 others;
    the first and the last element have the mark -1 (where the first is one of the two, its number counts as 0). The
    target is 0.5 + (X_1 + X_2) / 4, and an error below 0.04 counts as right.

    Hochreiter and Schmidhuber 1997, Neural Computation 9(8), experiment 4.

    >>> inputs, targets, lengths = adding_1997(5, 20, torch.Generator().manual_seed(0))
    >>> marked = (inputs[..., 1] == 1) * inputs[..., 0]
    >>> torch.allclose(0.5 + marked.sum(0) / 4, targets)
    True
    """
    lengths = torch.randint(length, length + length // 10 + 1, (size,), generator=generator)
    T, all_of = int(lengths.max()), torch.arange(size)
    numbers = 2 * torch.rand(T, size, generator=generator) - 1
    first = torch.randint(10, (size,), generator=generator)
    second = torch.randint(length // 2 - 1, (size,), generator=generator)  # among those that are not marked yet
    second += (second >= first).long()
    marks = torch.zeros(T, size)
    marks[0], marks[lengths - 1, all_of] = -1.0, -1.0
    numbers[0] *= ((first != 0) & (second != 0)).float()
    marks[first, all_of] = marks[second, all_of] = 1.0
    targets = 0.5 + (numbers[first, all_of] + numbers[second, all_of]) / 4
    real = torch.arange(T)[:, None] < lengths
    return Examples(torch.stack([numbers, marks], dim=-1) * real[..., None], targets, lengths)


class Adding:
    """The adding problem as a `Problem`; new sequences at every step.

    Args:
        length: T.
        variant: "le-2015", see `adding`, or "1997", see `adding_1997`.
        batch_size: of training.

    >>> Adding(length=20).batch(seed=0, step=0).inputs.shape
    torch.Size([20, 32, 2])
    """

    name = "adding"
    input_size, output_size, every_step = 2, 1, False
    metric, higher_is_better = "squared error", False
    parameters = 20_000

    def __init__(self, length: int = 100, variant: Variant = "le-2015", batch_size: int = 32) -> None:
        if length < 20:
            raise ConfigError(f"length: too short (got {length}); 20 or more; the problem is to remember")
        if variant not in get_args(Variant):
            raise ConfigError(f"variant: unknown (got {variant!r}); {', '.join(get_args(Variant))}; choose one")
        self.length, self.variant, self.batch_size = length, variant, batch_size
        self.make = adding if variant == "le-2015" else adding_1997
        posed = "as Le et al. 2015 pose it" if variant == "le-2015" else "as posed in 1997"
        self.about = f"adding problem {posed}, T = {length}; squared error, less is better"
        self.held_out = cache(self._held_out)

    def batch(self, seed: int, step: int) -> Examples:
        return self.make(self.batch_size, self.length, generator("adding", seed, step))

    def _held_out(self, split: Held) -> list[Examples]:
        return [self.make(256, self.length, generator("adding", split, k)) for k in range(4 if split == "val" else 10)]

    def loss(self, outputs: Tensor, examples: Examples) -> Tensor:
        return F.mse_loss(outputs[:, 0], examples.targets)

    def measure(self, outputs: Tensor, examples: Examples) -> Tally:
        return squared_errors(outputs[:, 0], examples.targets)

    def baselines(self) -> dict[str, float]:
        mean = 1.0 if self.variant == "le-2015" else 0.5
        targets = torch.cat([examples.targets for examples in self.held_out("test")])
        return {"the mean": float((targets - mean).square().mean())}
