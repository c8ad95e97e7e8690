"""What a task shows of a trained model to `carousel inspect`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn


class Inspection(NamedTuple):
    """A trained model, a batch to look at, and the loss whose gradients are followed back through time.

    A task has a function `inspection(model file, data file, ...)` that returns one.
    """

    model: nn.Module  # in evaluation mode, with a `Recurrent` in it
    batch: Any  # what the model is called with: several arguments as a list
    loss: Callable[[Any], Tensor]  # of what it returns; a sum over sequences, of each one's last step alone
    about: str  # the model and the loss, in a sentence or two
    tokens: Sequence[Sequence[str]] | None = None  # what each step of each sequence reads, if that can be written
