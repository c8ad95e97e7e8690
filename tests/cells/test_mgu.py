"""The minimal gated unit."""

from __future__ import annotations

import numpy as np
import torch
from cell_registry import arrays, assert_same

from carousel.cells import GRU, MGU


def test_step_is_the_equations() -> None:
    cell = MGU(3, 4).double()
    random, w = np.random.default_rng(0), arrays(cell)
    x, h = random.normal(size=(2, 3)), random.normal(size=(2, 4))
    (Wf, Wa), (Uf, Ua), (bf, ba) = (
        np.split(w[f"packed.{name}"], 2) for name in ("weight_input", "weight_hidden", "bias")
    )
    f = 1 / (1 + np.exp(-(x @ Wf.T + h @ Uf.T + bf)))
    by_hand = (1 - f) * h + f * np.tanh(x @ Wa.T + (f * h) @ Ua.T + ba)
    assert_same([cell.step(torch.tensor(x), cell.State(torch.tensor(h))).h], [torch.tensor(by_hand)])


def test_it_is_a_gru_with_one_gate_for_both() -> None:
    torch.manual_seed(0)
    gru, cell = GRU(3, 4), MGU(3, 4)
    with torch.no_grad():
        for name, packed in cell.packed.named_parameters():
            forget, candidate = packed.chunk(2)
            # 1 − σ(v) = σ(−v): the GRU's update gate keeps, the MGU's replaces.
            gru.packed.get_parameter(name).copy_(torch.cat([forget, -forget, candidate]))
    x, h = torch.randn(2, 3), torch.randn(2, 4)
    assert_same([cell.step(x, cell.State(h)).h], [gru.step(x, gru.State(h)).h], tolerance=1e-6)
