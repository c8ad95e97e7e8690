"""States of every step, and gates by name."""

from __future__ import annotations

import sys

import pytest
import torch
from cell_registry import CASES, Case, assert_same, ragged_inputs, random_state

from carousel.cells import GRU, LSTM
from carousel.nn import Dilated, Zoneout, trajectory, unroll

LENGTHS = torch.tensor([2, 6, 4])


@pytest.mark.parametrize("case", [case for case in CASES if case.traceable], ids=lambda case: case.name)
def test_every_state_is_that_after_so_many_steps(case: Case) -> None:
    cell, inputs = case.cell(), ragged_inputs(LENGTHS, fill=torch.nan)
    start = random_state(cell, 3)
    states, gates = trajectory(cell, inputs, start, LENGTHS)
    outputs, _ = unroll(cell, inputs, start, LENGTHS)
    assert_same([states[0]], [outputs], 1e-10)
    for steps in range(1, 7):
        alive = steps <= LENGTHS
        _, end = unroll(cell, inputs[:steps], start, LENGTHS.clamp(max=steps))
        assert_same([field[steps - 1, alive] for field in states], [field[alive] for field in end], 1e-10)
    padding = torch.arange(6)[:, None] >= LENGTHS
    assert not any(tensor[padding].any() for tensor in [*states, *gates.values()])


def test_gates_have_the_names_of_the_equations() -> None:
    cell, inputs = LSTM(3, 4), torch.randn(5, 2, 3)
    states, gates = trajectory(cell, inputs)
    assert set(gates) == set("ifgoch")
    before = torch.cat([torch.zeros(1, 2, 4), states.c[:-1]])
    assert_same([gates["f"] * before + gates["i"] * gates["g"]], [states.c], 1e-6)
    assert_same([gates["o"] * torch.tanh(gates["c"])], [states.h], 1e-6)
    states.c.sum().backward()
    assert cell.packed.weight_hidden.grad is not None
    assert set(trajectory(GRU(3, 4), inputs).gates) == set("rza")


def test_gates_of_a_wrapped_cell_are_those_inside() -> None:
    cell, inputs = Dilated(Zoneout(LSTM(3, 4), 0.1), 2).eval(), torch.randn(5, 2, 3)
    states, gates = trajectory(cell, inputs)
    assert set(gates) == set("ifgoch") and states._fields == ("h", "c", "h_1", "c_1")
    assert_same([states.h], [unroll(cell, inputs)[0]], 1e-6)


def test_a_profile_that_runs_goes_on() -> None:
    calls: list[str] = []

    def watch(frame: object, event: str, result: object) -> None:
        calls.append(event)

    sys.setprofile(watch)
    try:
        trajectory(GRU(3, 4), torch.randn(2, 1, 3))
        assert sys.getprofile() is watch
    finally:
        sys.setprofile(None)
    assert "return" in calls
