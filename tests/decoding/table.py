"""A decoder that is a table: the next word depends on the input, on the last two words and on the place."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

PAD, START, STOP, UNKNOWN = range(4)
V = 7  # three words: 4, 5, 6
FORBIDDEN = (PAD, UNKNOWN)


class State(NamedTuple):
    photo: Tensor  # (N,) which input
    before: tuple[Tensor, Tensor]  # (N,) the word before the last, and the place; nested, as real states are


class Table(NamedTuple):
    """Logits by input, word before the last, last word, next word, and a share by place and next word.

    Without the place, sentences of the same pairs in another order would be as likely as each other.
    """

    logits: Tensor
    drift: Tensor

    @classmethod
    def random(cls, seed: int, inputs: int = 3, spread: float = 2.0) -> Table:
        draw = torch.Generator().manual_seed(seed)
        logits = torch.randn(inputs, V, V, V, generator=draw, dtype=torch.float64)
        return cls(spread * logits, 0.1 * torch.randn(20, V, generator=draw, dtype=torch.float64))

    def start(self, *inputs: int) -> State:
        return State(
            torch.tensor(inputs), (torch.full((len(inputs),), PAD), torch.zeros(len(inputs), dtype=torch.long))
        )

    def step(self, words: Tensor, state: State) -> tuple[Tensor, Any]:
        before, place = state.before
        return self.logits[state.photo, before, words] + self.drift[place], State(state.photo, (words, place + 1))

    def next_logprobs(self, photo: int, written: tuple[int, ...], no_repeat: int = 0) -> dict[int, float]:
        """Log-probability of every token that may follow, worked out word by word."""
        before, last = (PAD, START, *written)[-2:]
        logits = (self.logits[photo, before, last] + self.drift[len(written)]).tolist()
        allowed = [v for v in range(V) if v not in (*FORBIDDEN, START) and not repeats((*written, v), no_repeat)]
        total = math.log(sum(math.exp(logits[v]) for v in allowed))
        return {v: logits[v] - total for v in allowed}

    def logprob(self, photo: int, tokens: tuple[int, ...], no_repeat: int = 0) -> float:
        return sum(self.next_logprobs(photo, tokens[:i], no_repeat)[token] for i, token in enumerate(tokens))


def repeats(tokens: tuple[int, ...], size: int) -> bool:
    """Whether the last n-gram of this size stands earlier too."""
    grams = [tokens[i : i + size] for i in range(len(tokens) - size + 1)] if size else []
    return bool(grams) and grams[-1] in grams[:-1]


def every_sentence(max_length: int, no_repeat: int = 0) -> Iterator[tuple[int, ...]]:
    """All that can be said in at most `max_length` tokens: sentences with their stop, and unfinished ones without."""
    for length in range(max_length + 1):
        for words in itertools.product((4, 5, 6), repeat=length):
            if not any(repeats(words[: i + 1], no_repeat) for i in range(length)):
                yield words if length == max_length else (*words, STOP)


def plain_beam(
    table: Table, photo: int, width: int, max_length: int, power: float, no_repeat: int
) -> list[tuple[tuple[int, ...], float]]:
    """Beam search as one would write it for a single input: tokens and log-probability, best first."""

    def score(found: tuple[tuple[int, ...], float]) -> float:
        return found[1] / len(found[0]) ** power

    beam: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for _ in range(max_length):
        longer = []
        for tokens, total in beam:
            if tokens[-1:] == (STOP,):
                longer.append((tokens, total))
                continue
            for token, logprob in table.next_logprobs(photo, tokens, no_repeat).items():
                longer.append(((*tokens, token), total + logprob))
        beam = sorted(longer, key=score, reverse=True)[:width]
    return beam
