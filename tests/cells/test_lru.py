"""The linear recurrent unit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from carousel.cells import LRU
from carousel.errors import ConfigError


def test_a_sequence_is_the_equations_in_complex_numbers() -> None:
    torch.manual_seed(0)
    cell = LRU(3, 4, state_size=5).double()
    p = {name: parameter.detach().numpy() for name, parameter in cell.named_parameters()}
    λ = np.exp(-np.exp(p["nu"]) + 1j * np.exp(p["theta"]))
    B = p["B.weight_input"][:5] + 1j * p["B.weight_input"][5:]
    C = p["C_real"] + 1j * p["C_imaginary"]
    s, state = np.zeros((2, 5), complex), cell.initial_state(2)
    for x in np.random.default_rng(0).normal(size=(6, 2, 3)):
        s = λ * s + np.exp(p["gamma"]) * (x @ B.T)
        h = (s @ C.T).real + x @ p["D"].T
        state = cell.step(torch.from_numpy(x), state)
        np.testing.assert_allclose(state.h.detach().numpy(), h, rtol=0, atol=1e-13)
        np.testing.assert_allclose(state.real.detach().numpy(), s.real, rtol=0, atol=1e-13)
        np.testing.assert_allclose(state.imaginary.detach().numpy(), s.imag, rtol=0, atol=1e-13)


def test_eigenvalues_start_in_the_ring_evenly_over_its_area() -> None:
    torch.manual_seed(0)
    cell = LRU(3, 4, state_size=20_000, r_min=0.5, r_max=0.9, max_phase=1.0)
    λ = torch.complex(*cell.eigenvalues()).detach()
    assert 0.5 <= λ.abs().min() < 0.51 and 0.89 < λ.abs().max() <= 0.9
    assert 0.0 <= λ.angle().min() < 0.01 and 0.99 < λ.angle().max() <= 1.0
    inside = (λ.abs() < 0.7).double().mean()  # of the area between 0.5 and 0.9
    assert float(inside) == pytest.approx((0.7**2 - 0.5**2) / (0.9**2 - 0.5**2), abs=0.02)


def test_the_state_is_as_large_as_what_drives_it() -> None:
    """γ = √(1 − |λ|²): under white noise E|s|² = |B x|², however close to 1 the eigenvalue is."""
    torch.manual_seed(0)
    cell = LRU(3, 4, state_size=500, r_min=0.9, r_max=0.99)
    with torch.no_grad():
        states = cell.scan(torch.randn(1000, 10, 3), cell.initial_state(10))
        energy = (states.real[500:].square() + states.imaginary[500:].square()).mean((0, 1))
        driven = cell.B.weight_input.square().sum(1).view(2, -1).sum(0)
    assert float((energy / driven).mean()) == pytest.approx(1.0, abs=0.05)


def test_parameters_are_finite_over_the_whole_disc() -> None:
    torch.manual_seed(0)
    cell = LRU(3, 4, state_size=10_000)
    assert all(parameter.isfinite().all() for parameter in cell.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_size": 0}, "state_size: not a size (got 0); 1 or more; hidden_size by default"),
        ({"r_min": 0.9, "r_max": 0.9}, "r_min, r_max: no ring (got 0.9, 0.9); 0 <= r_min < r_max <= 1;"),
        ({"r_max": 1.1}, "r_min, r_max: no ring (got 0.0, 1.1); 0 <= r_min < r_max <= 1; where |λ| starts"),
        ({"max_phase": 7.0}, "max_phase: not an angle (got 7.0); above 0, to 2π; the largest of a λ"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LRU(3, 4, **options)
    assert str(caught.value).startswith(message)
