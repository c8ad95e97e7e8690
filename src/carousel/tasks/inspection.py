"""What a task shows of a trained model to `carousel inspect`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.captioning import teacher_forced
from carousel.data.ragged import Ragged
from carousel.errors import DataError
from carousel.nn.encoder_decoder import EncoderDecoder

S = TypeVar("S", bound=Any)
Lines = Sequence[Sequence[str]]  # what each step of each sequence reads


class Inspection(NamedTuple):
    """A trained model, a batch to look at, and the loss whose gradients are followed back through time.

    A task has a function `inspection(model file, data file, ...)` that returns one.
    """

    model: nn.Module  # in evaluation mode, with a `Recurrent` in it
    batch: Any  # what the model is called with: several arguments as a list
    loss: Callable[[Any], Tensor]  # of what it returns; a sum over sequences, of each one's last step alone
    about: str  # the model and the loss, in a sentence or two
    tokens: Lines | Mapping[str, Lines] | None = None  # by the name of each `Recurrent`, where there are several
    running: str | None = None  # where the sequences are one text, what stands between two tokens


class Inspect(Protocol):
    def __call__(self, model: str | Path, data: str | Path, *, images: str | Path, sequences: int) -> Inspection:
        """What a model file does with the first sequences of some data. Raises `DataError`, `ModelFileError`."""


def first(found: Iterable[S], count: int, nothing: str) -> list[S]:
    """So many, without those that are empty. Raises `DataError` with the line `nothing` where there is none."""
    kept = list(islice((one for one in found if len(one)), count))
    if not kept:
        raise DataError(nothing)
    return kept


def of_pairs(
    network: EncoderDecoder, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], about: str,
    tokens: tuple[Lines, Lines],
) -> Inspection:  # fmt: skip
    """Both halves of a network at work on sources with their targets, as ids and as `tokens`.

    The loss is that of each target's last token, given the source and the tokens before. A decoder that is fed with
    what it looked at goes step by step, and is not among the recurrences that are shown.
    """
    ids, lengths = Ragged(sources).batch(range(len(sources)))
    words, steps, _ = teacher_forced([list(target[:-1]) for target in targets], max(map(len, targets)))
    last, ends, rows = torch.tensor([target[-1] for target in targets]), steps - 1, torch.arange(len(targets))

    def loss(answer: tuple[Tensor, Tensor]) -> Tensor:
        outputs, weights = (one[ends, rows] for one in answer)
        return F.cross_entropy(network.logits(outputs, weights, ids.t()), last, reduction="sum")

    read, written = tokens
    shown = {"encoder": read, "decoder": [["(start)", *line[:-1]] for line in written]}
    return Inspection(network, [ids, lengths, words, steps], loss, f"{about} {_how(network)}".rstrip(), shown)


def _how(network: EncoderDecoder) -> str:
    if network.at_once:
        return "Attention reads any step directly." if network.attention else ""
    return "The decoder goes step by step, with its attention, and is not shown."
