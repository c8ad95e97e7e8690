"""Layers of cells."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from cell_registry import Case, Highway, assert_same, every_cell
from torch import Tensor, nn

from carousel.cells import CELLS, GRU, LSTM, Cell, Elman
from carousel.errors import ConfigError
from carousel.nn import Recurrent, unroll


def flat(state: tuple[Any, ...]) -> list[Tensor]:
    return [field for layer in state for field in layer]


def stack(case: Case, **options: Any) -> Recurrent:
    below = case.cell(3, 4)
    return Recurrent([below, case.cell(below.output_size, 4, seed=1)], **options)


@every_cell
def test_layers_are_cells_on_top_of_each_other(case: Case) -> None:
    recurrent, lengths = stack(case), torch.tensor([5, 2])
    inputs = torch.randn(5, 2, 3, dtype=torch.float64)
    below, first = unroll(recurrent.cells[0], inputs, None, lengths)  # type: ignore[arg-type]
    above, second = unroll(recurrent.cells[1], below, None, lengths)  # type: ignore[arg-type]
    outputs, state = recurrent(inputs, lengths=lengths)
    assert_same([outputs, *flat(state)], [above, *first, *second], tolerance=0)


@every_cell
def test_stepping_is_running(case: Case) -> None:
    recurrent = stack(case, dropout=0.5).eval()
    inputs = torch.randn(5, 2, 3, dtype=torch.float64)
    state, outputs = None, []
    for x in inputs:
        output, state = recurrent.step(x, state)
        outputs.append(output)
    assert state is not None
    wanted, final = recurrent(inputs)
    assert_same([torch.stack(outputs), *flat(state)], [wanted, *flat(final)])


@every_cell
def test_the_initial_state_is_what_none_means(case: Case) -> None:
    recurrent, inputs = stack(case), torch.randn(5, 2, 3, dtype=torch.float64)
    start = recurrent.initial_state(2)
    assert [type(layer) for layer in start] == [type(cell.initial_state(2)) for cell in recurrent.cells]
    assert_same([recurrent(inputs, start)[0]], [recurrent(inputs)[0]], tolerance=0)
    assert_same([recurrent.step(inputs[0], start)[0]], [recurrent.step(inputs[0])[0]], tolerance=0)


@every_cell
def test_batch_first_is_the_transpose(case: Case) -> None:
    recurrent, lengths = stack(case), torch.tensor([5, 2])
    other = copy.deepcopy(recurrent)
    other.batch_first = True
    inputs = torch.randn(5, 2, 3, dtype=torch.float64)
    (outputs, state), (swapped, same) = recurrent(inputs, None, lengths), other(inputs.transpose(0, 1), None, lengths)
    assert_same([swapped.transpose(0, 1), *flat(same)], [outputs, *flat(state)], tolerance=0)


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_by_name_by_class_and_ready_made_are_one(name: str) -> None:
    inputs, results = torch.randn(5, 2, 3), []
    width = CELLS[name](3, 4).output_size
    for make in (
        lambda: Recurrent(name, 3, 4, layers=2),
        lambda: Recurrent(CELLS[name], 3, 4, layers=2),
        lambda: Recurrent([CELLS[name](3, 4), CELLS[name](width, 4)]),
    ):
        torch.manual_seed(0)
        results.append(make()(inputs)[0])
    assert_same(results[1:], [results[0], results[0]], tolerance=0)


def test_one_ready_made_cell_is_one_layer() -> None:
    cell = GRU(3, 4)
    recurrent, inputs = Recurrent(cell), torch.randn(5, 2, 3)
    assert (recurrent.input_size, recurrent.hidden_size, len(recurrent.cells)) == (3, 4, 1)
    assert_same([recurrent(inputs)[0]], [unroll(cell, inputs)[0]], tolerance=0)


def test_layers_may_be_of_different_cells_and_sizes() -> None:
    outputs, state = Recurrent([LSTM(3, 6), Highway(6, 5), Elman(5, 2)])(torch.randn(7, 2, 3))
    assert outputs.shape == (7, 2, 2)
    assert [layer[0].shape[1] for layer in state] == [6, 5, 2]


def test_options_reach_every_cell() -> None:
    recurrent = Recurrent("lstm", 3, 4, layers=2, forget_bias=5.0)
    assert all((cell.forget.b == 5).all() for cell in recurrent.cells)  # type: ignore[operator, union-attr]


def test_the_state_dict_carries_everything() -> None:
    one, other = Recurrent("gru", 3, 4, layers=2), Recurrent("gru", 3, 4, layers=2)
    inputs = torch.randn(5, 2, 3)
    other.load_state_dict(one.state_dict())
    assert_same([other(inputs)[0]], [one(inputs)[0]], tolerance=0)
    assert "cells.1.packed.weight_hidden" in one.state_dict()


class Passing(Cell):
    """Gives its input on, so that what dropout does can be seen."""

    State = GRU.State

    def step(self, x: Tensor, state: GRU.State) -> GRU.State:
        return self.State(x + 0 * state.h)

    def initial_state(self, batch: int, **options: Any) -> GRU.State:
        return GRU.State(torch.zeros(batch, self.hidden_size))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_between_layers_and_in_training_only(layers: int, training: bool) -> None:
    torch.manual_seed(0)
    recurrent = Recurrent(Passing, 64, 64, layers=layers, dropout=0.5).train(training)
    ones = torch.ones(10, 8, 64)
    outputs, state = recurrent(ones)
    streamed, _ = recurrent.step(ones[0])
    drops = layers - 1 if training else 0
    for got in (outputs, streamed):
        assert abs(float((got != 0).float().mean()) - 0.5**drops) < 0.06
        assert set(got.unique().tolist()) == ({0.0, 2.0**drops} if drops else {1.0})
    assert torch.equal(state[-1].h, outputs[-1])  # not after the last


def test_dropout_of_everything_leaves_nothing() -> None:
    assert not Recurrent(Passing, 4, 4, layers=2, dropout=1.0)(torch.ones(5, 2, 4))[0].any()


@pytest.mark.parametrize("module", [nn.LSTM(3, 4, 2, dropout=0.3, batch_first=True), nn.GRU(3, 4), nn.RNN(3, 4)])
def test_torch_options_are_kept(module: nn.RNNBase) -> None:
    recurrent = Recurrent.from_torch(module)
    assert (recurrent.dropout, recurrent.batch_first) == (module.dropout, module.batch_first)
    assert repr(recurrent.to_torch()) == repr(module)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (
            ("lstn", 3, 4),
            {},
            "cell: unknown (got 'lstn'); lstm, lstm-np, slstm and all that `carousel cells` lists; "
            "did you mean 'lstm'?",
        ),
        (("lstm", 3), {}, "hidden_size: missing (got None); 1 or more; needed to make a LSTM"),
        (("lstm",), {}, "input_size: missing (got None); 1 or more; needed to make a LSTM"),
        (("lstm", 0, 4), {}, "input_size: not a size (got 0); 1 or more; give the number of features"),
        (("lstm", 3, 4), {"layers": 0}, "layers: not a number of layers (got 0); 1 or more; 1 is the plain cell"),
        (("lstm", 3, 4), {"dropout": 1.5}, "dropout: not a probability (got 1.5); 0 to 1; 0 turns it off"),
        (
            ("lstm", 3, 4),
            {"forgetbias": 1.0},
            "forgetbias: not an option of LSTM (got 1.0); forget_bias, bias; did you mean 'forget_bias'?",
        ),
        (([],), {}, "cell: an empty list (got []); at least one cell; give one per layer"),
        ((GRU(3, 4),), {"bias": False}, "bias: ready-made cells take no options (got False); none; set it on the cell"),
        ((GRU(3, 4),), {"layers": 2}, "layers: not the number of cells (got 2); 1; give one cell per layer"),
        ((GRU(3, 4), 3, 5), {}, "input_size, hidden_size: not the cells' (got 3, 5); 3, 4; leave them out"),
        (
            ([GRU(3, 4), GRU(3, 4)],),
            {},
            "cell: layer 1 does not fit (got input_size 3); 4, the output size below it; match them",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(arguments: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Recurrent(*arguments, **options)
    assert str(caught.value) == message


def test_inputs_and_states_that_do_not_fit_are_refused() -> None:
    recurrent = Recurrent("gru", 3, 4, layers=2)
    with pytest.raises(ConfigError, match=r"^inputs: wrong shape \(got \(5, 3\)\)"):
        recurrent(torch.zeros(5, 3))
    with pytest.raises(ConfigError, match=r"^x: wrong shape \(got \(5, 2, 3\)\); \(B, 3\); one time step"):
        recurrent.step(torch.zeros(5, 2, 3))
    with pytest.raises(ConfigError, match=r"^x: wrong shape \(got \(0, 3\)\)"):
        recurrent.step(torch.zeros(0, 3))
    with pytest.raises(ConfigError, match=r"^state: does not fit \(got 1\); a tuple of 2, one state per layer"):
        recurrent(torch.zeros(5, 2, 3), recurrent.initial_state(2)[:1])
    with pytest.raises(ConfigError, match=r"^state: does not fit the inputs \(got \[\(3, 4\)\]\); \{'h': \(2, 4\)\}"):
        recurrent.step(torch.zeros(2, 3), recurrent.initial_state(3))
    with pytest.raises(ConfigError, match=r"^lengths: out of range \(got 6\); 1 to 5"):
        recurrent(torch.zeros(5, 2, 3), lengths=torch.tensor([6, 1]))
