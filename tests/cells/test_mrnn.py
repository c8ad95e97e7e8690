"""The multiplicative recurrent network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cell_registry import arrays, assert_same

from carousel.cells import MRNN
from carousel.errors import ConfigError


@pytest.mark.parametrize("F", [None, 2, 6])
def test_step_is_the_equations(F: int | None) -> None:
    cell = MRNN(3, 4, factor_size=F).double()
    random, w = np.random.default_rng(0), arrays(cell)
    x, h = random.normal(size=3), random.normal(size=4)
    f = np.diag(w["factors.weight_input"] @ x) @ w["factors.weight_hidden"] @ h
    by_hand = np.tanh(w["packed.weight_hidden"] @ f + w["packed.weight_input"] @ x + w["packed.bias"])
    assert f.shape == (F or 4,)
    assert_same([cell.step(torch.tensor(x[None]), cell.State(torch.tensor(h[None]))).h], [torch.tensor(by_hand[None])])


def test_a_factor_has_a_size() -> None:
    with pytest.raises(ConfigError, match=r"^factor_size: not a size \(got 0\); 1 or more; hidden_size by default$"):
        MRNN(3, 4, factor_size=0)
