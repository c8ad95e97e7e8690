"""The sLSTM: its equations, its stabiliser, its heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from cell_registry import assert_same
from transcription import Array, assert_transcribed, sigmoid

from carousel.cells import SLSTM
from carousel.errors import ConfigError
from carousel.nn import unroll

Weights = Mapping[str, Array]


def block_diagonal(R: Array) -> Array:
    """(H, d) as (H, H)."""
    H, d = R.shape
    whole = np.zeros((H, H))
    for start in range(0, H, d):
        whole[start : start + d, start : start + d] = R[start : start + d]
    return whole


@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_step_is_the_equations(forget: Any, heads: int) -> None:
    """Those with the stabiliser, to the last field."""

    def equations(w: Weights, x: Array, s: Weights) -> Weights:
        i, f, z, o = (x @ w[f"W_{k}"].T + s["h"] @ block_diagonal(w[f"U_{k}"]).T + w[f"b_{k}"] for k in "ifzo")
        log_f = np.log(sigmoid(f)) if forget == "sigmoid" else f
        m = np.maximum(log_f + s["m"], i)
        i, f = np.exp(i - m), np.exp(log_f + s["m"] - m)
        c, n = f * s["c"] + i * np.tanh(z), f * s["n"] + i
        return {"h": sigmoid(o) * c / n, "c": c, "n": n, "m": m}

    assert_transcribed(SLSTM(3, 4, heads=heads, forget=forget), "ifzo", equations)


@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
def test_the_stabiliser_changes_nothing_but_the_range(forget: Any) -> None:
    """From the initial state the outputs are those of the plain equations, exp and all."""
    torch.manual_seed(0)
    cell = SLSTM(3, 4, forget=forget).double()
    W, U, b = cell.packed.weight_input, cell.packed.weight_hidden, cell.packed.bias
    assert b is not None
    h = c = n = torch.zeros(2, 4, dtype=torch.float64)
    state = cell.initial_state(2)
    for x in torch.randn(6, 2, 3, dtype=torch.float64):
        i, f, z, o = (x @ W.t() + h @ U.t() + b).chunk(4, dim=1)
        f = f.sigmoid() if forget == "sigmoid" else f.exp()
        c, n = f * c + i.exp() * z.tanh(), f * n + i.exp()
        h, state = o.sigmoid() * c / n, cell.step(x, state)
        assert_same([state.h, state.c * state.m.exp(), state.n * state.m.exp()], [h, c, n], tolerance=1e-9)


@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
@pytest.mark.parametrize("engine", ["compiled", "eager"])
def test_large_inputs_saturate(forget: Any, engine: Any) -> None:
    torch.manual_seed(0)
    cell = SLSTM(3, 8, forget=forget)
    inputs = (1e4 * torch.randn(50, 4, 3)).requires_grad_()
    outputs, state = unroll(cell, inputs, engine=engine)
    assert outputs.isfinite().all() and (outputs.abs() <= 1 + 1e-5).all() and (state.n >= 1).all()
    gradients = torch.autograd.grad(outputs.sum(), [inputs, *cell.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_heads_are_cells_side_by_side() -> None:
    whole = SLSTM(3, 6, heads=2)
    x = torch.randn(5, 2, 3)
    outputs = unroll(whole, x)[0].chunk(2, dim=2)
    for k, output in enumerate(outputs):
        head = SLSTM(3, 3)
        with torch.no_grad():
            for own, of_all in zip(head.packed, whole.packed, strict=True):
                rows = slice(3 * k, 3 * k + 3)
                for to, source in ((own.W, of_all.W[rows]), (own.U, of_all.U[rows, rows]), (own.b, of_all.b[rows])):
                    to.copy_(source)
        assert_same([unroll(head, x)[0]], [output], tolerance=1e-6)


def test_heads_run_compiled_as_eagerly() -> None:
    torch.manual_seed(0)
    cell, results = SLSTM(3, 6, heads=3), []
    inputs, lengths = torch.randn(7, 3, 3, requires_grad=True), torch.tensor([7, 2, 5])
    for engine in ("compiled", "eager"):
        outputs, state = unroll(cell, inputs, None, lengths, engine=engine)  # type: ignore[arg-type]
        loss = outputs.square().sum() + state.c.sum()
        results.append([outputs, *state, *torch.autograd.grad(loss, [inputs, *cell.parameters()])])
    assert_same(*results, tolerance=1e-5)


def test_the_blocks_are_the_recurrent_weights() -> None:
    cell = SLSTM(3, 6, heads=3)
    assert [tuple(weight.shape) for weight in cell.recurrent_weights()] == 12 * [(2, 2)]
    assert cell.packed.weight_hidden.shape == (24, 2)


@pytest.mark.parametrize("heads", [0, 4, 12])
def test_heads_that_do_not_divide_are_refused(heads: int) -> None:
    with pytest.raises(ConfigError) as caught:
        SLSTM(3, 6, heads=heads)
    assert str(caught.value) == (f"heads: does not divide hidden_size (got {heads}); 1, 2, 3, 6; 1 is one head for all")


def test_an_unknown_forget_gate_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        SLSTM(3, 4, forget="tanh")  # type: ignore[arg-type]
    assert str(caught.value) == ("forget: unknown (got 'tanh'); sigmoid, exp; sigmoid never grows what is kept")
