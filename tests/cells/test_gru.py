"""The gated recurrent unit, in both orders and normalised."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cell_registry import arrays, assert_same

from carousel.cells import GRU, LayerNormGRU, ResetAfterGRU


def both() -> tuple[GRU, ResetAfterGRU]:
    """The two orders with the same weights."""
    torch.manual_seed(0)
    before, after = GRU(3, 4), ResetAfterGRU(3, 4)
    after.packed.load_state_dict(before.packed.state_dict())
    torch.nn.init.zeros_(after.recurrent_bias)  # type: ignore[arg-type]
    return before, after


@pytest.mark.parametrize("order", ["before", "after"])
def test_step_is_the_equations(order: str) -> None:
    cell = GRU(3, 4) if order == "before" else ResetAfterGRU(3, 4)
    x, h = torch.randn(2, 3), torch.randn(2, 4)
    W, U, b = (p.chunk(3) for p in (cell.packed.weight_input, cell.packed.weight_hidden, cell.packed.bias))
    r = torch.sigmoid(x @ W[0].t() + h @ U[0].t() + b[0])
    z = torch.sigmoid(x @ W[1].t() + h @ U[1].t() + b[1])
    if isinstance(cell, GRU):
        a = torch.tanh(x @ W[2].t() + (r * h) @ U[2].t() + b[2])
    else:
        a = torch.tanh(x @ W[2].t() + b[2] + r * (h @ U[2].t() + cell.recurrent_bias))
    assert_same([cell.step(x, cell.State(h)).h], [z * h + (1 - z) * a], tolerance=1e-6)


def test_the_orders_differ() -> None:
    before, after = both()
    x, h = torch.randn(2, 3), torch.randn(2, 4)
    assert (before.step(x, before.State(h)).h - after.step(x, after.State(h)).h).abs().max() > 1e-3


@pytest.mark.parametrize("gate", [0.0, 1.0])
def test_the_orders_agree_where_the_reset_gate_is_shut_or_open(gate: float) -> None:
    x, h = torch.randn(2, 3), torch.randn(2, 4)
    results = []
    for cell in both():
        torch.nn.init.constant_(cell.reset.b, 100 if gate else -100)  # type: ignore[arg-type]
        results.append(cell.step(x, cell.State(h)).h)
    assert_same(results[:1], results[1:], tolerance=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_the_normalised_step_is_the_equations(bias: bool) -> None:
    torch.manual_seed(0)
    cell = LayerNormGRU(3, 4, bias=bias).double()
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter)
    random, w = np.random.default_rng(0), arrays(cell)
    x, h = random.normal(size=(2, 3)), random.normal(size=(2, 4))
    W, U = w["packed.weight_input"], w["packed.weight_hidden"]

    def norm(name: str, v: Any) -> Any:
        scaled = (v - v.mean(1, keepdims=True)) / np.sqrt(v.var(1, keepdims=True) + 1e-5)
        return scaled * w[f"{name}.weight"] + w.get(f"{name}.bias", 0)

    gates = norm("gates_hidden_norm", h @ U[:8].T) + norm("gates_input_norm", x @ W[:8].T)
    r, z = np.split(1 / (1 + np.exp(-gates)), 2, axis=1)
    a = np.tanh(norm("candidate_input_norm", x @ W[8:].T) + r * norm("candidate_hidden_norm", h @ U[8:].T))
    by_hand = (1 - z) * h + z * a
    assert_same([cell.step(torch.tensor(x), cell.State(torch.tensor(h))).h], [torch.tensor(by_hand)])
    assert ("gates_input_norm.bias" in w) == bias


def test_the_normalised_gates_and_candidate_do_not_depend_on_the_size_of_the_weights() -> None:
    torch.manual_seed(0)
    cell, x, h = LayerNormGRU(30, 40).double(), torch.randn(2, 30).double(), torch.randn(2, 40).double()
    before = cell.step(x, cell.State(h)).h
    with torch.no_grad():
        for weight in cell.packed.parameters():
            weight.mul_(100)
    assert_same([cell.step(x, cell.State(h)).h], [before], tolerance=1e-3)
