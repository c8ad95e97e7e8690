"""The training loop: steps, validation, averaging, early stop, checkpoints, and going on after an interruption."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from carousel.errors import ConfigError, Interrupted, ModelFileError, TrainingDiverged
from carousel.training.averaging import TriggeredAverage, WeightAverage
from carousel.training.clipping import clipping_named, total_norm
from carousel.training.memory import keep_freed_memory
from carousel.training.model_file import read_model_file, write_model_file
from carousel.training.optimisers import optimiser_named
from carousel.training.precision import MixedPrecision, autocast, recurrences_compiled
from carousel.training.run_folder import RunFolder
from carousel.training.schedule import schedule_named
from carousel.training.seeding import derived_seed

SAVE_EVERY = 300.0  # seconds between checkpoints inside an epoch
CHECKPOINT = "checkpoint"


class Loss(NamedTuple):
    """The mean loss of a step, with its gradient, and what is reported of it: a sum over `words` scored words."""

    mean: Tensor
    total: float
    words: int


class Trainable(Protocol):
    """What the loop asks of a task."""

    @property
    def model(self) -> nn.Module:
        """All that a checkpoint must keep."""

    @property
    def steps(self) -> int:
        """Batches in an epoch."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters to train with their learning rates, as an optimiser takes them."""

    def loss(self, epoch: int, step: int) -> Loss:
        """The loss of one batch, which is a function of the two numbers."""

    def validate(self) -> dict[str, float]:
        """Scores on the validation data; the greatest `objective` wins."""

    def save(self, scores: Mapping[str, float]) -> None:
        """Write the model as it now is: it is the best so far."""


