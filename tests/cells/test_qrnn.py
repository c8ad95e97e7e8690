"""The quasi-recurrent network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from carousel.cells import QRNN
from carousel.errors import ConfigError


def sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
def test_a_sequence_is_the_equations(pooling: str) -> None:
    torch.manual_seed(0)
    cell = QRNN(3, 4, pooling=pooling).double()
    W, U, b = (parameter.detach().numpy() for parameter in cell.packed.parameters())
    inputs, c = np.random.default_rng(0).normal(size=(6, 2, 3)), np.zeros((2, 4))
    state, before = cell.initial_state(2), np.zeros((2, 3))
    for x in inputs:
        maps = np.split(x @ W.T + before @ U.T + b, 1 + len(pooling), axis=1)
        z, f = np.tanh(maps[0]), sigmoid(maps[1])
        c = f * c + (sigmoid(maps[3]) if pooling == "ifo" else 1 - f) * z
        h = c if pooling == "f" else sigmoid(maps[2]) * c
        state, before = cell.step(torch.from_numpy(x), state), x
        np.testing.assert_allclose(state.h.detach().numpy(), h, rtol=0, atol=1e-14)
        np.testing.assert_allclose(state.c.detach().numpy(), c, rtol=0, atol=1e-14)


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        QRNN(3, 4, pooling="max")
    assert str(caught.value) == "pooling: unknown (got 'max'); f, fo, ifo; fo is the paper's usual one"
