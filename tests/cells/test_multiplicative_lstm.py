"""The multiplicative LSTM."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from cell_registry import assert_same
from transcription import Array, assert_transcribed, sigmoid

from carousel.cells import LSTM, MultiplicativeLSTM

Weights = Mapping[str, Array]


def test_step_is_the_equations() -> None:
    def equations(w: Weights, x: Array, s: Weights) -> Weights:
        m = (x @ w["transition.weight_input"].T) * (s["h"] @ w["transition.weight_hidden"].T)
        i, f, g, o = (x @ w[f"W_{k}"].T + m @ w[f"U_{k}"].T + w[f"b_{k}"] for k in "ifgo")
        c = sigmoid(f) * s["c"] + sigmoid(i) * np.tanh(g)
        return {"h": sigmoid(o) * np.tanh(c), "c": c}

    assert_transcribed(MultiplicativeLSTM(3, 4), "ifgo", equations)


def test_where_the_input_leaves_the_state_as_it_is_it_is_an_lstm() -> None:
    cell, plain = MultiplicativeLSTM(3, 4), LSTM(3, 4)
    cell.packed.load_state_dict(plain.packed.state_dict())
    with torch.no_grad():
        cell.multiplicative.W.fill_(1 / 3)
        cell.multiplicative.U.copy_(torch.eye(4))
    x, state = torch.ones(2, 3), cell.State(torch.randn(2, 4), torch.randn(2, 4))
    assert_same(list(cell.step(x, state)), list(plain.step(x, state)), tolerance=1e-6)


def test_the_forget_bias_is_where_it_should_be() -> None:
    cell = MultiplicativeLSTM(3, 4, forget_bias=2.5)
    assert [bool((gate.b == 2.5).all()) for gate in cell.packed] == [False, True, False, False]
    assert cell.transition.bias is None and MultiplicativeLSTM(3, 4, bias=False).packed.bias is None
