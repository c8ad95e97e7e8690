"""What a network is to learn of sequences, in one shape, so that any network can be held to any problem."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from carousel.nn import Embedding, Recurrent
from carousel.training.seeding import epoch_order

Held = Literal["val", "test"]


class Examples(NamedTuple):
    """A batch: elements (T, B, I) or their ids (T, B), what is right, and the lengths (B,) where they differ."""

    inputs: Tensor
    targets: Tensor  # (B, ...), or (T, B, ...) where every step has one
    lengths: Tensor | None = None

    @property
    def real(self) -> Tensor:
        """Which steps are there: (T, B)."""
        T, B = self.inputs.shape[:2]
        lengths = torch.full((B,), T) if self.lengths is None else self.lengths
        return torch.arange(T)[:, None] < lengths


class Tally(NamedTuple):
    """A score as a sum, so that batches add up."""

    total: float
    items: int


class Problem(Protocol):
    """Sequences with what is to be learned of them: batches to train on, held-out data, a loss and a score.

    `outputs` are what the network says: (B, `output_size`), or (T, B, `output_size`) with `every_step`.
    """

    name: str
    about: str  # one line: which data, which variant, what the score is
    input_size: int
    output_size: int
    every_step: bool
    metric: str
    higher_is_better: bool
    parameters: int  # of a network that suits it

    def batch(self, seed: int, step: int) -> Examples:
        """What to train on, a function of the two numbers."""

    def held_out(self, split: Held) -> Sequence[Examples]:
        """What to judge by; always the same."""

    def loss(self, outputs: Tensor, examples: Examples) -> Tensor:
        """A mean, to be made smaller."""

    def measure(self, outputs: Tensor, examples: Examples) -> Tally:
        """The score of a batch."""

    def baselines(self) -> dict[str, float]:
        """The test score of what learns next to nothing, by name."""


class SequenceModel(nn.Module):
    """A recurrent network and a linear layer that reads its last output, or every one.

    Args:
        dropout: of what the linear layer reads.
        vocabulary: of elements that are ids (T, B), each a vector that is trained; 0 for those that are vectors.

    >>> model = SequenceModel(Recurrent("gru", 3, 4), output_size=2)
    >>> model(Examples(torch.zeros(5, 2, 3), torch.zeros(2))).shape
    torch.Size([2, 2])
    """

    def __init__(
        self,
        recurrent: Recurrent,
        output_size: int,
        *,
        every_step: bool = False,
        dropout: float = 0.0,
        vocabulary: int = 0,
    ) -> None:
        super().__init__()
        self.embedding = Embedding(vocabulary, recurrent.input_size) if vocabulary else None
        self.recurrent, self.every_step = recurrent, every_step
        self.dropout, self.readout = nn.Dropout(dropout), nn.Linear(recurrent.output_size, output_size)

    def forward(self, examples: Examples) -> Tensor:
        inputs = examples.inputs if self.embedding is None else self.embedding(examples.inputs)
        outputs, _ = self.recurrent(inputs, lengths=examples.lengths)
        if not self.every_step:
            last = -1 if examples.lengths is None else examples.lengths - 1
            outputs = outputs[last, torch.arange(outputs.shape[1])]
        said: Tensor = self.readout(self.dropout(outputs))
        return said


def score(model: nn.Module, problem: Problem, split: Held) -> float:
    """The mean score over held-out data."""
    training = model.training
    model.eval()
    with torch.inference_mode():
        tallies = [problem.measure(model(examples), examples) for examples in problem.held_out(split)]
    model.train(training)
    return sum(tally.total for tally in tallies) / sum(tally.items for tally in tallies)


def drawn(length: int, size: int, seed: int, step: int) -> list[int]:
    """Which `size` of `length` examples are next: all in a new order each epoch, a rest too small for a batch left out.

    >>> sorted(drawn(4, 2, 0, 0) + drawn(4, 2, 0, 1)), drawn(4, 2, 0, 2) != drawn(4, 2, 0, 0)
    ([0, 1, 2, 3], True)
    """
    size = min(size, length)
    epoch, k = divmod(step, length // size)
    return _order(length, seed, epoch)[k * size : (k + 1) * size]


_order = lru_cache(maxsize=4)(epoch_order)


def padded(inputs: Sequence[Tensor], targets: Sequence[Tensor] | Tensor) -> Examples:
    """Sequences (T, I) of any lengths as a batch; targets that are one for each step are padded too."""
    if not isinstance(targets, Tensor):
        targets = pad_sequence(list(targets))
    return Examples(pad_sequence(list(inputs)), targets, torch.tensor([len(sequence) for sequence in inputs]))


def squared_errors(outputs: Tensor, targets: Tensor) -> Tally:
    """Of estimates (N,)."""
    return Tally(float((outputs - targets).double().square().sum()), len(targets))


def hits(outputs: Tensor, targets: Tensor) -> Tally:
    """How many of the classes (N,) have the greatest of the outputs (N, K), in percent."""
    return Tally(100.0 * int((outputs.argmax(-1) == targets).sum()), len(targets))


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean of (..., K) given classes (...)."""
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())
