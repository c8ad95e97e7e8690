"""What is compiled, what runs eagerly, and what is said about it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from user_cells import USER_CELLS, Plain

from carousel.cells import LSTM, Cell, Elman
from carousel.errors import ConfigError
from carousel.nn import unroll


def cell_of(function: Callable[..., Tensor]) -> type[Plain]:
    """A new class, of which nothing was said yet."""

    class Own(Plain):
        def step(self, x: Tensor, state: Any) -> Any:
            return self.State(function(self, x, self.first(x, state.h)))

    return Own


UNKNOWN: dict[str, Callable[..., Tensor]] = {
    "erf": lambda cell, x, a: torch.erf(a),
    "sin": lambda cell, x, a: a.sin(),
    "cumsum": lambda cell, x, a: torch.cumsum(a, 1),
    "flip": lambda cell, x, a: a.flip(1),
    "softmax": lambda cell, x, a: torch.softmax(a, 0),
    "softplus": lambda cell, x, a: F.softplus(a, threshold=1),
    "tanh": lambda cell, x, a: torch.tanh(torch.cat([a, a], 1))[:, : cell.hidden_size],
    "relu": lambda cell, x, a: F.relu(torch.tanh(a), inplace=True),
    "mean": lambda cell, x, a: torch.tanh(a - a.mean()),
    "sort": lambda cell, x, a: a.sort(1)[0],
    "add": lambda cell, x, a: torch.tanh(a) * ((a > 0) + (a > -1)),
    "pow": lambda cell, x, a: torch.tanh(a) ** 1000,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_operation_is_named_once_and_runs_eagerly(name: str) -> None:
    cell, inputs = cell_of(UNKNOWN[name])(3, 4), torch.randn(4, 2, 3)
    with pytest.warns(UserWarning, match=rf"Own runs eagerly: .*{name}.*test_engine\.py:\d+") as caught:
        outputs, _ = unroll(cell, inputs)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert torch.equal(outputs, unroll(cell, inputs)[0])  # and nothing more is said
    assert torch.equal(outputs, unroll(cell, inputs, engine="eager")[0])
    with pytest.raises(ConfigError, match=rf"engine: cannot compile Own \(got .*{name}.*test_engine\.py:\d+\)"):
        unroll(cell, inputs, engine="compiled")


def noise(cell: Plain, x: Tensor, a: Tensor) -> Tensor:
    return a + torch.randn(cell.hidden_size)


def noise_like(cell: Plain, x: Tensor, a: Tensor) -> Tensor:
    return a + torch.randn_like(cell.vector)


def weights_dropped(cell: Plain, x: Tensor, a: Tensor) -> Tensor:
    return torch.tanh(a) * F.dropout(cell.vector, 0.5, cell.training)


@pytest.mark.parametrize("function", [noise, noise_like, weights_dropped], ids=lambda function: function.__name__)
def test_random_numbers_are_new_at_each_step(function: Callable[..., Tensor]) -> None:
    cell = cell_of(function)(1, 40)
    with torch.no_grad():
        for weight in cell.parameters():
            weight.fill_(0.5)
        cell.packed.weight_hidden.zero_()
        with pytest.warns(UserWarning, match="random numbers"):
            outputs, _ = unroll(cell, torch.ones(6, 1, 1))
    assert len({tuple(row.tolist()) for row in outputs[:, 0]}) == 6


def test_a_mask_for_one_size_of_batch_runs_eagerly() -> None:
    mask = torch.rand(3, 4)
    cell, inputs = cell_of(lambda cell, x, a: torch.tanh(a) * mask)(3, 4), torch.randn(5, 3, 3)
    with pytest.warns(UserWarning, match="runs eagerly"):
        outputs, _ = unroll(cell, inputs)
    assert torch.equal(outputs, unroll(cell, inputs, engine="eager")[0])


def test_sequences_that_look_at_each_other_run_eagerly() -> None:
    cell, inputs = cell_of(lambda cell, x, a: torch.tanh(a + x.mean(0, keepdim=True).sum()))(3, 4), torch.randn(5, 3, 3)
    with pytest.warns(UserWarning, match="runs eagerly"):
        outputs, _ = unroll(cell, inputs)
    assert torch.equal(outputs, unroll(cell, inputs, engine="eager")[0])


def test_tracing_leaves_buffers_alone() -> None:
    class Counting(Plain):
        def __init__(self, input_size: int, hidden_size: int) -> None:
            super().__init__(input_size, hidden_size)
            self.register_buffer("count", torch.zeros(()))

        def new(self, x: Tensor, h: Tensor) -> Tensor:
            return torch.tanh(self.first(x, h)) * self.count.add_(1)

    cell, inputs = Counting(3, 4), torch.randn(5, 6, 3)
    with pytest.warns(UserWarning, match="runs eagerly"):
        unroll(cell, inputs)
    assert float(cell.count) == 5


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match="engine: unknown"):
        unroll(LSTM(3, 4), torch.randn(5, 2, 3), engine="fast")  # type: ignore[arg-type]


def same(cell: Cell, inputs: Tensor, wanted: Tensor, tolerance: float = 1e-6) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(unroll(cell, inputs)[0], wanted, rtol=0, atol=tolerance)


def test_float64_runs_eagerly() -> None:
    cell, inputs = LSTM(3, 4).double(), torch.randn(5, 2, 3, dtype=torch.float64)
    same(cell, inputs, unroll(cell, inputs, engine="eager")[0], 0.0)
    with pytest.raises(ConfigError, match="float64"):
        unroll(cell, inputs, engine="compiled")


def test_autocast_runs_eagerly() -> None:
    cell, inputs = LSTM(3, 4), torch.randn(5, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        same(cell, inputs, unroll(cell, inputs, engine="eager")[0], 0.0)
        with pytest.raises(ConfigError, match="autocast"):
            unroll(cell, inputs, engine="compiled")


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # of torch.func.jvp itself
def test_transformations_of_functions() -> None:
    cell = Elman(3, 4)
    inputs = torch.randn(5, 2, 3)

    def loss(inputs: Tensor, engine: Any = "auto") -> Tensor:
        return unroll(cell, inputs, engine=engine)[0].square().sum()

    eager = torch.autograd.grad(loss(inputs.requires_grad_(), "eager"), inputs)[0]
    inputs = inputs.detach()
    torch.testing.assert_close(torch.func.grad(loss)(inputs), eager, rtol=0, atol=1e-5)
    pushed = torch.func.jvp(loss, (inputs,), (torch.ones_like(inputs),))[1]
    torch.testing.assert_close(pushed, eager.sum(), rtol=1e-4, atol=1e-4)
    many = torch.func.vmap(loss)(torch.stack([inputs, 2 * inputs]))
    torch.testing.assert_close(many, torch.stack([loss(inputs), loss(2 * inputs)]), rtol=1e-5, atol=1e-5)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(inputs, torch.ones_like(inputs))
        tangent = torch.autograd.forward_ad.unpack_dual(loss(dual)).tangent
    torch.testing.assert_close(tangent, eager.sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["NormedGates", "Buffers", "Zoneout"])
def test_a_changed_mode_or_weight_is_seen(name: str) -> None:
    torch.manual_seed(0)
    cell, inputs = USER_CELLS[name](3, 4).eval(), torch.randn(5, 2, 3)
    same(cell, inputs, unroll(cell, inputs, engine="eager")[0])
    with torch.no_grad():
        for weight in cell.parameters():
            weight.mul_(1.5)
    same(cell, inputs, unroll(cell, inputs, engine="eager")[0], 3e-6)
