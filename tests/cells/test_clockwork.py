"""The clockwork network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from carousel.cells import Clockwork
from carousel.errors import ConfigError


def test_a_sequence_is_the_equations_module_by_module() -> None:
    torch.manual_seed(0)
    cell, periods = Clockwork(3, 6, periods=(1, 3, 4)).double(), (1, 3, 4)
    W, U, b = (parameter.detach().numpy() for parameter in cell.packed.parameters())
    inputs, h, state = np.random.default_rng(0).normal(size=(14, 2, 3)), np.zeros((2, 6)), cell.initial_state(2)
    for t, x in enumerate(inputs):
        new = h.copy()
        for i, period in enumerate(periods):
            if t % period == 0:
                module = slice(2 * i, 2 * i + 2)
                new[:, module] = np.tanh(x @ W[module].T + h[:, 2 * i :] @ U[module, 2 * i :].T + b[module])
        h, state = new, cell.step(torch.from_numpy(x), state)
        np.testing.assert_allclose(state.h.detach().numpy(), h, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("hidden_size", "units"), [(8, [3, 3, 2]), (4, [2, 1, 1]), (3, [1, 1, 1])])
def test_units_are_shared_evenly_the_fast_ones_first(hidden_size: int, units: list[int]) -> None:
    cell = Clockwork(3, hidden_size, periods=(1, 2, 4))
    assert cell.periods.tolist() == [1.0] * units[0] + [2.0] * units[1] + [4.0] * units[2]


def test_periods_are_no_weights() -> None:
    cell = Clockwork(3, 4)
    assert sorted(cell.state_dict()) == ["packed.bias", "packed.weight_hidden", "packed.weight_input"]
    assert cell.double().periods.dtype == torch.float64


@pytest.mark.parametrize(
    ("periods", "message"),
    [
        ((), "periods: not periods (got ()); from 1 on, growing; such as (1, 2, 4, 8)"),
        ((0, 1), "periods: not periods (got (0, 1)); from 1 on, growing; such as (1, 2, 4, 8)"),
        ((4, 2), "periods: not periods (got (4, 2)); from 1 on, growing; such as (1, 2, 4, 8)"),
        ((1, 2, 4, 8, 16), "periods: too many (got 5); 4, the units; a unit for each"),
    ],
)
def test_periods_that_cannot_be_are_refused(periods: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Clockwork(3, 4, periods=periods)
    assert str(caught.value) == message
