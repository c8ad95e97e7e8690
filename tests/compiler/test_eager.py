"""What leaves the time loop, and that it is found anew when the cell changes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from cell_registry import Case, Highway, assert_same, every_cell, plain_loop
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from carousel.cells import GRU, LSTM, Elman, ResetAfterGRU
from carousel.compiler import known
from carousel.compiler.eager import Hoisted, Run
from carousel.nn import unroll


def hoisted(cell: Any) -> Hoisted | None:
    return known(cell).hoisted


RUNS = {
    Elman: [Run("packed", 0, 1, True, True)],
    LSTM: [Run("packed", 0, 4, True, True)],
    GRU: [Run("packed", 0, 2, True, True), Run("packed", 2, 3, True, True)],
    ResetAfterGRU: [
        Run("packed", 0, 2, True, True),
        Run("packed", 2, 3, False, True),
        Run("packed", 2, 3, True, False),
    ],
    Highway: [Run("block", 0, 1, True, True), Run("block", 1, 2, True, True)],  # third reads 2·x, and stays as it is
}


class Products(TorchDispatchMode):
    """Counts the matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm", "bmm", "baddbmm"):
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


@every_cell
def test_every_cell_that_can_be_traced_is(case: Case) -> None:
    assert (hoisted(case.cell()) is not None) == case.traceable


@pytest.mark.parametrize("cell", RUNS, ids=lambda cell: cell.__name__)
def test_maps_with_one_operand_are_one_product(cell: type[Any]) -> None:
    found = hoisted(cell(3, 4))
    assert found is not None
    assert list(found.runs) == RUNS[cell]
    assert found.reads_x == (cell is Highway)


@pytest.mark.parametrize(
    ("cell", "before", "each_step"), [(Elman, 1, 1), (LSTM, 1, 1), (GRU, 2, 2), (ResetAfterGRU, 2, 2)]
)
def test_products_of_the_inputs_are_taken_once(cell: type[Any], before: int, each_step: int) -> None:
    for T in (1, 10):
        with Products() as products, torch.no_grad():
            unroll(cell(3, 4), torch.randn(T, 2, 3), engine="eager")
        assert products.count.total() == before + each_step * T


def test_neighbours_are_found_in_any_order() -> None:
    class Shuffled(LSTM):
        def __init__(self, input_size: int, hidden_size: int) -> None:
            super().__init__(input_size, hidden_size)
            self.output, self.candidate, self.input, self.forget = self.packed

    cell, inputs = Shuffled(3, 4), torch.randn(5, 2, 3)
    found = hoisted(cell)
    assert found is not None and list(found.runs) == RUNS[LSTM]
    assert_same(
        [unroll(cell, inputs, engine="eager")[0]], [plain_loop(cell, inputs, cell.initial_state(2))[0]], tolerance=1e-6
    )


def test_weights_are_read_as_they_are_now() -> None:
    cell, inputs = LSTM(3, 4), torch.randn(5, 2, 3)
    unroll(cell, inputs)
    found = hoisted(cell)
    cell.packed.weight_hidden = nn.Parameter(torch.randn(16, 4))
    cell.load_state_dict({name: 2 * weight for name, weight in cell.state_dict().items()})
    cell.double()
    assert hoisted(cell) is found
    inputs = inputs.double()
    assert_same([unroll(cell, inputs, engine="eager")[0]], [plain_loop(cell, inputs, cell.initial_state(2))[0]])


def test_a_changed_setting_is_traced_anew() -> None:
    cell, inputs = Elman(3, 4, activation="tanh"), torch.randn(5, 2, 3)
    unroll(cell, inputs)
    cell.activation = torch.relu
    assert_same(
        [unroll(cell, inputs, engine="eager")[0]], [plain_loop(cell, inputs, cell.initial_state(2))[0]], tolerance=1e-6
    )


def test_a_step_may_differ_in_training() -> None:
    class Noisy(Elman):
        def step(self, x: torch.Tensor, state: Elman.State) -> Elman.State:
            h = super().step(x, state).h
            return self.State(h + 1 if self.training else h)

    cell, inputs = Noisy(3, 4), torch.randn(5, 2, 3)
    for mode in (True, False, True):
        cell.train(mode)
        assert_same(
            [unroll(cell, inputs, engine="eager")[0]],
            [plain_loop(cell, inputs, cell.initial_state(2))[0]],
            tolerance=1e-6,
        )


def test_an_error_in_a_step_is_the_error_one_sees() -> None:
    class Broken(Elman):
        def step(self, x: torch.Tensor, state: Elman.State) -> Elman.State:
            return self.State(state.c)  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match="has no attribute 'c'"):
        unroll(Broken(3, 4), torch.randn(5, 2, 3))


def test_under_autocast_memory_and_the_sum_of_gradients_stay_exact() -> None:
    torch.manual_seed(0)
    cell, inputs, weights = LSTM(8, 32), torch.randn(200, 4, 8), torch.randn(200, 4, 32)

    def gradient(enabled: bool) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            outputs, state = unroll(cell, inputs)
        assert state.c.dtype == torch.float32
        return torch.autograd.grad((outputs * weights).sum(), cell.packed.weight_hidden)[0]

    exact = gradient(False)
    assert float((gradient(True) - exact).norm() / exact.norm()) < 0.01  # summed over time in bfloat16: 0.017
