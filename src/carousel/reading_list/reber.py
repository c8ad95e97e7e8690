"""The embedded Reber grammar: strings whose last but one symbol repeats the second."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor

SYMBOLS = "BTPSXVE"
# The Reber grammar: from each state the two symbols that may come and where each leads. In the last, only E follows.
STEPS = (
    (("T", 1), ("P", 2)),
    (("S", 1), ("X", 3)),
    (("T", 2), ("V", 4)),
    (("X", 2), ("S", 5)),
    (("P", 3), ("V", 5)),
)
FINAL = 5

Symbol: TypeAlias = tuple[str, str]  # one symbol, and all those that may follow it


def coins(generator: torch.Generator) -> Iterator[int]:
    """Fair coins without end."""
    while True:
        yield from torch.randint(2, (1000,), generator=generator).tolist()


def reber(coins: Iterator[int]) -> Iterator[Symbol]:
    """An embedded Reber string, each branch taken by a fair coin; after the last symbol another begins.

    Hochreiter and Schmidhuber 1997, Neural Computation 9(8), section 5.1, figures 3 and 4.

    >>> "".join(symbol for symbol, _ in reber(coins(torch.Generator().manual_seed(0))))
    'BTBPVPSETE'
    """
    outer = "TP"[next(coins)]
    yield "B", "TP"
    yield outer, "B"
    yield "B", "TP"
    state = 0
    while state != FINAL:
        symbol, state = STEPS[state][next(coins)]
        yield symbol, "E" if state == FINAL else "".join(follows for follows, _ in STEPS[state])
    yield "E", outer
    yield outer, "E"
    yield "E", "B"


def one_hot(symbols: Iterable[Symbol]) -> tuple[Tensor, Tensor]:
    """Inputs (T, 7), and which symbols may follow each (T, 7), as ones and zeros."""
    places = torch.frombuffer(bytearray(b"".join(map(_places, symbols))), dtype=torch.uint8)
    inputs, legal = places.float().view(-1, 2, len(SYMBOLS)).unbind(1)
    return inputs, legal


@cache
def _places(symbol: Symbol) -> bytes:
    """One for the symbol and for each that may follow it, zero for the others: 14 bytes."""
    return bytes(one in part for part in symbol for one in SYMBOLS)


def predicted(outputs: Tensor, legal: Tensor) -> Tensor:
    """Whether all symbols that may follow have greater outputs than all that may not: (..., 7) -> (...)."""
    least = outputs.masked_fill(legal == 0, torch.inf).amin(-1)
    return least > outputs.masked_fill(legal == 1, -torch.inf).amax(-1)