@runtime_checkable
class Carrying(Protocol):
    """A task whose steps depend on those before them, by a state that flows from batch to batch (see `BPTT`)."""

    def carried(self) -> dict[str, Tensor]:
        """What the next step goes on from; kept in the checkpoint."""

    def carry(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `carried` gave."""


@runtime_checkable
class Naming(Protocol):
    """A task that can say what is in a batch."""

    def batch_name(self, epoch: int, step: int) -> str:
        """The examples, for a message."""


@dataclass(frozen=True)
class Plan:
    """How to train: names are of `OPTIMISERS`, `SCHEDULES` and `CLIPPINGS`."""

    epochs: int
    objective: str
    optimiser: str = "adamw"
    optimiser_options: Mapping[str, Any] = field(default_factory=dict)  # momentum, betas, ...
    schedule: str = "one-cycle"
    weight_decay: float = 0.0
    clipping: str = "norm"
    clip_norm: float = 5.0  # the limit, whatever is clipped
    averaging: float = 0.0
    average_after: int = 0  # NT-ASGD: average since the objective is worse than all but the last so many; 0: never
    patience: int = 5
    mixed_precision: MixedPrecision = "auto"
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)  # every setting; the same to resume
    data: Mapping[str, Any] = field(default_factory=dict)  # what names the data; the same to resume


class Progress(NamedTuple):
    """What is known after a step; times in seconds."""

    epoch: int
    step: int
    steps: int
    epochs: int
    loss: float  # mean of the epoch so far
    rate: float  # scored words a second, since this process began
    left: float  # until the last epoch ends, if no early stop


class Watcher(Protocol):
    """Who is told how it goes."""

    def stepped(self, progress: Progress) -> None: ...

    def validated(self, record: Mapping[str, float], best: bool) -> None: ...


@dataclass
class _Standing:
    """Where training stands; with the tensors, all that a checkpoint holds."""

    epoch: int = 0
    step: int = 0
    total: float = 0.0
    count: int = 0
    clipped: float = 0
    seconds: float = 0.0
    best: float = -math.inf
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def fit(
    task: Trainable, plan: Plan, run: RunFolder, watcher: Watcher, *, resume: bool = False
) -> list[dict[str, float]]:
    """Train until the plan's epochs are over or `patience` epochs brought no better objective; return the log.

        for epoch in range(epochs):
            for step in range(steps):
                loss(epoch, step).backward(); clip; optimiser.step(); average.update()
            with average.applied():
                scores = validate()
                if scores[objective] > best: save()

    Everything random in a step follows (seed, epoch, step), so that a run killed at any moment and resumed from its
    last checkpoint gives the same bits as one left alone (same machine, same number of threads). Ctrl-C and SIGTERM
    finish the step, write a checkpoint and raise `Interrupted`. A loss or gradient that is not finite raises
    `TrainingDiverged` before the optimiser step. A task that carries a state from step to step is `Carrying`. The log's
    `clipped` is how often clipping acted: the share of steps, and of each what the clipping says of itself.
    """
    keep_freed_memory()
    return _Fit(task, plan, run, watcher).go(resume)


class _Fit:
    def __init__(self, task: Trainable, plan: Plan, run: RunFolder, watcher: Watcher) -> None:
        self.task, self.plan, self.run, self.watcher = task, plan, run, watcher
        groups = task.parameter_groups()
        self.rates = [group["lr"] for group in groups]
        decay = {"weight_decay": plan.weight_decay} if plan.weight_decay or plan.optimiser == "adamw" else {}
        self.optimiser = optimiser_named(plan.optimiser, groups, **decay, **plan.optimiser_options)
        self.clip, self.schedule = clipping_named(plan.clipping), schedule_named(plan.schedule)
        self.average = (
            TriggeredAverage(task.model, plan.average_after)
            if plan.average_after
            else WeightAverage(task.model, plan.averaging)
        )
        self.trained = {name: p for name, p in task.model.named_parameters() if p.requires_grad}
        self.begun_with = {**plan.settings, **plan.data}
        self.at = _Standing()

    def go(self, resume: bool) -> list[dict[str, float]]:
        self.run.begin(self.plan.settings, resume=resume)
        if resume:
            self.load()
        else:
            self.save()
        self.task.model.train()
        as_planned = recurrences_compiled(self.task.model, self.plan.mixed_precision)
        with as_planned, torch.random.fork_rng(devices=[]), _stop_requested() as stop:
            self.started, self.seen, self.saved = time.monotonic(), 0, time.monotonic()
            self.steps_done = 0
            while self.at.epoch < self.plan.epochs and not self.out_of_patience():
                while self.at.step < self.task.steps:
                    self.step()
                    if stop.is_set():
                        self.interrupt()
                    if time.monotonic() - self.saved > SAVE_EVERY:
                        self.save()
                self.end_epoch()
                if stop.is_set() and self.at.epoch < self.plan.epochs:
                    self.interrupt()
        return self.at.history

    def step(self) -> None:
        at, plan = self.at, self.plan
        began = time.monotonic()
        done = (at.epoch * self.task.steps + at.step) / (plan.epochs * self.task.steps)
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.schedule(done)
        torch.manual_seed(derived_seed(plan.seed, "step", at.epoch, at.step))
        with autocast(plan.mixed_precision):
            loss = self.task.loss(at.epoch, at.step)
        self.check(loss.mean, "loss")
        self.optimiser.zero_grad()
        loss.mean.backward()  # type: ignore[no-untyped-call]
        groups = [group["params"] for group in self.optimiser.param_groups]
        norm = total_norm(groups)
        self.check(norm, "gradient")
        at.clipped += self.clip(groups, norm, plan.clip_norm)
        self.optimiser.step()
        self.average.update()
        at.step += 1
        at.total, at.count = at.total + loss.total, at.count + loss.words
        at.seconds += time.monotonic() - began
        self.seen, self.steps_done = self.seen + loss.words, self.steps_done + 1
        self.tell()

    def tell(self) -> None:
        at, plan, steps = self.at, self.plan, self.task.steps
        elapsed = time.monotonic() - self.started
        left = (plan.epochs - at.epoch) * steps - at.step
        self.watcher.stepped(
            Progress(
                at.epoch + 1,
                at.step,
                steps,
                plan.epochs,
                at.total / at.count,
                self.seen / elapsed,
                left * elapsed / self.steps_done,
            )
        )

    def check(self, value: Tensor, what: str) -> None:
        """Stop before the optimiser step where `value` is not finite."""
        if bool(torch.isfinite(value)):
            return
        bad = next((n for n, p in self.trained.items() if p.grad is not None and not p.grad.isfinite().all()), "none")
        raise TrainingDiverged(
            f"{self.run.path}: the {what} is not finite (got {value.item()} in epoch {self.at.epoch + 1}, step "
            f"{self.at.step + 1}; first bad gradient: {bad}){self.batch()}; training stopped before the update, the "
            "last checkpoint stands; try a smaller learning_rate or clip_norm"
        )

    def batch(self) -> str:
        named = isinstance(self.task, Naming)
        return f" on {self.task.batch_name(self.at.epoch, self.at.step)}" if named else ""  # type: ignore[attr-defined]

    def end_epoch(self) -> None:
        at, plan = self.at, self.plan
        began = time.monotonic()
        with self.average.applied(), torch.no_grad():
            self.task.model.eval()
            scores = self.task.validate()
            best = scores[plan.objective] > at.best
            if best:
                at.best, at.best_epoch = scores[plan.objective], at.epoch + 1
                self.task.save(scores)
        self.task.model.train()
        at.seconds += time.monotonic() - began
        record = {
            "epoch": at.epoch + 1,
            "loss": at.total / at.count,
            "clipped": at.clipped / self.task.steps,
            **scores,
            "seconds": round(at.seconds, 1),
        }
        at.history.append(record)
        self.observe()
        at.epoch, at.step, at.total, at.count, at.clipped = at.epoch + 1, 0, 0.0, 0, 0
        self.run.write_log(at.history)
        self.save()
        self.watcher.validated(record, best)

    def observe(self) -> None:
        """Tell an average that waits for it how validation went."""
        if isinstance(self.average, TriggeredAverage):
            self.average.observe([-record[self.plan.objective] for record in self.at.history])

    def out_of_patience(self) -> bool:
        return self.at.best_epoch > 0 and self.at.epoch - self.at.best_epoch >= self.plan.patience

    def interrupt(self) -> None:
        self.save()
        raise Interrupted(
            f"{self.run.path}: stopped in epoch {self.at.epoch + 1} after step {self.at.step}; everything is saved; "
            "the same command with --resume goes on"
        )

    def save(self) -> None:
        tensors = {f"model.{name}": tensor for name, tensor in self.task.model.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.tensors.items()}
        for i, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{name}": t for name, t in state.items() if isinstance(t, Tensor)}
        if isinstance(self.task, Carrying):
            tensors |= {f"carried.{name}": tensor for name, tensor in self.task.carried().items()}
        at = {**vars(self.at), "best": None if self.at.best == -math.inf else self.at.best}
        facts = {"task": CHECKPOINT, "at": at, "updates": self.average.updates, "begun_with": self.begun_with}
        shared_once = {name: tensor.clone() for name, tensor in tensors.items()}
        write_model_file(self.run.checkpoint, shared_once, facts)
        self.saved = time.monotonic()

    def load(self) -> None:
        tensors, facts = read_model_file(self.run.checkpoint, CHECKPOINT)
        now, then = self.begun_with, facts["begun_with"]
        changed = [name for name in {**now, **then} if now.get(name) != then.get(name)]
        if changed:
            name = min(changed)
            raise ConfigError(
                f"{self.run.path}: {name} is not what the run began with (got {now.get(name)!r}, then "
                f"{then.get(name)!r}); the same settings; repeat the first command with --resume"
            )
        try:
            self.task.model.load_state_dict(_under("model", tensors))
        except RuntimeError as error:
            raise ModelFileError(
                f"{self.run.checkpoint}: does not fit the model (got{str(error).splitlines()[1]}); the data that the "
                "run began with; restore it, or begin another run"
            ) from None
        averages = _under("average", tensors)
        self.average.tensors = {name: averages[name] for name in self.trained}
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimiser", tensors).items():
            i, field_name = name.split(".", 1)
            states.setdefault(int(i), {})[field_name] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": states})
        at = facts["at"]
        self.at = _Standing(**{**at, "best": -math.inf if at["best"] is None else at["best"]})
        self.observe()
        self.average.updates = facts["updates"]
        if isinstance(self.task, Carrying):
            self.task.carry(_under("carried", tensors))


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix + "."): t for name, t in tensors.items() if name.startswith(prefix + ".")}


@contextmanager
def _stop_requested(numbers: Sequence[int] = (signal.SIGINT, signal.SIGTERM)) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the second acts as it always does."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def note(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[number])

    for number in numbers:
        before[number] = signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
