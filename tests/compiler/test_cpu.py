"""The compiled loops against the plain loop in float64, and what a row may depend on: itself alone."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from cell_registry import CASES, Case, random_state
from differential import OURS, Problem, check, random_problem, row_by_row
from torch import Tensor
from user_cells import USER_CELLS, Deep, NormedTogether, PerSequence, Zoneout

from carousel.cells import ACTIVATIONS, GRU, LSTM, Cell, Elman
from carousel.compiler import known, products, reference
from carousel.compiler.extent import extent
from carousel.compiler.function import Lane
from carousel.compiler.function import unroll as run_operands
from carousel.compiler.operands import Given, Operands
from carousel.nn import unroll

COMPILED = [case for case in CASES if case.compiled]


def problem_of(cell: Cell, T: int, B: int, lengths: list[int] | None = None) -> Problem:
    state = cell.State(*(field.detach().div(2).requires_grad_() for field in random_state(cell, B)))
    inputs = torch.randn(T, B, cell.input_size, requires_grad=True)
    return Problem(cell, inputs, state, None if lengths is None else torch.tensor(lengths))


@pytest.mark.parametrize("case", COMPILED, ids=lambda case: case.name)
def test_every_cell_of_the_registry(case: Case) -> None:
    torch.manual_seed(1)
    check(problem_of(case.make(3, 5, **case.options), 4, 6, [4, 2, 1, 4, 3, 3]))
    check(problem_of(case.make(2, 7, **case.options), 3, 2))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_that_has_a_name(name: str) -> None:
    torch.manual_seed(1)
    check(problem_of(Elman(3, 5, activation=name), 4, 6, [4, 2, 1, 4, 3, 3]))


@pytest.mark.parametrize("name", USER_CELLS)
def test_every_cell_of_users(name: str) -> None:
    torch.manual_seed(2)
    check(problem_of(USER_CELLS[name](3, 5).eval(), 4, 6, [4, 2, 1, 4, 3, 3]))
    check(problem_of(USER_CELLS[name](2, 7).eval(), 3, 9))


@pytest.mark.parametrize("name", [*OURS, "PerSequence"])
@pytest.mark.parametrize("tens", range(5))
def test_random_shapes(name: str, tens: int) -> None:
    for seed in range(10 * tens, 10 * tens + 10):  # 200 in all
        check(random_problem(seed, {**OURS, **USER_CELLS}[name]))


def test_a_long_sequence() -> None:
    torch.manual_seed(3)
    check(problem_of(LSTM(3, 17), 300, 2, [300, 171]))


# What is drawn before the loop.


def test_masks_are_new_at_each_step_and_the_gradient_is_of_the_same_ones() -> None:
    torch.manual_seed(4)
    cell = Zoneout(3, 32)
    inputs = torch.randn(6, 5, 3)
    program = known(cell).program
    operands = program.recurrence.operands(cell, inputs.flatten(0, 1))
    masks = [mask for mask in operands.inputs if ((mask == 0) | ((mask - 1 / 0.7).abs() < 1e-6)).all()]
    assert len(masks) == 2 and all(mask.shape == (30, 32) for mask in masks)
    for mask in masks:
        assert 0.6 < float((mask > 0).float().mean()) < 0.8
        assert not torch.equal(mask[:5], mask[5:10])
    state = cell.initial_state(5)
    tensors = [tensor.detach().requires_grad_() for tensor in operands.inputs]
    own = Operands(tensors, operands.weights, operands.vectors)
    results = [run_operands([Lane(program, Given.of(own, state), extent((5,) * 6), 1)])[0][0]]
    results.append(reference.run(program.recurrence, own, state, (5,) * 6)[0])
    torch.testing.assert_close(*results, rtol=0, atol=2e-6)
    one, other = (torch.autograd.grad(result.square().sum(), tensors[0])[0] for result in results)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


# A row and the others.


def given(cell: Cell, T: int, B: int) -> tuple[Any, list[Tensor], Any]:
    """A program, the input operands (T, B, ·) and the state."""
    program = known(cell).program
    operands = program.recurrence.operands(cell, torch.randn(T * B, cell.input_size))
    state = cell.State(*(torch.randn_like(field) for field in cell.initial_state(B)))
    return program, [tensor.detach().unflatten(0, (T, B)) for tensor in operands.inputs], state


def of_rows(cell: Cell, program: Any, inputs: list[Tensor], state: Any, rows: list[int], threads: int = 1) -> Tensor:
    """Outputs, final state and gradients of the input operands and of the state: (rows, ·), for some of the rows."""
    T = len(inputs[0])
    weights = program.recurrence.operands(cell, torch.zeros(1, cell.input_size))
    chosen = [tensor[:, rows].flatten(0, 1).requires_grad_() for tensor in inputs]
    start = [field[rows].requires_grad_() for field in state]
    operands = Operands(chosen, weights.weights, weights.vectors)
    [(outputs, ends)] = run_operands([Lane(program, Given.of(operands, start), extent((len(rows),) * T), threads)])
    found = torch.autograd.grad(outputs.square().sum() + ends[-1].sum(), [*chosen, *start], allow_unused=True)
    shared = [g for g in found[: len(chosen)] if g is not None]
    parts = [tensor.unflatten(0, (T, len(rows))).transpose(0, 1).flatten(1) for tensor in (outputs, *shared)]
    return torch.cat([*parts, *ends, *(g for g in found[len(chosen) :] if g is not None)], dim=1).detach()


def same_bits_in_any_batch(make: Any, H: int) -> None:
    torch.manual_seed(5)
    cell = make(3, H)
    program, inputs, state = given(cell, 4, 32)
    whole = of_rows(cell, program, inputs, state, list(range(32)))
    assert whole.isfinite().all()
    for size in (1, 2, 5, 13):
        for first in range(0, 32 - size + 1, 1 if size < 3 else 3):
            rows = list(range(first, first + size))
            assert torch.equal(of_rows(cell, program, inputs, state, rows), whole[rows])
    shuffled = random.Random(0).sample(range(32), 32)
    assert torch.equal(of_rows(cell, program, inputs, state, shuffled), whole[shuffled])
    for threads in (2, 3, 5):
        assert torch.equal(of_rows(cell, program, inputs, state, list(range(32)), threads), whole)


@pytest.mark.parametrize(("make", "H"), [(LSTM, 16), (GRU, 21), (NormedTogether, 5), (PerSequence, 19), (Deep, 1)])
def test_the_same_bits_in_any_batch_and_for_any_number_of_threads(make: Any, H: int) -> None:
    same_bits_in_any_batch(make, H)


@pytest.mark.parametrize("lengths", [None, [5, 1, 3, 5, 2, 1, 1, 4, 1]], ids=["full", "ragged"])
def test_threads_change_nothing(lengths: list[int] | None) -> None:
    torch.manual_seed(6)
    problem = problem_of(GRU(3, 21), 5, 9, lengths)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        check(problem)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["LSTM", "NormedTogether", "PerSequence"])
def test_nan_in_one_sequence_stays_there(name: str) -> None:
    torch.manual_seed(7)
    cell = {**OURS, **USER_CELLS}[name](3, 13)
    clean = torch.randn(4, 7, 3)
    dirty = clean.clone()
    dirty[1, 3] = math.nan
    results = []
    for inputs in (clean, dirty):
        inputs.requires_grad_()
        outputs, state = unroll(cell, inputs, engine="compiled")
        gradient = torch.autograd.grad(outputs[:, [0, 1, 2, 4, 5, 6]].sum(), inputs)[0]
        results.append(torch.cat([row_by_row(outputs, state), gradient.transpose(0, 1).flatten(1)], 1).detach())
    others = [0, 1, 2, 4, 5, 6]
    assert torch.equal(results[0][others], results[1][others])
    assert results[1][3].isnan().any() and not outputs[0, 3].isnan().any()


@pytest.mark.parametrize("fill", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["LSTM", "PerSequence", "Widths"])
def test_padding_is_never_read(name: str, fill: float) -> None:
    torch.manual_seed(8)
    cell = {**OURS, **USER_CELLS}[name](3, 13)
    lengths = torch.tensor([4, 1, 3, 4, 2])
    past = torch.arange(4)[:, None] >= lengths
    results = []
    for padding in (0.0, fill):
        inputs = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
        inputs[past] = padding
        inputs.requires_grad_()
        outputs, state = unroll(cell, inputs, lengths=lengths, engine="compiled")
        loss = outputs.square().sum() + sum(field.sum() for field in state)
        found = torch.autograd.grad(loss, [inputs, *cell.parameters()], allow_unused=True)
        assert not outputs[past].any() and not found[0][past].any()
        results.append([outputs, *state, *(g for g in found if g is not None)])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other) and one.isfinite().all()


def test_the_same_bits_on_every_run() -> None:
    torch.manual_seed(9)
    problem = problem_of(LSTM(3, 21), 5, 7, [5, 1, 3, 5, 2, 1, 4])

    def run() -> list[Tensor]:
        outputs, state = unroll(problem.cell, problem.inputs, problem.state, problem.lengths, engine="compiled")
        return [outputs, *torch.autograd.grad(outputs.square().sum() + state.c.sum(), list(problem.leaves.values()))]

    first = run()
    for _ in range(5):
        torch.empty(1000).fill_(math.nan)  # what memory held before must not matter
        assert all(map(torch.equal, first, run()))


@pytest.mark.parametrize("make", [LSTM, GRU])
def test_a_step_at_a_time_is_the_whole(make: Any) -> None:
    torch.manual_seed(10)
    cell, inputs = make(3, 21), torch.randn(6, 4, 3)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            whole, end = unroll(cell, inputs, engine="compiled")
            state, outputs = None, []
            for x in inputs:
                output, state = unroll(cell, x[None], state, engine="compiled")
                outputs.append(output)
        torch.testing.assert_close(torch.cat(outputs), whole, rtol=0, atol=1e-6)
        torch.testing.assert_close(tuple(state), tuple(end), rtol=0, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["LSTM", "GRU", "Deep", "PerSequence", "SideBySide"])
@pytest.mark.parametrize("rows", [1, 9, 16])
def test_pieces_of_time_are_the_whole(monkeypatch: pytest.MonkeyPatch, name: str, rows: int) -> None:
    in_pieces(monkeypatch, name, rows)


def in_pieces(patch: pytest.MonkeyPatch, name: str, rows: int) -> None:
    """Check a cell that goes through time by so many rows, over even batches and ragged ones."""
    patch.setattr(products, "PIECE", 0)
    patch.setattr(products, "FEWEST", rows)
    torch.manual_seed(8)
    make = {**OURS, **USER_CELLS}[name]
    check(problem_of(make(3, 5), 11, 4))
    check(problem_of(make(3, 5), 9, 4, [9, 3, 1, 4]))
