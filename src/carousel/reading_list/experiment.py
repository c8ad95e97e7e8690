"""An experiment of a paper: conditions, each tried with several seeds, and what the paper says of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from carousel.cells.cell import Affine
from carousel.nn import Recurrent
from carousel.tasks.problem import Problem, score
from carousel.training.memory import keep_freed_memory
from carousel.training.seeding import derived_seed
from carousel.training.trial import Budget, run_trial

Points: TypeAlias = list[tuple[float, float]]
Trial: TypeAlias = "Callable[..., Outcome]"  # of a seed, a limit of sequences and, where it reads some, data=PATH


@dataclass(frozen=True)
class Outcome:
    """What came of one trial: whether the paper's criterion was met, after how many sequences, and the last score."""

    solved: bool
    sequences: int
    seconds: float
    score: float
    curve: Points  # the score by sequences
    drawn: Points = field(default_factory=list)  # what to draw instead, such as the norms of states


@dataclass(frozen=True)
class Condition:
    """A row of the table: what is tried, and what the paper found, in words; empty where no figure could be checked.

    Args:
        point: a name and an x, for a figure of success over x: the curve to which this condition's share of solved
            trials belongs, and where on it.
    """

    name: str
    paper: str
    trial: Trial
    trials: int = 10
    point: tuple[str, float] | None = None


@dataclass(frozen=True)
class Experiment:
    """What one section of a paper tries.

    Args:
        score: what `Outcome.score` is.
        sequences: what is counted: "sequences" or, of streams, "symbols".
        draw: the axes of the figure, (x, y), where that is of `Outcome.drawn` or of `Condition.point`; else it is the
            share of solved trials by sequences.
        log_x: whether the figure's x is logarithmic.
        data: what is to be read, in words, where the path has to be given.
        digits: of the score, in the table.
        remarks: what else is to be said, given the outcomes by condition and seed; as Markdown.
    """

    name: str
    paper: str
    about: str  # the task, when a trial counts as solved, and where we deviate from the paper
    score: str
    conditions: Sequence[Condition]
    sequences: str = "sequences"
    draw: tuple[str, str] | None = None
    log_x: bool = False
    data: str | None = None
    digits: int = 3
    remarks: Callable[[Mapping[str, Mapping[int, Outcome]]], str] = lambda outcomes: ""


class Network(nn.Module):
    """A recurrent layer with a linear readout of each step, or of one step for each sequence.

    Args:
        shortcut: the readout sees the inputs too, as where "each layer receives connections from all layers below".

    >>> network = Network("lstm", 3, 4, 2)
    >>> network(torch.zeros(5, 1, 3)).shape, network(torch.zeros(5, 1, 3), torch.tensor([4])).shape
    (torch.Size([5, 1, 2]), torch.Size([1, 2]))
    """

    def __init__(self, cell: str, inputs: int, hidden: int, outputs: int, *, shortcut: bool = False, **options: Any):
        super().__init__()
        self.recurrent, self.shortcut = Recurrent(cell, inputs, hidden, **options), shortcut
        self.readout = nn.Linear(hidden + inputs * shortcut, outputs)

    def forward(self, inputs: Tensor, ends: Tensor | None = None) -> Tensor:
        """Padding after a sequence's end is computed and not read: cheaper than packing where lengths differ little."""
        return self.read(inputs, self.recurrent(inputs)[0], ends)

    def read(self, inputs: Tensor, outputs: Tensor, ends: Tensor | None = None) -> Tensor:
        seen = torch.cat([outputs, inputs], dim=-1) if self.shortcut else outputs
        if ends is not None:
            seen = seen[ends, torch.arange(len(ends))]
        said: Tensor = self.readout(seen)
        return said


@contextmanager
def first_weights(seed: int) -> Iterator[None]:
    """What is drawn within this block follows from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "weights"))
        yield


def network(seed: int, *arguments: Any, **options: Any) -> Network:
    """A `Network` whose first weights follow from the seed alone."""
    with first_weights(seed):
        return Network(*arguments, **options)


def hold(model: Network, input_bias: float, forget_bias: float) -> Network:
    """Set the gates to hold what is in memory, against its drift: section 4 of Hochreiter and Schmidhuber 1997."""
    for cell in model.recurrent.cells:
        for gate, bias in ((cell.input, input_bias), (cell.forget, forget_bias)):
            assert isinstance(gate, Affine) and gate.b is not None
            nn.init.constant_(gate.b, bias)
    return model


def learn(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    test: Callable[[], tuple[bool, float]],
    *,
    batch: int,
    limit: int,
    every: int,
    learning_rate: float,
    clip: float = 1.0,
    decay: bool = False,
    slower: Callable[[], float] = lambda: 1.0,
    optimiser: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    penalty: Callable[[], Tensor] | None = None,
) -> Outcome:
    """Train until the criterion is met, or for `limit` sequences, or until a gradient is not finite.

        for step in count():
            loss(step).backward(); penalty().backward(); clip; optimiser.step()
            every `every` steps: solved, score = test()

    Seconds are of training and tests, without compiling; on one thread of the processor's own.

    Args:
        batch: sequences a step, by which they are counted.
        clip: the greatest norm of all gradients; `math.inf` for any.
        decay: let the learning rate fall to 0 along a line.
        slower: what else multiplies it, asked before each step.
        penalty: what else to make smaller, of what the loss's backward pass left, as `omega` is.
    """
    keep_freed_memory()
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    parameters = list(model.parameters())
    descent = optimiser(parameters, lr=learning_rate)
    loss(0).backward()  # type: ignore[no-untyped-call]  # compiles
    began, curve, solved = clock(), [], False
    steps = max(1, limit // batch)
    for step in range(steps):
        descent.param_groups[0]["lr"] = learning_rate * slower() * (1 - step / steps if decay else 1.0)
        descent.zero_grad()
        loss(step).backward()  # type: ignore[no-untyped-call]
        if penalty is not None:
            penalty().backward()  # type: ignore[no-untyped-call]
        finite = bool(nn.utils.clip_grad_norm_(parameters, clip).isfinite())
        if finite:
            descent.step()
        if (step + 1) % every == 0 or step + 1 == steps or not finite:
            with torch.no_grad():
                solved, score = test()
            curve.append((float((step + 1) * batch), score))
            if solved or not finite:
                break
    return Outcome(solved, int(curve[-1][0]), clock() - began, curve[-1][1], curve)


def judged(
    model: nn.Module, problem: Problem, seed: int, limit: int, *, batch: int, wanted: float, **options: Any
) -> Outcome:
    """Train on `limit` sequences, keep the weights that did best on the validation data, and test these once.

    Solved: the test score is as good as `wanted`, or better. Seconds are of training alone.

    Args:
        batch: sequences in each of the problem's batches.
        options: of `run_trial`.
    """

    def loss(step: int) -> Tensor:
        examples = problem.batch(seed, step)
        return problem.loss(model(examples), examples)

    trial = run_trial(
        model,
        loss,
        partial(score, model, problem, "val"),
        Budget(steps=max(1, limit // batch)),
        higher_is_better=problem.higher_is_better,
        seed=seed,
        **options,
    )
    test = score(model, problem, "test")
    solved = test >= wanted if problem.higher_is_better else test <= wanted
    curve = [(float(point.step * batch), point.score) for point in trial.curve]
    return Outcome(solved, trial.steps * batch, trial.seconds, test, curve, drawn=curve[1:])
