"""The layer-normalised LSTM."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from cell_registry import assert_same
from transcription import Array, assert_transcribed, sigmoid

from carousel.cells import LayerNormLSTM

Weights = Mapping[str, Array]


def norm(a: Array, w: Weights, name: str) -> Array:
    away = a - a.mean(axis=1, keepdims=True)
    spread = np.sqrt((away**2).mean(axis=1, keepdims=True) + 1e-5)
    return w[f"{name}.weight"] * away / spread + w[f"{name}.bias"]


def test_step_is_the_equations() -> None:
    def equations(w: Weights, x: Array, s: Weights) -> Weights:
        U, W, b = (np.concatenate([w[f"{letter}_{k}"] for k in "ifgo"]) for letter in "UWb")
        maps = norm(s["h"] @ U.T, w, "norm_hidden") + norm(x @ W.T, w, "norm_input") + b
        i, f, g, o = np.split(maps, 4, axis=1)
        c = sigmoid(f) * s["c"] + sigmoid(i) * np.tanh(g)
        return {"h": sigmoid(o) * np.tanh(norm(c, w, "norm_memory")), "c": c}

    assert_transcribed(LayerNormLSTM(3, 4), "ifgo", equations)


def test_the_scale_of_inputs_and_of_recurrent_weights_does_not_matter() -> None:
    cell = LayerNormLSTM(3, 8, epsilon=0.0).double()
    x, state = torch.randn(2, 3).double(), cell.State(torch.randn(2, 8).double(), torch.randn(2, 8).double())
    before = cell.step(x, state)
    with torch.no_grad():
        cell.packed.weight_hidden.mul_(7)
    assert_same(list(cell.step(1e4 * x, state)), list(before), tolerance=1e-12)


def test_without_biases_there_are_none() -> None:
    assert [name for name, _ in LayerNormLSTM(3, 4, bias=False).named_parameters() if "bias" in name] == []
    assert (LayerNormLSTM(3, 4, forget_bias=2.5).forget.b == 2.5).all()  # type: ignore[union-attr]
