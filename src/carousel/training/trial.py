"""One measured training run: as good as a network gets within so many seconds, or so many steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from carousel.errors import ConfigError
from carousel.training.averaging import WeightAverage
from carousel.training.memory import keep_freed_memory
from carousel.training.optimisers import optimiser_named
from carousel.training.schedule import SCHEDULES
from carousel.training.seeding import derived_seed


@dataclass(frozen=True)
class Budget:
    """How long to train: in seconds or in steps.

    >>> Budget(seconds=10.0).spent(seconds=5.0, steps=700), Budget(steps=700).spent(seconds=5.0, steps=700)
    (0.5, 1.0)
    """

    seconds: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.seconds, self.steps) if value is not None]
        if len(given) != 1 or not 0 < given[0] < math.inf:
            raise ConfigError(
                f"budget: one is needed (got seconds={self.seconds}, steps={self.steps}); time or steps, above 0; "
                "give one of the two"
            )

    def spent(self, seconds: float, steps: int) -> float:
        """The share of it, from 0 to 1."""
        share = steps / self.steps if self.steps is not None else seconds / (self.seconds or math.inf)
        return min(1.0, share)


class Point(NamedTuple):
    """Where a run stood: `share` of the budget, its steps and seconds, and the score on the validation data."""

    share: float
    step: int
    seconds: float
    score: float


@dataclass(frozen=True)
class Trial:
    """What came of a run."""

    curve: list[Point]
    steps: int
    seconds: float
    diverged: bool
    best: float


def run_trial(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    validate: Callable[[], float],
    budget: Budget,
    *,
    learning_rate: float,
    higher_is_better: bool = False,
    optimiser: str = "adam",
    schedule: str = "one-cycle",
    clip_norm: float = 1.0,
    average: float = 0.0,
    points: int = 20,
    seed: int = 0,
    watch: Callable[[float], None] = lambda share: None,
) -> Trial:
    """Train until the budget is spent and leave the weights that did best on the validation data in the model.

        while (share := budget.spent(seconds, step)) < 1:
            loss(step).backward(); clip; optimiser.step()       # the rate follows `schedule` of the share
            every 1/points of the budget: validate

    The clock runs while the model trains: compiling before the first step and validation are not counted. On one thread
    it is the processor's, so that other programs take no time away. A loss or a gradient that is not finite ends the
    run, as diverged. With a budget of steps the same seed gives the same bits; with one of seconds it cannot.

    Args:
        loss: of the training batch of that step, a function of the number alone.
        average: decay of the moving average of the weights, which is what is validated and kept, see `WeightAverage`; 0
            is the weights themselves.
        points: how many times to validate.
        watch: told the share that is done, now and then.
    """
    keep_freed_memory()
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    stepping, averaged = optimiser_named(optimiser, model.parameters(), lr=learning_rate), WeightAverage(model, average)
    best, kept = -math.inf, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    curve: list[Point] = []
    step, seconds, diverged = 0, 0.0, False

    def look() -> None:
        nonlocal best, kept
        with averaged.applied():
            curve.append(Point(budget.spent(seconds, step), step, seconds, validate()))
            worth = curve[-1].score if higher_is_better else -curve[-1].score
            if worth > best:
                best, kept = worth, {name: tensor.clone() for name, tensor in model.state_dict().items()}
        watch(curve[-1].share)

    with torch.random.fork_rng(devices=[]):
        model.train()
        torch.manual_seed(derived_seed(seed, "step", 0))
        loss(0).backward()  # type: ignore[no-untyped-call]  # compiles
        look()
        while (share := budget.spent(seconds, step)) < 1 and not diverged:
            began = clock()
            for group in stepping.param_groups:
                group["lr"] = learning_rate * SCHEDULES[schedule](share)
            torch.manual_seed(derived_seed(seed, "step", step))
            stepping.zero_grad()
            value = loss(step)
            value.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            diverged = not bool(torch.isfinite(value) & torch.isfinite(norm))
            if not diverged:
                stepping.step()
                averaged.update()
                step += 1
            seconds += clock() - began
            if budget.spent(seconds, step) * points >= math.floor(curve[-1].share * points + 1e-9) + 1:
                look()
    model.load_state_dict(kept)
    return Trial(curve, step, seconds, diverged, best if higher_is_better else -best)
