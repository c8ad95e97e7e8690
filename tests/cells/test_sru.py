"""The simple recurrent unit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from carousel.cells import SRU
from carousel.errors import ConfigError
from carousel.nn import unroll


def sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


@pytest.mark.parametrize("recurrent_gates", [True, False])
@pytest.mark.parametrize("I", [3, 4])
def test_step_is_the_equations(I: int, recurrent_gates: bool) -> None:  # noqa: E741
    torch.manual_seed(0)
    cell = SRU(I, 4, recurrent_gates=recurrent_gates, highway_bias=-1.5).double()
    weights = {name: parameter.detach().numpy() for name, parameter in cell.named_parameters()}
    random = np.random.default_rng(0)
    x, c = random.normal(size=(5, I)), random.normal(size=(5, 4))
    (W_f, W_r), (b_f, b_r) = np.split(weights["gates.weight_input"], 2), np.split(weights["gates.bias"], 2)
    W, *W_h = np.split(weights["packed.weight_input"], 1 if I == 4 else 2)
    v_f, v_r = (weights.get(name, 0.0) for name in ("recurrent_forget", "recurrent_reset"))
    f, r = sigmoid(x @ W_f.T + v_f * c + b_f), sigmoid(x @ W_r.T + v_r * c + b_r)
    new = f * c + (1 - f) * (x @ W.T)
    around = x if I == 4 else x @ W_h[0].T
    h = r * new + (1 - r) * around * math.sqrt(1 + 2 * math.exp(-1.5))
    state = cell.step(torch.from_numpy(x), cell.State(torch.zeros(5, 4), torch.from_numpy(c)))
    np.testing.assert_allclose(state.c.detach().numpy(), new, rtol=0, atol=1e-14)
    np.testing.assert_allclose(state.h.detach().numpy(), h, rtol=0, atol=1e-14)


def test_weights_start_with_the_variance_of_the_paper_and_the_bias_that_is_asked_for() -> None:
    torch.manual_seed(0)
    cell = SRU(100, 200, highway_bias=-2.0)
    for weight in (cell.gates.weight_input, cell.packed.weight_input):
        assert float(weight.detach().var()) == pytest.approx(1 / 100, rel=0.05)
    assert cell.gates.bias is not None
    assert torch.equal(cell.gates.bias, torch.tensor([0.0, -2.0]).repeat_interleave(200))


def test_gates_that_read_the_state_leave_no_scan() -> None:
    assert SRU(3, 4, recurrent_gates=False).has_scan and not SRU(3, 4).has_scan
    with pytest.raises(ConfigError, match="SRU has no scan"):
        unroll(SRU(3, 4), torch.zeros(5, 2, 3), engine="scan")
