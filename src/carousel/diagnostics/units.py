"""Which units are worth looking at over tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from carousel.diagnostics.diagnosis import LayerDiagnosis
from carousel.errors import ConfigError

OFTEN = 5  # occurrences of a token, below which nothing is said of it
SURE = 5.0  # standard errors, beyond what the best of many units and tokens has by chance
REACTING = 3  # units that are shown for a token that they react to


class Unit(NamedTuple):
    """One unit of one layer, and why it was picked."""

    layer: LayerDiagnosis
    number: int
    why: str

    @property
    def values(self) -> Tensor:
        """(T, B): its memory, c of an LSTM."""
        return self.layer.states[self.layer.memory_field][..., self.number]


def telling_units(layer: LayerDiagnosis, tokens: Sequence[Sequence[str]]) -> list[Unit]:
    """The units that react most to one token, swing most, remember longest and follow the position; each once.

    Args:
        tokens: what each step of each sequence reads.
    """
    states, real = layer.states[layer.memory_field], layer.real
    taken = states[real]  # (N, H)
    swing = taken.std(0)
    changes = torch.diff(states, dim=0, prepend=torch.zeros_like(states[:1]))[real]
    found: dict[int, str] = {}
    for number, token, change, others in _reactions(changes, _flat(tokens, real)):
        if len(found) < REACTING:
            found.setdefault(number, f"reacts most to “{token}”: {change:+.2f} on average, {others:+.2f} otherwise")

    def pick(scores: Tensor, why: str, count: int) -> None:
        ranked = [k for k in scores.nan_to_num(-math.inf).argsort(descending=True).tolist() if k not in found]
        found.update({k: why.format(float(scores[k])) for k in ranked[:count] if scores[k].isfinite()})

    pick(swing, "swings most: standard deviation {:.2f}", 2)
    if layer.memory_field in layer.memory:
        memory = torch.where(swing > swing.median(), layer.memory[layer.memory_field], torch.nan)
        pick(memory.masked_fill(memory.isinf(), torch.nan), "remembers longest of those that move: {:.1f} steps", 2)
    steps = torch.arange(len(states), dtype=taken.dtype)[:, None].expand(real.shape)[real]
    together = ((taken - taken.mean(0)) * (steps - steps.mean())[:, None]).mean(0)
    pick(together.abs() / (swing * steps.std()), "follows the position: correlation {:.2f} with the step", 1)
    return [Unit(layer, number, why) for number, why in found.items()]


def chosen_units(layers: Sequence[LayerDiagnosis], numbers: Sequence[int]) -> list[Unit]:
    """The units of these numbers, of every layer that has so many.

    Raises:
        ConfigError: no layer has.
    """
    size = max(layer.states[layer.memory_field].shape[-1] for layer in layers)
    for number in numbers:
        if not 0 <= number < size:
            raise ConfigError(f"unit: no such unit (got {number}); 0 to {size - 1}; choose another")
    return [
        Unit(layer, number, "as chosen")
        for layer in layers
        for number in dict.fromkeys(numbers)
        if number < layer.states[layer.memory_field].shape[-1]
    ]


def _flat(tokens: Sequence[Sequence[str]], real: Tensor) -> list[str]:
    """Tokens in the order of `x[real]`, by step and then by sequence."""
    return [tokens[b][t] for t, b in real.nonzero().tolist()]


def _reactions(changes: Tensor, tokens: Sequence[str]) -> list[tuple[int, str, float, float]]:
    """For each frequent token the unit whose change stands out most at it, against its own spread; the best first."""
    spread = changes.std(0).clamp(min=1e-6)
    scored = []
    for token in sorted(set(tokens)):
        here = torch.tensor([one == token for one in tokens])
        if OFTEN <= int(here.sum()) < len(tokens):
            at, otherwise = changes[here].mean(0), changes[~here].mean(0)
            score = (at - otherwise).abs() / spread * here.sum().sqrt()
            number = int(score.argmax())
            if score[number] > SURE:
                scored.append((float(score[number]), number, token, float(at[number]), float(otherwise[number])))
    return [rest for _, *rest in sorted(scored, reverse=True)]  # type: ignore[misc]
