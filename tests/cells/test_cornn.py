"""The coupled oscillatory network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from carousel.cells import CoRNN
from carousel.errors import ConfigError


def test_step_is_the_equations() -> None:
    torch.manual_seed(0)
    cell = CoRNN(3, 4, time_step=0.3, frequency=1.5, damping=0.5).double()
    p = {name: parameter.detach().numpy() for name, parameter in cell.named_parameters()}
    random = np.random.default_rng(0)
    x, y, z = random.normal(size=(5, 3)), *random.normal(size=(2, 5, 4))
    W, U, V, b = (p[name] for name in ("packed.weight_hidden", "weight_velocity", "packed.weight_input", "packed.bias"))
    z_new = z + 0.3 * (np.tanh(y @ W.T + z @ U.T + x @ V.T + b) - 1.5 * y - 0.5 * z)
    y_new = y + 0.3 * z_new
    got = cell.step(torch.from_numpy(x), cell.State(torch.from_numpy(y), torch.from_numpy(z)))
    np.testing.assert_allclose(got.y.detach().numpy(), y_new, rtol=0, atol=1e-14)
    np.testing.assert_allclose(got.z.detach().numpy(), z_new, rtol=0, atol=1e-14)


def test_a_unit_left_alone_is_a_damped_oscillator() -> None:
    """y'' = −γ y − ε y', whose solution is known."""
    cell = CoRNN(1, 1, time_step=1e-3, frequency=4.0, damping=0.4).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        state = cell.State(torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
        for _ in range(5000):
            state = cell.step(torch.zeros(1, 1, dtype=torch.float64), state)
    ω, t = np.sqrt(4 - 0.2**2), 5.0
    assert float(state.y) == pytest.approx(np.exp(-0.2 * t) * (np.cos(ω * t) + 0.2 / ω * np.sin(ω * t)), abs=5e-3)


@pytest.mark.parametrize("name", ["time_step", "frequency", "damping"])
def test_options_that_cannot_be_are_refused(name: str) -> None:
    options: Any = {name: 0.0}
    with pytest.raises(ConfigError) as caught:
        CoRNN(3, 4, **options)
    assert str(caught.value) == f"{name}: not positive (got 0.0); above 0; see CoRNN for usual values"
