"""The mLSTM: its equations, its stabiliser, its heads, and whole sequences chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from cell_registry import assert_same, gradients, plain_loop, random_state
from transcription import Array, assert_transcribed, sigmoid

from carousel.cells import MLSTM
from carousel.errors import ConfigError
from carousel.nn import unroll

Weights = Mapping[str, Array]


@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_step_is_the_equations(forget: Any, heads: int) -> None:
    """Head by head and sequence by sequence."""
    d = 4 // heads

    def equations(w: Weights, x: Array, s: Weights) -> Weights:
        W, b = w["gates.weight_input"], w["gates.bias"]
        new: dict[str, Array] = {name: np.zeros_like(field) for name, field in s.items()}
        for row in range(len(x)):
            for head in range(heads):
                own = slice(d * head, d * head + d)
                q, k, v, o = (w[f"W_{letter}"][own] @ x[row] + w[f"b_{letter}"][own] for letter in "qkvo")
                k = k / np.sqrt(d)
                log_i = W[head] @ x[row] + b[head]
                log_f = W[heads + head] @ x[row] + b[heads + head]
                log_f = np.log(sigmoid(log_f)) if forget == "sigmoid" else log_f
                m = max(log_f + s["m"][row, head], log_i)
                i, f = np.exp(log_i - m), np.exp(log_f + s["m"][row, head] - m)
                C = f * s["C"][row, head] + i * np.outer(v, k)
                n = f * s["n"][row, head] + i * k
                h = sigmoid(o) * (C @ q) / max(abs(n @ q), np.exp(-m))
                new["h"][row, own], new["C"][row, head], new["n"][row, head], new["m"][row, head] = h, C, n, m
        return new

    assert_transcribed(MLSTM(3, 4, heads=heads, forget=forget), "qkvo", equations)


@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
def test_the_stabiliser_changes_nothing_but_the_range(forget: Any) -> None:
    """From the initial state the outputs are those of the plain equations, exp and the bound of 1 and all."""
    torch.manual_seed(0)
    cell = MLSTM(3, 4, forget=forget).double()
    bounded = []
    C, n, state = torch.zeros(2, 4, 4).double(), torch.zeros(2, 4).double(), cell.initial_state(2)
    for x in 2 * torch.randn(12, 2, 3, dtype=torch.float64):
        q, k, v, o = (affine.input(x) for affine in cell.packed)
        i, f = (gate.input(x) for gate in cell.gates)
        f = f.sigmoid() if forget == "sigmoid" else f.exp()
        C = f[:, :, None] * C + i.exp()[:, :, None] * v[:, :, None] * k[:, None] / 2
        n = f * n + i.exp() * k / 2
        length = (n * q).sum(1, keepdim=True).abs()
        bounded += (length < 1).flatten().tolist()
        h = o.sigmoid() * torch.einsum("bvk,bk->bv", C, q) / length.clamp(min=1)
        state = cell.step(x, state)
        scale = state.m.exp()
        assert_same([state.h, state.C[:, 0], state.n[:, 0]], [h, C / scale[..., None], n / scale], tolerance=1e-12)
    assert {True, False} == set(bounded)


@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
@pytest.mark.parametrize(("T", "chunk"), [(1, 4), (7, 1), (7, 3), (6, 3), (7, 64)])
def test_chunks_are_steps(forget: Any, T: int, chunk: int) -> None:
    torch.manual_seed(0)
    cell = MLSTM(3, 4, heads=2, forget=forget, chunk=chunk).double()
    inputs, start = torch.randn(T, 5, 3, dtype=torch.float64, requires_grad=True), random_state(cell, 5)
    results = []
    for outputs, state in (unroll(cell, inputs, start, engine="scan"), plain_loop(cell, inputs, start)):
        results.append([outputs, *state, *gradients([outputs, *state], [inputs, *start, *cell.parameters()])])
    assert_same(*results, tolerance=1e-10)


def test_a_sequence_takes_no_room_for_a_matrix_at_each_step() -> None:
    cell, inputs = MLSTM(3, 64), torch.randn(40, 2, 3)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        unroll(cell, inputs, engine="scan")
    assert 64 * 64 <= sum(kept.values()) < 40 * 2 * 64 * 64 / 3


@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
@pytest.mark.parametrize("engine", ["scan", "eager"])
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_large_inputs_saturate(forget: Any, engine: Any, scale: float) -> None:
    torch.manual_seed(0)
    cell = MLSTM(3, 8, forget=forget, chunk=7)
    inputs = (scale * torch.rand(20, 4, 3)).requires_grad_()
    outputs, state = unroll(cell, inputs, engine=engine)
    assert outputs.isfinite().all() and all(field.isfinite().all() for field in state)
    found = torch.autograd.grad(outputs.sum(), [inputs, *cell.parameters()])
    assert all(gradient.isfinite().all() for gradient in found)


def test_keys_find_their_values() -> None:
    """With gates open wide, what was kept under a key is what a query with that key reads."""
    cell = MLSTM(4, 2, forget_bias=50.0)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.forget.b.fill_(50.0)  # type: ignore[union-attr]
        cell.input.b.fill_(20.0)  # type: ignore[union-attr]
        cell.output.b.fill_(50.0)  # type: ignore[union-attr]
        cell.key.W[:, :2] = cell.query.W[:, :2] = torch.eye(2)
        cell.value.W[:, 2:] = torch.eye(2)
    first, second = torch.tensor([[1.0, 0, 3, 4]]), torch.tensor([[0.0, 1, 5, 6]])
    _, state = unroll(cell, torch.stack([first, second]))
    query = torch.tensor([[1.0, 0, 0, 0]])
    with torch.no_grad():
        cell.input.b.fill_(-50.0)  # type: ignore[union-attr]  # nothing more is written
    assert_same([cell.step(query, state).h], [torch.tensor([[3.0, 4.0]])], tolerance=1e-4)


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^heads: does not divide hidden_size \(got 4\); 1, 2, 3, 6; 1 is one"):
        MLSTM(3, 6, heads=4)
    with pytest.raises(ConfigError, match=r"^forget: unknown \(got 'tanh'\); sigmoid, exp"):
        MLSTM(3, 6, forget="tanh")  # type: ignore[arg-type]
