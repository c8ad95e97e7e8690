"""Text without an end, a token at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from carousel.errors import ConfigError

from .constraints import forbid_words
from .sampling import truncate_logits


def generate(
    step: Callable[[int], Tensor],
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    forbidden: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Tokens drawn one after the other, for as long as they are asked for.

        while True: token ~ softmax(logits / temperature); yield token; logits = step(token)

    Args:
        step: from a token to the logits (V,) of the next.
        logits: (V,) of the first.
        temperature: 0 takes the likeliest each time.
        top_k, top_p: see `truncate_logits`.
        forbidden: tokens that are never drawn.

    Raises:
        ConfigError: a number is out of its range; the message says which.

    >>> from itertools import islice
    >>> follows = torch.tensor([[0.0, 9.0, 0.0], [0.0, 0.0, 9.0], [9.0, 0.0, 0.0]])
    >>> list(islice(generate(lambda token: follows[token], follows[0], temperature=0), 4))
    [1, 2, 0, 1]
    """
    for name, value, allowed, good in (
        ("temperature", temperature, "0 or more", temperature >= 0),
        ("top_k", top_k, "0 or more, 0 being all", top_k >= 0),
        ("top_p", top_p, "above 0, up to 1", 0 < top_p <= 1),
    ):
        if not good:
            raise ConfigError(f"{name}: out of range (got {value}); {allowed}; 0.8 makes likely tokens likelier")
    return _drawn(step, logits, temperature, top_k, top_p, forbidden, generator)


def _drawn(
    step: Callable[[int], Tensor],
    logits: Tensor,
    temperature: float,
    top_k: int,
    top_p: float,
    forbidden: Sequence[int],
    generator: torch.Generator | None,
) -> Iterator[int]:
    while True:
        allowed = forbid_words(logits[None], forbidden)
        if temperature:
            chances = truncate_logits(allowed / temperature, top_k, top_p).softmax(1)
            token = int(torch.multinomial(chances, 1, generator=generator))
        else:
            token = int(allowed.argmax())
        yield token
        logits = step(token)
