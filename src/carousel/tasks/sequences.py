"""A user's own sequences: a label or a number for each, or for each of their elements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.data import sequences as data
from carousel.errors import DataError
from carousel.tasks.problem import Examples, Held, Tally, cross_entropy, drawn, hits, padded, squared_errors
from carousel.training.seeding import epoch_order

HELD_OUT = {"val": 0.1, "test": 0.2}


class Sequences:
    """The sequences of a file, see `carousel.data.sequences.read_sequences`, as a `Problem`.

    Where the file names no splits, a tenth is drawn for validation and a fifth for the test. Inputs, and targets that
    are numbers, are scaled to mean 0 and variance 1 on the training part; scores are in the numbers' own units.

    Args:
        path: the file.
        batch_size: of training.

    Raises:
        DataError: the file is not as there, or a part is empty.
    """

    higher_is_better: bool
    parameters = 20_000

    def __init__(self, path: str | Path, batch_size: int = 32) -> None:
        found = data.read_sequences(path)
        self.name, self.batch_size = Path(path).stem, batch_size
        self.every_step, self.labelled = found.target in ("labels", "numbers"), found.target.startswith("label")
        self.input_size = found.input_size
        parts = _parts(found.sequences, path)
        shown = torch.cat([one.inputs for one in parts["train"]])
        self.shift, self.scale = shown.mean(0), _spread(shown)
        if self.labelled:
            self.labels = sorted({str(label) for one in found.sequences for label in _listed(one.target)})
            self.output_size, self.metric, self.higher_is_better = len(self.labels), "accuracy in %", True
        else:
            self.output_size, self.metric, self.higher_is_better = 1, "squared error", False
        self.parts = {split: [(one.inputs, self._target(one)) for one in some] for split, some in parts.items()}
        seen = torch.cat([target.flatten() for _, target in self.parts["train"]])
        self.seen = seen
        self.mean, self.deviation = (0.0, 1.0) if self.labelled else (float(seen.mean()), float(_spread(seen)))
        counts = ", ".join(f"{len(some)} {split}" for split, some in self.parts.items())
        better = "more" if self.higher_is_better else "less"
        self.about = f"{Path(path).name}: {counts}; {self.metric}, {better} is better"
        self.held_out = cache(self._held_out)

    def _target(self, one: data.Sequence) -> Tensor:
        """A scalar, or one for each element (T,)."""
        if self.labelled:
            numbers = torch.tensor([self.labels.index(str(label)) for label in _listed(one.target)])
        else:
            numbers = torch.tensor([float(value) for value in _listed(one.target)])
        return numbers if self.every_step else numbers[0]

    def _examples(self, some: Sequence[tuple[Tensor, Tensor]]) -> Examples:
        targets = [target for _, target in some]
        inputs = [(values - self.shift) / self.scale for values, _ in some]
        return padded(inputs, targets if self.every_step else torch.stack(targets))

    def batch(self, seed: int, step: int) -> Examples:
        train = self.parts["train"]
        return self._examples([train[k] for k in drawn(len(train), self.batch_size, seed, step)])

    def _held_out(self, split: Held) -> list[Examples]:
        held = self.parts[split]
        return [self._examples(held[k : k + 256]) for k in range(0, len(held), 256)]

    def _said(self, outputs: Tensor, examples: Examples) -> tuple[Tensor, Tensor]:
        """What was said and what is right, of the steps that are there, one below the other."""
        if not self.every_step:
            return outputs, examples.targets
        return outputs[examples.real], examples.targets[examples.real]

    def loss(self, outputs: Tensor, examples: Examples) -> Tensor:
        said, right = self._said(outputs, examples)
        if self.labelled:
            return cross_entropy(said, right)
        return F.mse_loss(said[:, 0], (right - self.mean) / self.deviation)

    def measure(self, outputs: Tensor, examples: Examples) -> Tally:
        said, right = self._said(outputs, examples)
        return hits(said, right) if self.labelled else squared_errors(said[:, 0] * self.deviation + self.mean, right)

    def baselines(self) -> dict[str, float]:
        right = torch.cat([target.flatten() for _, target in self.parts["test"]])
        if self.labelled:
            return {"the commonest label": 100.0 * float((right == self.seen.mode().values).float().mean())}
        found = {"the mean": float((right - self.mean).square().mean())}
        if self.every_step:
            started = torch.tensor(self.mean)[None]
            errors = [target - torch.cat([started, target[:-1]]) for _, target in self.parts["test"]]
            found["the target before"] = float(torch.cat(errors).square().mean())
        return found


def _listed(target: Any) -> list[Any]:
    return target if isinstance(target, list) else [target]


def _spread(values: Tensor) -> Tensor:
    """The standard deviation, 1 where nothing varies."""
    spread = values.std(0, unbiased=False)
    return torch.where(spread > 0, spread, 1.0)


def _parts(sequences: list[data.Sequence], path: str | Path) -> dict[str, list[data.Sequence]]:
    """The sequences by split: as the file says, or drawn."""
    named = Counter(one.split for one in sequences)
    if None in named and len(named) > 1:
        raise DataError(f"{path}: splits for some (got {named[None]} sequences without); for all or none; add them")
    parts: dict[str, list[data.Sequence]] = {split: [] for split in data.SPLITS}
    if None in named:
        order, start = epoch_order(len(sequences), seed=0, epoch=0), 0
        for split, share in HELD_OUT.items():
            count = max(1, round(share * len(sequences)))
            parts[split], start = [sequences[k] for k in order[start : start + count]], start + count
        parts["train"] = [sequences[k] for k in order[start:]]
    else:
        for one in sequences:
            parts[str(one.split)].append(one)
    empty = [split for split, some in parts.items() if not some]
    if empty:
        raise DataError(
            f"{path}: nothing in {empty[0]!r} (got {len(sequences)} sequences); train, val and test have some; add some"
        )
    return parts
