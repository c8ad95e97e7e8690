"""The simple recurrent network, and its like."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from cell_registry import arrays, assert_same
from torch import Tensor, nn

from carousel.cells import ACTIVATIONS, IRNN, Elman, Jordan
from carousel.errors import ConfigError
from carousel.nn import Recurrent


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


def test_irnn_step_is_the_equation() -> None:
    cell = IRNN(3, 4).double()
    nn.init.normal_(cell.packed.weight_hidden)
    x, h, w = np.random.default_rng(0).normal(size=(2, 3)), np.random.default_rng(1).normal(size=(2, 4)), arrays(cell)
    by_hand = np.maximum(0, x @ w["packed.weight_input"].T + h @ w["packed.weight_hidden"].T + w["packed.bias"])
    assert by_hand.any() and not by_hand.all()
    assert_same([cell.step(torch.tensor(x), cell.State(torch.tensor(h))).h], [torch.tensor(by_hand)])


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_irnn_starts_as_an_accumulator(scale: float) -> None:
    torch.manual_seed(0)
    cell = IRNN(50, 100, scale=scale)
    assert torch.equal(cell.candidate.U, scale * torch.eye(100))
    assert not cell.candidate.b.any()  # type: ignore[union-attr]
    assert 0.00095 < cell.candidate.W.std() < 0.00105
    assert abs(cell.candidate.W.mean()) < 0.0001
    assert IRNN(3, 4, bias=False).packed.bias is None


@pytest.mark.parametrize("O", [None, 2, 6])
def test_jordan_step_is_the_equations(O: int | None) -> None:  # noqa: E741
    cell = Jordan(3, 4, output_size=O, output_activation="softsign").double()
    random, w = np.random.default_rng(0), arrays(cell)
    x, y = random.normal(size=(2, 3)), random.normal(size=(2, O or 4))
    h = np.tanh(x @ w["packed.weight_input"].T + y @ w["packed.weight_hidden"].T + w["packed.bias"])
    a = h @ w["output.weight"].T + w["output.bias"]
    by_hand = a / (1 + abs(a))
    assert_same([cell.step(torch.tensor(x), cell.State(torch.tensor(y))).y], [torch.tensor(by_hand)])


def test_jordan_may_have_any_output_size() -> None:
    network = Recurrent("jordan", 3, 4, layers=2, output_size=2)
    outputs, (_, last) = network(torch.randn(5, 2, 3))
    assert outputs.shape == (5, 2, 2) and torch.equal(last.y, outputs[-1])
    assert "output_size=2" in repr(network)
    with pytest.raises(ConfigError, match=r"^output_size: not a size \(got 0\); 1 or more; hidden_size by default$"):
        Jordan(3, 4, output_size=0)
    with pytest.raises(ConfigError, match=r"^output_activation: unknown \(got 'tan'\)"):
        Jordan(3, 4, output_activation="tan")
