"""A task that trains in milliseconds: a small network with dropout, whose parameters' names are in no order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.training import Loss, Plan, Progress, RunFolder, epoch_order, fit, read_model_file, write_model_file

EXAMPLES, BATCH = 20, 5
PRELOADED = ["carousel.training", "carousel.nn", "torch._dynamo"]  # what children would import, each anew


class Network(nn.Module):
    """Two layers of one shape, so that a mix-up of the two is no shape error; the first is last by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.zeroth = nn.Linear(4, 4)
        self.first = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)  # buffers must be kept too
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.dropout(torch.tanh(self.norm(self.zeroth(x))), 0.3, self.training)
        output: Tensor = self.first(hidden) * self.frozen
        return output


class Toy:
    """Learn to reverse vectors; `poison` may spoil the loss of (epoch, step), `objectives` replaces what is found."""

    steps = EXAMPLES // BATCH

    def __init__(
        self,
        run: RunFolder,
        seed: int = 0,
        poison: Callable[[int, int, Tensor, nn.Parameter], Tensor] | None = None,
        objectives: Sequence[float] = (),
        rate: float = 0.05,
    ) -> None:
        self.run, self.seed, self.poison, self.objectives, self.rate = run, seed, poison, list(objectives), rate
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model: Network = Network()
            self.x = torch.randn(EXAMPLES, 4)
        self.saved: list[Mapping[str, float]] = []
        self.modes: set[bool] = set()

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {"params": list(self.model.first.parameters()), "lr": self.rate},
            {"params": [*self.model.zeroth.parameters(), *self.model.norm.parameters()], "lr": self.rate / 2},
        ]

    def loss(self, epoch: int, step: int) -> Loss:
        self.modes.add(self.model.training)
        x = self.x[epoch_order(EXAMPLES, self.seed, epoch)[step * BATCH : (step + 1) * BATCH]]
        mean = F.mse_loss(self.model(x), x.flip(1))
        if self.poison is not None:
            mean = self.poison(epoch, step, mean, self.model.first.bias)
        return Loss(mean, mean.item() * BATCH, BATCH)

    def validate(self) -> dict[str, float]:
        assert not self.model.training and not torch.is_grad_enabled()
        error = F.mse_loss(self.model(self.x), self.x.flip(1)).item()
        return {"error": error, "objective": self.objectives.pop(0) if self.objectives else -error}

    def save(self, scores: Mapping[str, float]) -> None:
        self.saved.append(dict(scores))
        write_model_file(self.run.model, self.model.state_dict(), {"task": "toy"})


class Silent:
    """A watcher that keeps what it is told, and sends `signals` to the process after the `at`-th step."""

    def __init__(self, at: int = 0, signals: Sequence[signal.Signals] = ()) -> None:
        self.at, self.signals, self.progress = at, signals, list[Progress]()
        self.records: list[tuple[dict[str, float], bool]] = []

    def stepped(self, progress: Progress) -> None:
        self.progress.append(progress)
        if len(self.progress) == self.at:
            for number in self.signals:
                signal.raise_signal(number)

    def validated(self, record: Mapping[str, float], best: bool) -> None:
        self.records.append((dict(record), best))


def plan(epochs: int = 3, **options: Any) -> Plan:
    defaults = {"averaging": 0.9, "weight_decay": 0.01, "clip_norm": 0.5, "settings": {"epochs": epochs, "rate": 0.05}}
    return Plan(epochs=epochs, objective="objective", mixed_precision="off", **{**defaults, **options})


def train(folder: Path, *, resume: bool = False, watcher: Silent | None = None, seed: int = 0, **options: Any) -> Toy:
    run = RunFolder(folder)
    toy = Toy(run, seed)
    fit(toy, plan(seed=seed, **options), run, watcher or Silent(), resume=resume)
    return toy


def standing(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that a checkpoint holds, but for the seconds."""
    tensors, facts = read_model_file(RunFolder(folder).checkpoint, "checkpoint")
    facts["at"].pop("seconds")
    facts["at"]["history"] = [without_seconds(record) for record in facts["at"]["history"]]
    return tensors, facts


def without_seconds(record: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in record.items() if name != "seconds"}
