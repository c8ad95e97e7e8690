"""The scan is the loop, in values and in derivatives of every kind."""

from __future__ import annotations

import pytest
import torch
from cell_registry import assert_same, gradients
from torch import Tensor

from carousel.cells import linear_scan

FACTORS = {
    "gates": lambda T: torch.rand(T, 2, 3, dtype=torch.float64),
    "with zeros": lambda T: torch.rand(T, 2, 3, dtype=torch.float64).round(),
    "negative": lambda T: -torch.rand(T, 2, 3, dtype=torch.float64),
    "growing": lambda T: 1 + torch.rand(T, 2, 3, dtype=torch.float64) / 5,
    "the same at every step": lambda T: torch.rand(3, dtype=torch.float64),
    "rotations": lambda T: torch.polar(torch.rand(T, 2, 3), 6 * torch.rand(T, 2, 3)).to(torch.complex128),
}


def plain_scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    h, states = h0, []
    for a_t, b_t in zip(a.expand_as(b), b, strict=True):
        h = a_t * h + b_t
        states.append(h)
    return torch.stack(states)


def problem(kind: str, T: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(T)
    a = FACTORS[kind](T)
    b, h0 = torch.randn(T, 2, 3, dtype=a.dtype), torch.randn(2, 3, dtype=a.dtype)
    return a.requires_grad_(), b.requires_grad_(), h0.requires_grad_()


@pytest.mark.parametrize("kind", FACTORS)
@pytest.mark.parametrize("T", [1, 2, 3, 4, 7, 16, 33])
def test_it_is_the_loop(kind: str, T: int) -> None:
    leaves = problem(kind, T)
    found = []
    for states in (linear_scan(*leaves), plain_scan(*leaves)):
        parts = [torch.view_as_real(states) if states.is_complex() else states]
        found.append([*parts, *gradients(parts, list(leaves))])
    assert_same(*found, tolerance=1e-11)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # of forward-mode differentiation itself
@pytest.mark.parametrize("kind", FACTORS)
@pytest.mark.parametrize("T", [1, 2, 5])
def test_derivatives_are_those_of_finite_differences(kind: str, T: int) -> None:
    leaves = problem(kind, T)
    assert torch.autograd.gradcheck(linear_scan, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(linear_scan, leaves)


def test_a_complex_factor_is_a_rotation_of_two_real_fields() -> None:
    radius, angle = torch.rand(9, 2, 3, dtype=torch.float64), torch.randn(9, 2, 3, dtype=torch.float64)
    b, h0 = torch.randn(2, 9, 2, 3, dtype=torch.float64), torch.randn(2, 2, 3, dtype=torch.float64)
    (x, y), real, imag = h0, [], []
    for r, θ, p, q in zip(radius, angle, *b, strict=True):
        x, y = r * (θ.cos() * x - θ.sin() * y) + p, r * (θ.sin() * x + θ.cos() * y) + q
        real.append(x)
        imag.append(y)
    states = linear_scan(torch.polar(radius, angle), torch.complex(*b), torch.complex(*h0))
    assert_same([states.real, states.imag], [torch.stack(real), torch.stack(imag)])


def test_a_long_sequence_in_float32_is_as_exact_as_the_loop() -> None:
    torch.manual_seed(0)
    a, b, h0 = 1 - torch.rand(4097, 2, 3) / 100, torch.randn(4097, 2, 3), torch.randn(2, 3)
    exact = plain_scan(a.double(), b.double(), h0.double())
    error, own = ((states - exact).abs().max() for states in (linear_scan(a, b, h0), plain_scan(a, b, h0)))
    assert error <= 2 * own < 1e-4


def test_what_follows_changes_nothing() -> None:
    a, b, h0 = (tensor.detach() for tensor in problem("gates", 7))
    longer = linear_scan(torch.cat([a, a]), torch.cat([b, b]), h0)
    assert_same([linear_scan(a, b, h0)], [longer[:7]])


def test_over_a_batch_of_recurrences() -> None:
    a, b, h0 = (tensor.detach() for tensor in problem("gates", 5))
    many = torch.func.vmap(linear_scan, in_dims=(1, 1, 0), out_dims=1)(a, b, h0)
    assert_same([many], [linear_scan(a, b, h0)])


def test_states_are_of_the_widest_type() -> None:
    states = linear_scan(torch.rand(3, 2).bfloat16(), torch.rand(3, 2).bfloat16(), torch.zeros(2))
    assert states.dtype == torch.float32
