"""The minimal gated cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from carousel.cells import MinGRU, MinLSTM


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def g(a: np.ndarray) -> np.ndarray:
    return np.where(a >= 0, a + 0.5, sigmoid(a))


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("make", [MinGRU, MinLSTM])
def test_step_is_the_equations(make: type[MinGRU | MinLSTM], positive: bool) -> None:
    torch.manual_seed(0)
    cell = make(3, 4, positive=positive).double()
    x, h = np.random.default_rng(0).normal(size=(5, 3)), np.random.default_rng(1).normal(size=(5, 4))
    assert cell.packed.bias is not None
    W, b = cell.packed.weight_input.detach().numpy(), cell.packed.bias.detach().numpy()
    maps = np.split(x @ W.T + b, len(W) // 4, axis=1)
    a = g(maps[-1]) if positive else maps[-1]
    if make is MinGRU:
        z = sigmoid(maps[0])
        wanted = (1 - z) * h + z * a
    else:
        f, i = sigmoid(maps[0]), sigmoid(maps[1])
        wanted = f / (f + i) * h + i / (f + i) * a
    got = cell.step(torch.from_numpy(x), cell.State(torch.from_numpy(h))).h
    np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=0, atol=1e-14)


def test_gates_that_are_both_shut_still_share() -> None:
    cell = MinLSTM(3, 4)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        for gate in (cell.forget, cell.input):
            assert gate.b is not None
            gate.b.fill_(-200)  # σ of which is 0 in float32
    state = cell.step(torch.zeros(1, 3), cell.State(torch.ones(1, 4)))
    assert torch.equal(state.h, torch.full((1, 4), 0.5))


@pytest.mark.parametrize("make", [MinGRU, MinLSTM])
def test_a_positive_state_stays_so(make: type[MinGRU | MinLSTM]) -> None:
    torch.manual_seed(0)
    cell = make(3, 4, positive=True)
    states = cell.scan(10 * torch.randn(50, 2, 3), cell.initial_state(2))
    assert (states.h > 0).all()
