"""The independently recurrent network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cell_registry import arrays, assert_same

from carousel.cells import IndRNN
from carousel.errors import ConfigError
from carousel.nn import unroll


def test_step_is_the_equation() -> None:
    cell = IndRNN(3, 4).double()
    random, w = np.random.default_rng(0), arrays(cell)
    x, h = random.normal(size=(2, 3)), random.normal(size=(2, 4))
    by_hand = np.maximum(0, x @ w["candidate.weight"].T + w["recurrent"] * h + w["candidate.bias"])
    assert by_hand.any() and not by_hand.all()
    assert_same([cell.step(torch.tensor(x), cell.State(torch.tensor(h))).h], [torch.tensor(by_hand)])


@pytest.mark.parametrize(("longest", "bound"), [(None, 1.0), (1, 2.0), (10, 2**0.1)])
def test_recurrent_weights_start_within_the_bound(longest: int | None, bound: float) -> None:
    torch.manual_seed(0)
    u = IndRNN(3, 1000, longest=longest).recurrent
    assert 0 <= u.min() < 0.01 * bound and 0.99 * bound < u.max() <= bound


def test_over_the_longest_sequence_nothing_grows_to_more_than_twice() -> None:
    torch.manual_seed(0)
    cell = IndRNN(3, 1000, longest=20, bias=False)
    _, final = unroll(cell, torch.zeros(20, 1, 3), cell.State(torch.ones(1, 1000)))
    assert 1.5 < final.h.max() <= 2.0001


def test_a_sequence_has_steps() -> None:
    with pytest.raises(ConfigError, match=r"^longest: not a number of steps \(got 0\); 1 or more; "):
        IndRNN(3, 4, longest=0)
