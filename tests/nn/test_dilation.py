"""Dilated cells are the plain loop over the states d steps ago, in 1/d of the steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cell_registry import CASES, Case, assert_same, gradients, ragged_inputs, random_state
from torch import Tensor

from carousel.cells import GRU, Cell
from carousel.nn import Dilated, dilation, unroll


def plain(cell: Cell, inputs: Tensor, ages: list[Any], d: int) -> tuple[Tensor, list[Any]]:
    """The loop of the docstring over (T, 1, I); states by age, the newest first."""
    states = [*reversed(ages)]
    for x in inputs:
        states.append(cell.step(x, states[-d]))
    return torch.stack([state[0] for state in states[d:]]), states[: -d - 1 : -1]


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name in ("lstm", "lstm-projected", "highway")], ids=lambda case: case.name
)
@pytest.mark.parametrize("lengths", [[6, 6], [7, 7, 7], [7, 1, 3, 2, 4], [1], [2, 2], [5, 7]], ids=str)
@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_dilation_is_the_plain_loop(case: Case, lengths: list[int], d: int) -> None:
    cell, sizes = case.cell(), torch.tensor(lengths)
    dilated, batch = Dilated(cell, d), len(lengths)
    inputs = ragged_inputs(sizes)
    ages = [random_state(cell, batch) for _ in range(d)]
    start = dilated.State(*(field for age in ages for field in age))
    outputs, state = unroll(dilated, inputs, start, None if len(set(lengths)) == 1 else sizes)

    wanted, ends = torch.zeros_like(outputs), []
    for b, length in enumerate(lengths):
        own = [type(age)(*(field[b : b + 1] for field in age)) for age in ages]
        sequence, end = plain(cell, inputs[:length, b : b + 1], own, d)
        wanted = wanted.index_put((torch.arange(length), torch.tensor(b)), sequence[:, 0])
        ends.append([field for age in end for field in age])
    finals = [torch.cat(field) for field in zip(*ends, strict=True)]
    assert_same([outputs, *state], [wanted, *finals])
    rest = [inputs, *start, *cell.parameters()]
    assert_same(gradients([outputs, *state], rest), gradients([wanted, *finals], rest), 1e-11)


def test_a_state_in_the_wrong_turn_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unturned(self: Any, sizes: list[int], batch: int, d: int) -> None:
        whole(self, sizes, batch, d)
        self.ages = self.ages[[*range(1, d), 0]]

    whole = dilation._Fold.__init__
    monkeypatch.setattr(dilation._Fold, "__init__", unturned)
    with pytest.raises(AssertionError, match="not close"):
        test_dilation_is_the_plain_loop(CASES[0], [7, 1, 3], 2)


@pytest.mark.parametrize(("lengths", "d"), [([12, 12], 4), ([12, 12], 5), ([12, 7, 1], 4)])
def test_there_are_a_dth_of_the_steps(lengths: list[int], d: int) -> None:
    cell = Dilated(GRU(3, 4), d)
    seen: list[list[int]] = []

    def run(cell: Cell, inputs: Tensor, sizes: list[int], state: Any) -> Any:
        seen.append(sizes)
        return inputs.new_zeros(len(inputs), 4), state

    sizes = [sum(length > t for length in lengths) for t in range(12)]
    cell.run(run, torch.zeros(sum(lengths), 3), sizes, cell.initial_state(len(lengths)))
    assert (len(seen[0]), sum(seen[0])) == (-(-12 // d), sum(lengths))
