"""The antisymmetric network, plain and gated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from carousel.cells import Antisymmetric, GatedAntisymmetric
from carousel.errors import ConfigError


def sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


@pytest.mark.parametrize("gated", [False, True])
def test_step_is_the_equations(gated: bool) -> None:
    torch.manual_seed(0)
    cell = (GatedAntisymmetric if gated else Antisymmetric)(3, 4, step_size=0.3, diffusion=0.2).double()
    p = {name: parameter.detach().numpy() for name, parameter in cell.named_parameters()}
    random = np.random.default_rng(0)
    x, h = random.normal(size=(5, 3)), random.normal(size=(5, 4))
    M = p["weight_hidden"] - p["weight_hidden"].T - 0.2 * np.eye(4)
    V, *V_z = np.split(p["packed.weight_input"], 1 + gated)
    b, *b_z = np.split(p["packed.bias"], 1 + gated)
    z = sigmoid(h @ M.T + x @ V_z[0].T + b_z[0]) if gated else 1.0
    wanted = h + 0.3 * z * np.tanh(h @ M.T + x @ V.T + b)
    got = cell.step(torch.from_numpy(x), cell.State(torch.from_numpy(h))).h
    np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=0, atol=1e-14)


def test_eigenvalues_are_on_a_line_as_far_from_the_imaginary_axis_as_the_diffusion() -> None:
    cell = Antisymmetric(3, 8, diffusion=0.25).double()
    M = torch.func.jacrev(cell.recurrent)(torch.zeros(8, dtype=torch.float64)).detach()
    λ = torch.linalg.eigvals(M)
    torch.testing.assert_close(λ.real, torch.full_like(λ.real, -0.25))
    assert λ.imag.abs().max() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_size": 0.0}, "step_size: not a step (got 0.0); above 0; 0.1 is usual"),
        ({"diffusion": -0.1}, "diffusion: not stable (got -0.1); 0 or more; 0.01 is usual"),
    ],
)
def test_options_that_cannot_be_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Antisymmetric(3, 4, **options)
    assert str(caught.value) == message
