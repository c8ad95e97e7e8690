"""Scheduled sampling: training inputs that are in part the decoder's own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .constraints import forbid_words
from .sentence import Step


def sampled_inputs(
    step: Step,
    state: Any,
    words: Tensor,
    share: float,
    *,
    padding: int,
    forbidden: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    """`words` (T, B) with a `share` of them drawn from what the decoder itself would say there.

        for t in 1..T-1:  S'_t ~ p_t( . | S'_0 .. S'_{t-1}) with probability `share`, else S_t

    Bengio et al. 2015, arXiv:1506.03099v3, section 2.4. The draw carries no gradient; then train on the result as on
    any other input. The first words and `padding` stay.
    """
    with torch.no_grad():
        mixed = [words[0]]
        for gold in words[1:]:
            logits, state = step(mixed[-1], state)
            probabilities = forbid_words(logits.float(), forbidden).softmax(1)
            drawn = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
            coin = torch.rand(len(gold), generator=generator) < share
            mixed.append(torch.where(coin & (gold != padding), drawn, gold))
    return torch.stack(mixed)
