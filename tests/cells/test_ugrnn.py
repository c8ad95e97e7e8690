"""The update gate recurrent network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cell_registry import arrays, assert_same

from carousel.cells import UGRNN


@pytest.mark.parametrize(("name", "function"), [("tanh", np.tanh), ("relu", lambda a: np.maximum(a, 0))])
def test_step_is_the_equations(name: str, function: np.ufunc) -> None:
    cell = UGRNN(3, 4, activation=name).double()
    random, w = np.random.default_rng(0), arrays(cell)
    x, h = random.normal(size=(2, 3)), random.normal(size=(2, 4))
    (Wg, Wc), (Ug, Uc), (bg, bc) = (
        np.split(w[f"packed.{name}"], 2) for name in ("weight_input", "weight_hidden", "bias")
    )
    g = 1 / (1 + np.exp(-(x @ Wg.T + h @ Ug.T + bg)))
    by_hand = g * h + (1 - g) * function(x @ Wc.T + h @ Uc.T + bc)
    assert_same([cell.step(torch.tensor(x), cell.State(torch.tensor(h))).h], [torch.tensor(by_hand)])


@pytest.mark.parametrize("value", [1.0, -2.5])
def test_the_forget_bias_is_where_it_should_be(value: float) -> None:
    cell = UGRNN(3, 4, forget_bias=value)
    assert (cell.gate.b == value).all() and not (cell.candidate.b == value).any()  # type: ignore[union-attr]
    assert (UGRNN(3, 4).gate.b == 1).all()  # type: ignore[union-attr]
