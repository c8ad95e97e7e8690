"""Equations written out again in NumPy, in float64 and independent of the cells, and held against their steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from carousel.cells import Cell

Array = Any  # a float64 array
Equations = Callable[[Mapping[str, Array], Array, Mapping[str, Array]], Mapping[str, Array]]


def sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def weights_of(cell: Cell, maps: str) -> dict[str, Array]:
    """The parameters by their names, and W_k, U_k and b_k of the packed maps, one letter k each, in their order."""
    found: dict[str, Array] = {name: value.detach().numpy() for name, value in cell.named_parameters()}
    for letter, parameter in (("W", "weight_input"), ("U", "weight_hidden"), ("b", "bias")):
        block = found.pop(f"packed.{parameter}", None)
        if block is None:
            continue
        assert len(block) == len(maps) * cell.hidden_size
        found |= {f"{letter}_{k}": part for k, part in zip(maps, np.split(block, len(maps)), strict=True)}
    return found


def assert_transcribed(cell: Cell, maps: str, equations: Equations, steps: int = 4, scale: float = 1.0) -> None:
    """Some steps from a random state, by the cell and by the equations (weights, x, state) -> state."""
    torch.manual_seed(5)
    cell = cell.double()
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter)  # biases and norms too: nothing may hide behind a zero or a one
    state = cell.State(*(torch.rand_like(field) + 0.2 for field in cell.initial_state(3)))
    weights = weights_of(cell, maps)
    wanted: Mapping[str, Array] = {name: field.numpy() for name, field in state._asdict().items()}
    for _ in range(steps):
        x = scale * torch.randn(3, cell.input_size, dtype=torch.float64)
        state, wanted = cell.step(x, state), equations(weights, x.numpy(), wanted)
        assert list(wanted) == list(state._fields)
        for name, field in state._asdict().items():
            np.testing.assert_allclose(field.detach().numpy(), wanted[name], rtol=1e-11, atol=1e-12)
