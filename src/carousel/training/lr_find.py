"""Which learning rate to take, from a short run through all of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from carousel.errors import ConfigError, TrainingDiverged
from carousel.reports.curves import curves_png
from carousel.training.optimisers import optimiser_named
from carousel.training.seeding import derived_seed

WINDOW = 3  # steps on each side whose median smooths the loss: it lags behind nothing and heeds no outlier
DIVERGED = 4.0  # times the least smoothed loss ends the run


class RangeTest(NamedTuple):
    """The loss as the learning rate rose."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float

    def png(self) -> bytes:
        """The loss over the rate, and what is suggested."""
        at = min(range(len(self.rates)), key=lambda k: abs(math.log(self.rates[k] / self.suggestion)))
        top = max(self.smoothed)  # losses that went through the roof would flatten all else
        return curves_png(
            {
                "loss": [[(r, min(top, v)) for r, v in zip(self.rates, self.losses, strict=True)]],
                "smoothed": [list(zip(self.rates, self.smoothed, strict=True))],
                f"suggested: {self.suggestion:.2g}": [[(self.rates[at], min(self.smoothed)), (self.rates[at], top)]],
            },
            title="Learning rate range test",
            x="learning rate",
            y="loss",
            log_x=True,
        )


def lr_find(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    *,
    optimiser: str = "adamw",
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 100,
    clip: float | None = None,
    groups: Sequence[Mapping[str, Any]] | None = None,
    seed: int = 0,
) -> RangeTest:
    """Train a little while the learning rate rises from step to step, and leave the model as it was.

        for k in range(steps):
            rate = lowest (highest / lowest)^(k / (steps − 1))
            loss(k).backward(); optimiser.step()
            until the smoothed loss is four times the least so far

    Smith 2017, arXiv:1506.01186v6, section 3.3, the "LR range test".

    Args:
        loss: of the training batch of that step.
        groups: parameter groups with rates, as an optimiser takes them: the first has the rate that rises, the others
            keep their proportion to it. By default one of all trained parameters.
        clip: cut the norm of the gradient to this, as the training to come will.

    Notes:
        The paper's rate rises in a line, over epochs, and a person reads the accuracy's curve; here it rises by a
        factor, over some steps, and a tenth of the rate at which the smoothed loss is least is suggested: a rule of
        thumb.

    Raises:
        ConfigError: the range or the number of steps is none.
        TrainingDiverged: the loss was never finite.

    >>> layer = nn.Linear(1, 1)
    >>> found = lr_find(layer, lambda step: (layer(torch.ones(8, 1)) - 5).square().mean(), optimiser="sgd")
    >>> 0.001 < found.suggestion < 0.5
    True
    """
    if not 0 < lowest < highest or steps < 3:
        raise ConfigError(
            f"lr_find: no range (got {lowest} to {highest} in {steps} steps); 0 < lowest < highest, 3 steps or more; "
            "leave them out"
        )
    trained = [p for p in model.parameters() if p.requires_grad]
    chosen = optimiser_named(optimiser, [dict(group) for group in groups or [{"params": trained, "lr": 1.0}]])
    shares = [group["lr"] / chosen.param_groups[0]["lr"] for group in chosen.param_groups]
    rates, losses = list[float](), list[float]()
    with _left_as_it_was(model):
        for k in range(steps):
            rate = lowest * (highest / lowest) ** (k / (steps - 1))
            for group, share in zip(chosen.param_groups, shares, strict=True):
                group["lr"] = rate * share
            torch.manual_seed(derived_seed(seed, "lr-find", k))
            chosen.zero_grad()
            value = loss(k)
            if not math.isfinite(value.item()):
                break
            rates.append(rate)
            losses.append(value.item())
            smoothed = _medians(losses)
            if smoothed[-1] > DIVERGED * min(smoothed) > 0:
                break
            value.backward()  # type: ignore[no-untyped-call]
            if clip is not None:
                nn.utils.clip_grad_norm_(trained, clip)
            chosen.step()
    if not rates:
        raise TrainingDiverged("lr_find: the first loss is not finite; no learning rate mends that; look at the data")
    smoothed = _medians(losses)
    best = min(range(len(rates)), key=smoothed.__getitem__)
    return RangeTest(rates, losses, smoothed, rates[best] / 10)


@contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Training mode within; afterwards the model and the random numbers are what they were before."""
    kept, training = {name: tensor.clone() for name, tensor in model.state_dict().items()}, model.training
    try:
        with torch.random.fork_rng(devices=[]):
            model.train()
            yield
    finally:
        model.load_state_dict(kept)
        model.train(training)
        model.zero_grad()


def _medians(losses: list[float]) -> list[float]:
    return [statistics.median(losses[max(0, k - WINDOW) : k + WINDOW + 1]) for k in range(len(losses))]
