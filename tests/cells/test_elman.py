"""The simple recurrent network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cell_registry import assert_same
from torch import Tensor

from carousel.cells import ACTIVATIONS, Elman
from carousel.errors import ConfigError


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("tanh", torch.tanh),
        ("relu", torch.relu),
        ("sigmoid", torch.sigmoid),
        (torch.sin, torch.sin),
        ("identity", lambda a: a),
        ("elu", lambda a: torch.where(a > 0, a, a.exp() - 1)),
        ("hardtanh", lambda a: a.clamp(-1, 1)),
        ("leaky-relu", lambda a: torch.where(a > 0, a, a / 100)),
        ("silu", lambda a: a * a.sigmoid()),
        ("softplus", lambda a: (1 + a.exp()).log()),
        ("softsign", lambda a: a / (1 + a.abs())),
    ],
)
def test_step_is_the_equation(
    activation: str | Callable[[Tensor], Tensor], function: Callable[[Tensor], Tensor]
) -> None:
    cell = Elman(3, 4, activation=activation)
    x, h = torch.randn(2, 3), torch.randn(2, 4)
    W, U, b = cell.packed.weight_input, cell.packed.weight_hidden, cell.packed.bias
    assert_same([cell.step(x, cell.State(h)).h], [function(x @ W.t() + h @ U.t() + b)], tolerance=1e-6)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        Elman(3, 4, activation="tan")
    assert str(caught.value) == (
        f"activation: unknown (got 'tan'); {', '.join(ACTIVATIONS)}; name one or give a function"
    )
