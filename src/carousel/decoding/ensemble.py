"""Several decoders that speak as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .sentence import Step


def ensemble(steps: Sequence[Step]) -> Step:
    """A step whose probabilities are the mean of those of `steps`; its state is the tuple of theirs.

    >>> def sure(words: Tensor, state: Any) -> tuple[Tensor, Any]:
    ...     return torch.tensor([[0.0, -100.0]]), state
    >>> def torn(words: Tensor, state: Any) -> tuple[Tensor, Any]:
    ...     return torch.tensor([[0.0, 0.0]]), state
    >>> logits, _ = ensemble([sure, torn])(torch.tensor([0]), ((), ()))
    >>> logits.exp().tolist()
    [[0.75, 0.25]]
    """
    if len(steps) == 1:
        only = steps[0]

        def alone(words: Tensor, state: Any) -> tuple[Tensor, Any]:
            logits, after = only(words, state[0])
            return logits, (after,)

        return alone

    def together(words: Tensor, state: Any) -> tuple[Tensor, Any]:
        found = [step(words, part) for step, part in zip(steps, state, strict=True)]
        logprobs = torch.stack([logits.log_softmax(1) for logits, _ in found])
        return logprobs.logsumexp(0) - math.log(len(steps)), tuple(after for _, after in found)

    return together
