"""Running a cell by its scan: who asks for it, and who gets it; that it is the loop, see `test_check`."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import pytest
import torch
from cell_registry import assert_same, gradients
from torch import Tensor

from carousel.cells import CELLS, LSTM, Cell, MinGRU, Packed, linear_scan
from carousel.errors import ConfigError
from carousel.nn import Recurrent, unroll


def test_layers_in_both_directions() -> None:
    torch.manual_seed(0)
    scanned = Recurrent("mingru", 3, 4, layers=2, bidirectional=True, engine="scan")
    stepped = Recurrent(list(scanned.cells), bidirectional=True, engine="eager")
    inputs, lengths = torch.randn(6, 3, 3), torch.tensor([6, 2, 5])
    (got, _), (wanted, _) = scanned(inputs, lengths=lengths), stepped(inputs, lengths=lengths)
    assert_same([got], [wanted], tolerance=1e-6)
    with pytest.raises(AssertionError, match="not close"):
        assert_same([got], [stepped(inputs)[0]], tolerance=1e-6)


def test_a_stream_takes_steps() -> None:
    recurrent = Recurrent("mingru", 3, 4, engine="scan")
    stream, inputs = recurrent.stream(), torch.randn(5, 1, 3)
    assert_same([torch.stack([stream(x) for x in inputs])], [recurrent(inputs)[0]], tolerance=1e-6)


def test_a_cell_without_a_scan_is_told_which_have_one() -> None:
    with pytest.raises(ConfigError) as caught:
        unroll(LSTM(3, 4), torch.zeros(5, 2, 3), engine="scan")
    those = ", ".join(name for name in CELLS if CELLS[name].scan is not Cell.scan)
    assert "mingru" in those.split(", ") and "lstm" not in those.split(", ")
    assert str(caught.value) == f"engine: LSTM has no scan (got 'scan'); {those}; take one, or engine='auto'"


class Counted(MinGRU):
    scans = 0

    def scan(self, inputs: Tensor, state: MinGRU.State) -> MinGRU.State:
        type(self).scans += 1
        return super().scan(inputs, state)


class Foreign(Cell):
    """A linear cell with an operation that the compiler does not know."""

    scans = 0

    class State(NamedTuple):
        h: Tensor

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        (self.candidate,) = self.packed = Packed(input_size, hidden_size, maps=1, recurrent_size=0)

    def step(self, x: Tensor, state: State) -> State:
        return self.State((state.h / 2 + self.candidate.input(x)).contiguous())

    def scan(self, inputs: Tensor, state: State) -> State:
        type(self).scans += 1
        return self.State(linear_scan(torch.tensor(0.5), self.candidate.input(inputs), state.h))


def ran_by_scan(cell: Any, inputs: Tensor, engine: Any = "auto") -> bool:
    before = cell.scans
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unroll(cell, inputs, engine=engine)
    return bool(cell.scans > before)


def test_auto_scans_where_no_compiled_loop_could_run() -> None:
    inputs = torch.randn(5, 2, 3)
    assert not ran_by_scan(Counted(3, 4), inputs)  # compiled
    assert not ran_by_scan(Counted(3, 4).double(), inputs.double())
    assert ran_by_scan(Counted(3, 4), inputs, "scan")
    assert ran_by_scan(Counted(3, 4).to("meta"), inputs.to("meta"))
    assert not ran_by_scan(Counted(3, 4).to("meta"), inputs.to("meta"), "eager")
    assert ran_by_scan(Foreign(3, 4), inputs)
    assert not ran_by_scan(Foreign(3, 4), inputs, "eager")


def test_under_torch_compile() -> None:
    cell, inputs = MinGRU(3, 4), torch.randn(5, 2, 3)
    run = torch.compile(lambda inputs: unroll(cell, inputs, engine="scan")[0], backend="eager", fullgraph=True)
    got, wanted = run(inputs), unroll(cell, inputs, engine="eager")[0]
    of = list(cell.parameters())
    assert_same([got, *gradients([got], of)], [wanted, *gradients([wanted], of)], tolerance=1e-5)
