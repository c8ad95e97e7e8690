"""Gers and Schmidhuber 2000, Recurrent nets that time and count; Gers, Schraudolph and Schmidhuber 2002, JMLR 3."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.reading_list.experiment import Condition, Experiment, Outcome, learn, network
from carousel.training.seeding import generator

PAPER = "Gers and Schmidhuber 2000, IJCNN; Gers et al. 2002, JMLR 3, 115-143"
BATCH, TRAINED, ASKED = 16, 10, 1000


def spikes(period: int, count: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Delays I(n), 0 or 1, and the steps T(n) = T(n-1) + F + I(n) of spikes: (count, B) each.

    >>> delays, times = spikes(10, 3, 2, torch.Generator().manual_seed(0))
    >>> torch.equal(times.diff(dim=0), 10 + delays[1:])
    True
    """
    delays = torch.randint(2, (count, size), generator=generator)
    return delays, (period + delays).cumsum(0)


def measuring(period: int, count: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Measure spike delays: the input is a train of spikes, and at each I(n) is asked for; (T, B, 1), (T, B), (T, "
    "B)."""
    delays, times = spikes(period, count, size, generator)
    inputs = torch.zeros(int(times.max()) + 1, size)
    targets = inputs.clone()
    inputs.scatter_(0, times, 1.0)
    targets.scatter_(0, times, delays.float())
    return inputs[..., None], targets, inputs > 0


def generating(period: int, count: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Generate timed spikes: I(n) is the input at the step of the spike before, and the spike at T(n) is asked for."""
    delays, times = spikes(period, count, size, generator)
    targets = torch.zeros(int(times.max()) + 1, size)
    inputs = targets.clone()
    inputs.scatter_(0, torch.cat([torch.zeros_like(times[:1]), times[:-1]]), delays.float())
    targets.scatter_(0, times, 1.0)
    return inputs[..., None], targets, torch.arange(len(targets))[:, None] <= times[-1]


def cosine(period: int, steps: int) -> Tensor:
    return (1 - torch.cos(2 * math.pi * torch.arange(steps) / period)) / 2


def triangle(period: int, steps: int) -> Tensor:
    return (1 - 2 * (torch.arange(steps) % period) / period).abs()


def rectangle(period: int, steps: int) -> Tensor:
    return (torch.arange(steps) % period > period / 2).float()


def spike_task(
    make: Callable[[int, int, int, torch.Generator], tuple[Tensor, Tensor, Tensor]],
    period: int,
    cell: str,
    seed: int,
    limit: int | None = None,
) -> Outcome:
    model = network(seed, cell, 1, 4, 1)
    test = make(period, ASKED, 1, generator("spikes", "test"))

    def loss(step: int) -> Tensor:
        inputs, targets, asked = make(period, TRAINED, BATCH, generator("spikes", seed, step))
        return F.mse_loss(model(inputs)[..., 0][asked], targets[asked])

    def right() -> tuple[bool, float]:
        inputs, targets, asked = test
        error = float((model(inputs)[..., 0] - targets)[asked].abs().max())
        return error < 0.49, error

    return learn(model, loss, right, batch=BATCH, limit=limit or 160_000, every=250, learning_rate=0.01)


def periodic(
    function: Callable[[int, int], Tensor], period: int, cell: str, seed: int, limit: int | None = None
) -> Outcome:
    model = network(seed, cell, 1, 4, 1)
    wanted = function(period, ASKED * period)
    nothing = torch.zeros(len(wanted), 1, 1)

    def loss(step: int) -> Tensor:
        steps = TRAINED * period
        return F.mse_loss(model(nothing[:steps])[:, 0, 0], wanted[:steps])

    said = wanted

    def right() -> tuple[bool, float]:
        nonlocal said
        said = model(nothing)[:, 0, 0]
        error = float((said - wanted).abs().max())
        return error < 0.3, error

    outcome = learn(model, loss, right, batch=1, limit=limit or 10_000, every=250, learning_rate=0.01)
    end = [(float(k - 3 * period), float(value)) for k, value in enumerate(said[-3 * period :])]
    return replace(outcome, drawn=end)


def timed(task: str, trial: Callable[..., Outcome], paper: str, paper_without: str) -> list[Condition]:
    """A condition with peepholes and one without; `trial` is of the cell."""
    return [
        Condition(f"{task}, peepholes", paper, partial(trial, "lstm-peephole")),
        Condition(f"{task}, no peepholes", paper_without, partial(trial, "lstm")),
    ]


SOLVED = f"Solved: the absolute error stays below {{}} for {ASKED} {{}}, after training on {TRAINED} at a time. "
HOW = "4 cells, a linear output, Adam; the paper had 1 or 2 cells and trained after every step."
PERIODS = (10, 20, 50)
EXPERIMENTS = [
    Experiment(
        name="spike-delays",
        paper=PAPER,
        about=(
            "Measure spike delays: the input is a train of spikes, F + I(n) steps apart, I(n) 0 or 1, and at each of "
            f"them I(n) is asked for. {SOLVED.format(0.49, 'spikes')}{HOW} Batches of {BATCH} streams."
        ),
        score="greatest error",
        conditions=[
            one for F_ in PERIODS for one in timed(f"F = {F_}", partial(spike_task, measuring, F_), "solved", "solved")
        ],
    ),
    Experiment(
        name="timed-spikes",
        paper=PAPER,
        about=(
            "Generate timed spikes: I(n), 0 or 1, is the input at the step of each spike, 0 is at all others, and the "
            f"next spike is to come F + I(n) steps later. {SOLVED.format(0.49, 'spikes')}{HOW} Batches of {BATCH} "
            "streams."
        ),
        score="greatest error",
        conditions=[
            one
            for F_ in PERIODS
            for one in timed(f"F = {F_}", partial(spike_task, generating, F_), "solved", "not solved")
        ],
    ),
    Experiment(
        name="periodic-functions",
        paper=PAPER,
        about=(
            "Periodic function generation, without any input: (1 − cos(2πt/F))/2, a triangle and a rectangle of "
            f"period F. {SOLVED.format(0.3, 'periods')}{HOW} Each update is one run from the zero state."
        ),
        score="greatest error",
        sequences="updates",
        conditions=[
            *timed("cosine, F = 10", partial(periodic, cosine, 10), "solved", "solved, slowly"),
            *timed("cosine, F = 25", partial(periodic, cosine, 25), "solved", "not solved"),
            *timed("triangle, F = 10", partial(periodic, triangle, 10), "solved", "not solved"),
            *timed("rectangle, F = 10", partial(periodic, rectangle, 10), "solved", "not solved"),
        ],
        draw=("steps before the end", "output, the mean and extremes over seeds"),
    ),
]
