"""Unrolling is the plain loop, whatever the lengths and the padding; for every cell, see `test_check`."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from cell_registry import CASES, Case, assert_same, gradients, plain_loop, ragged_inputs, random_state
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from carousel.cells import GRU, LSTM, Cell
from carousel.errors import ConfigError
from carousel.nn import unroll
from carousel.nn.unroll import Layout

SOME = [case for case in CASES if case.name in ("elman-tanh", "lstm-projected", "clockwork", "highway", "mlstm")]


def everything(cell: Cell, outputs: Tensor, state: Any, ends: list[Tensor]) -> list[Tensor]:
    """Outputs, the final state and the gradients of the ends and of every weight."""
    results = [outputs, *state]
    return results + gradients(results, [*ends, *cell.parameters()])


def alone(cell: Cell, inputs: Tensor, start: Any, lengths: Tensor) -> tuple[Tensor, Any]:
    """Each sequence by itself through the plain loop, outputs padded with zeros."""
    outputs, states = [], []
    for b, length in enumerate(lengths.tolist()):
        output, state = plain_loop(cell, inputs[:length, b : b + 1], cell.State(*(f[b : b + 1] for f in start)))
        outputs.append(torch.cat([output, output.new_zeros(len(inputs) - length, 1, output.shape[2])]))
        states.append(state)
    return torch.cat(outputs, dim=1), cell.State(*(torch.cat(field) for field in zip(*states, strict=True)))


@pytest.mark.parametrize("case", SOME, ids=lambda case: case.name)
@pytest.mark.parametrize("lengths", [[6, 2, 1, 4], [2, 6, 6], [1]], ids=str)
@pytest.mark.parametrize("fill", [0.0, math.inf, math.nan])
def test_ragged_is_each_sequence_alone(case: Case, lengths: list[int], fill: float) -> None:
    cell, sizes = case.cell(), torch.tensor(lengths)
    clean = ragged_inputs(sizes)
    dirty = ragged_inputs(sizes, fill=fill)
    start = random_state(cell, len(lengths))
    got = everything(cell, *unroll(cell, dirty, start, sizes), [dirty, *start])
    assert_same(got, everything(cell, *alone(cell, clean, start, sizes), [clean, *start]))


def test_padding_beyond_the_longest_sequence_is_zero() -> None:
    cell = GRU(3, 4)
    inputs = torch.full((8, 2, 3), math.nan)
    inputs[:5] = torch.randn(5, 2, 3)
    outputs, state = unroll(cell, inputs, lengths=torch.tensor([5, 3]))
    assert outputs.shape == (8, 2, 4)
    assert not outputs[5:].any() and not outputs[3:, 1].any()
    assert torch.equal(state.h, torch.stack([outputs[4, 0], outputs[2, 1]]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_full_lengths_are_no_lengths(dtype: torch.dtype) -> None:
    cell, inputs = LSTM(3, 4), torch.randn(5, 2, 3)
    assert Layout.of(inputs, torch.tensor([5, 5], dtype=dtype)) == Layout.of(inputs, None)
    with_lengths, without = unroll(cell, inputs, lengths=torch.tensor([5, 5], dtype=dtype)), unroll(cell, inputs)
    assert_same([with_lengths[0], *with_lengths[1]], [without[0], *without[1]], tolerance=0)


def test_sequences_left_out_of_order_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Layout, "restore", lambda self, state: state)
    with pytest.raises(AssertionError, match="not close"):
        test_ragged_is_each_sequence_alone(CASES[0], [6, 2, 1, 4], 0.0)


def test_a_sequence_that_runs_on_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Layout.of
    monkeypatch.setattr(Layout, "of", lambda inputs, lengths: full(inputs, None))
    with pytest.raises(AssertionError, match="not close"):
        test_ragged_is_each_sequence_alone(CASES[0], [6, 2, 1, 4], 0.0)


def masked_loop(cell: Cell, inputs: Tensor, state: Any, lengths: Tensor) -> tuple[Tensor, Any]:
    """All sequences to the last step, what is past a length thrown away."""
    outputs = []
    for t, x in enumerate(inputs):
        here = t < lengths
        both = zip(cell.step(x, state), state, strict=True)
        state = cell.State(*(torch.where(here.view(-1, *[1] * (new.dim() - 1)), new, old) for new, old in both))
        outputs.append(state[0] * here[:, None])
    return torch.stack(outputs), state


@pytest.mark.parametrize("case", SOME, ids=lambda case: case.name)
def test_shrinking_is_masking(case: Case) -> None:
    cell, lengths = case.cell(), torch.tensor([1, 4, 6, 4, 2])
    inputs, start = ragged_inputs(lengths), random_state(cell, 5)
    got = everything(cell, *unroll(cell, inputs, start, lengths), [inputs, *start])
    assert_same(got, everything(cell, *masked_loop(cell, inputs, start, lengths), [inputs, *start]))


def test_a_step_is_of_the_sequences_still_alive() -> None:
    sizes: list[int] = []

    class Counting(GRU):
        def step(self, x: Tensor, state: GRU.State) -> GRU.State:
            sizes.append(len(x))  # a traced step has no length, so this one runs as written
            return super().step(x, state)

    unroll(Counting(3, 4), torch.randn(8, 4, 3), lengths=torch.tensor([5, 2, 1, 5]), engine="eager")
    assert sizes == [4, 3, 2, 2, 2]


@pytest.mark.parametrize("case", [case for case in CASES if case.traceable], ids=lambda case: case.name)
def test_a_batch_costs_what_its_sequences_cost_alone(case: Case) -> None:
    def flops(inputs: Tensor, lengths: Tensor | None) -> int:
        with FlopCounterMode(display=False) as counter:
            outputs, _ = unroll(cell, inputs, random_state(cell, inputs.shape[1]), lengths)
            outputs.sum().backward()
        return counter.get_total_flops()

    cell, lengths = case.cell(), torch.tensor([5, 2, 1, 4])
    inputs = torch.randn(6, 4, 3, dtype=torch.float64, requires_grad=True)
    alone = [flops(inputs[:length, b : b + 1], None) for b, length in enumerate(lengths.tolist())]
    assert flops(inputs, lengths) == sum(alone) > 0


@pytest.mark.parametrize("shape", [(0, 2, 3), (5, 0, 3), (5, 2, 4), (5, 3), (1, 5, 2, 3)], ids=str)
def test_inputs_of_the_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        unroll(GRU(3, 4), torch.zeros(shape))
    assert str(caught.value) == (
        f"inputs: wrong shape (got {shape}); (T, B, 3) with T and B at least 1; drop empty batches"
    )


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (torch.tensor([0, 5]), "out of range (got 0); 1 to 5, the time steps; drop empty sequences"),
        (torch.tensor([-3, 5]), "out of range (got -3); 1 to 5"),
        (torch.tensor([2, 6]), "out of range (got 6); 1 to 5"),
        (torch.tensor([5]), "wrong shape or type (got (1,) of torch.int64); integers of shape (2,); one per sequence"),
        (torch.tensor(5), "wrong shape or type (got () of torch.int64)"),
        (torch.tensor([5.0, 5.0]), "wrong shape or type (got (2,) of torch.float32)"),
        (torch.tensor([True, True]), "wrong shape or type (got (2,) of torch.bool)"),
    ],
)
def test_lengths_that_cannot_be_are_refused(lengths: Tensor, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        unroll(GRU(3, 4), torch.zeros(5, 2, 3), lengths=lengths)
    assert str(caught.value).startswith(f"lengths: {message}")


@pytest.mark.parametrize(
    ("state", "got"),
    [
        (torch.zeros(2, 4), "Tensor"),
        ((torch.zeros(2, 4),), "[(2, 4)]"),
        ((torch.zeros(2, 4), torch.zeros(3, 4)), "[(2, 4), (3, 4)]"),
        ((torch.zeros(2, 4), torch.zeros(2, 1)), "[(2, 4), (2, 1)]"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(state: Any, got: str) -> None:
    with pytest.raises(ConfigError) as caught:
        unroll(LSTM(3, 4), torch.zeros(5, 2, 3), state)
    assert str(caught.value) == (
        f"state: does not fit the inputs (got {got}); {{'h': (2, 4), 'c': (2, 4)}}; see initial_state"
    )
