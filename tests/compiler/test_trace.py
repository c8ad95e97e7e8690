"""What leaves the loop, and how its operands lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from user_cells import USER_CELLS

from carousel.cells import GRU, LSTM, Cell, Elman, LayerNormLSTM, MinGRU, ResetAfterGRU
from carousel.compiler.operands import Product
from carousel.compiler.trace import trace
from carousel.compiler.tracer import Unsupported


@pytest.mark.parametrize(("make", "inputs", "weights"), [(LSTM, [16], 1), (GRU, [12], 1), (ResetAfterGRU, [12], 1)])
def test_input_products_are_one_and_weights_are_not_copied(make: type[Cell], inputs: list[int], weights: int) -> None:
    cell = make(3, 4)
    operands = trace(cell).operands(cell, torch.randn(7, 3))
    assert [tensor.shape[1] for tensor in operands.inputs] == inputs
    assert len(operands.weights) == weights
    assert operands.weights[0] is cell.packed.weight_hidden  # type: ignore[union-attr]


@pytest.mark.parametrize("name", USER_CELLS)
def test_leaves_never_share_columns(name: str) -> None:
    recurrence = trace(USER_CELLS[name](3, 4))
    leaves = [node for node in recurrence.graph.used(recurrence.state) if node.op in ("input", "vector")]
    columns = [(node.op, node.attr[0], node.attr[1] + k) for node in leaves for k in range(node.width)]
    assert len(columns) == len(set(columns))


def test_tracing_draws_no_random_numbers() -> None:
    cell = USER_CELLS["Zoneout"](3, 4)
    before = torch.get_rng_state()
    trace(cell)
    assert torch.equal(torch.get_rng_state(), before)


def _sorted(x: Tensor) -> Tensor:
    return x.sort(0).values


def _next_by_zero(x: Tensor) -> Tensor:
    return x + 0 * x.roll(1, 0)


@pytest.mark.parametrize("mix", [_sorted, _next_by_zero])
def test_what_mixes_the_sequences_of_a_batch_is_not_taken_out(mix: Callable[[Tensor], Tensor]) -> None:
    class Mixing(Elman):
        def step(self, x: Tensor, state: Any) -> Any:
            return super().step(mix(x), state)

    with pytest.raises(Unsupported, match="mixes the sequences"):
        trace(Mixing(3, 4))


def test_functions_of_input_products_are_left_to_the_loop() -> None:
    for make in (MinGRU, LayerNormLSTM):
        factors = trace(make(3, 8)).factors(make(3, 8), torch.randn(5, 3))
        assert all(isinstance(one, Product) for one in factors.inputs), make
