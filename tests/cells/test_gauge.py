"""A gauge by itself: what it reads, what it cuts, and what it leaves alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from carousel.cells import Readings, gauged


def backward(gradient: Tensor, limit: float = math.inf, by: str = "norm") -> tuple[Tensor, Tensor]:
    """What is read of a gradient, and what goes on."""
    value, reading = torch.zeros_like(gradient).requires_grad_(), torch.zeros(len(gradient), 1).requires_grad_()
    gauged(value, reading, limit, by).backward(gradient)  # type: ignore[no-untyped-call]
    assert value.grad is not None and reading.grad is not None
    return reading.grad, value.grad


def test_each_sequence_is_cut_by_itself() -> None:
    read, cut = backward(torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]), limit=2.5)
    assert torch.allclose(read, torch.tensor([[5.0], [0.5], [0.0]]))
    assert torch.allclose(cut, torch.tensor([[1.5, 2.0], [0.3, 0.4], [0.0, 0.0]]))


def test_by_value_the_largest_entry_is_read() -> None:
    read, cut = backward(torch.tensor([[3.0, -4.0], [0.3, -0.4]]), limit=3.5, by="value")
    assert torch.allclose(read, torch.tensor([[4.0], [0.4]]))
    assert torch.allclose(cut, torch.tensor([[3.0, -3.5], [0.3, -0.4]]))


def test_without_a_limit_nothing_is_cut() -> None:
    gradient = 1e6 * torch.randn(3, 2, 4)  # a state that is a matrix, too
    read, cut = backward(gradient)
    assert torch.equal(cut, gradient)
    torch.testing.assert_close(read[:, 0], gradient.flatten(1).norm(dim=1))


@pytest.mark.parametrize("by", ["norm", "value"])
def test_the_cut_gradient_can_be_differentiated(by: str) -> None:
    value, reading = torch.randn(3, 4).double().requires_grad_(), torch.zeros(3, 1).double().requires_grad_()

    def cut(gradient: Tensor) -> Any:
        return torch.autograd.grad(gauged(value, reading, 0.7, by), [value, reading], gradient, create_graph=True)

    assert torch.autograd.gradcheck(cut, torch.randn(3, 4).double().requires_grad_())


def test_integers_pass() -> None:
    count = torch.ones(2, 1, dtype=torch.long)
    assert gauged(count, torch.zeros(2, 1)) is count


def test_readings_are_made_for_a_backward_pass_alone() -> None:
    made: list[Tensor] = []
    readings, x = Readings(made.append), torch.randn(2, 3)
    with torch.no_grad():
        readings(x)
    torch.func.grad(lambda x: (x * readings(x)).sum())(x)
    assert not made
    assert readings(x) is made[0] and made[0].requires_grad and made[0].shape == (2, 1)
