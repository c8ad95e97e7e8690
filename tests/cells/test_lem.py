"""The long expressive memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from carousel.cells import LEM
from carousel.errors import ConfigError


def sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


def test_step_is_the_equations() -> None:
    torch.manual_seed(0)
    cell = LEM(3, 4, time_step=0.5).double()
    V, W, b = (np.split(parameter.detach().numpy(), 4) for parameter in cell.packed.parameters())
    random = np.random.default_rng(0)
    x, y, z = random.normal(size=(5, 3)), *random.normal(size=(2, 5, 4))
    Δ, Δ_bar = (0.5 * sigmoid(y @ W[k].T + x @ V[k].T + b[k]) for k in (0, 1))
    z_new = (1 - Δ) * z + Δ * np.tanh(y @ W[2].T + x @ V[2].T + b[2])
    y_new = (1 - Δ_bar) * y + Δ_bar * np.tanh(z_new @ W[3].T + x @ V[3].T + b[3])
    got = cell.step(torch.from_numpy(x), cell.State(torch.from_numpy(y), torch.from_numpy(z)))
    np.testing.assert_allclose(got.y.detach().numpy(), y_new, rtol=0, atol=1e-14)
    np.testing.assert_allclose(got.z.detach().numpy(), z_new, rtol=0, atol=1e-14)


@pytest.mark.parametrize("time_step", [0.0, 1.5])
def test_a_step_that_cannot_be_is_refused(time_step: float) -> None:
    with pytest.raises(ConfigError) as caught:
        LEM(3, 4, time_step=time_step)
    assert str(caught.value) == (f"time_step: not a step (got {time_step}); above 0, to 1; 1 is the paper's usual one")
