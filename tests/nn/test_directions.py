"""Layers that read a sequence both ways; one layer of every cell, see `test_check`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cell_registry import CASES, Case, assert_same, every_cell, gradients, ragged_inputs, random_state
from torch import Tensor

from carousel.cells import GRU, LSTM, Cell
from carousel.compiler import function, script
from carousel.errors import ConfigError
from carousel.nn import Directions, Recurrent, directions, unroll
from carousel.nn.unroll import Layout

SOME = [case for case in CASES if case.name in ("elman-tanh", "lstm-projected", "clockwork", "highway", "mlstm")]


def both_ways(case: Case, **options: Any) -> Recurrent:
    """Two bidirectional layers."""
    below = [case.cell(3, 4, seed=seed) for seed in (0, 1)]
    above = [case.cell(2 * below[0].output_size, 4, seed=seed) for seed in (2, 3)]
    return Recurrent([*below, *above], bidirectional=True, **options)


def cells(recurrent: Recurrent) -> list[Cell]:
    return list(recurrent.cells)  # type: ignore[arg-type]


def alone(pair: list[Cell], inputs: Tensor, state: Any) -> tuple[Tensor, list[Any]]:
    """One layer over one sequence (T, 1, I), the backward cell reading it turned around."""
    forward, first = unroll(pair[0], inputs, state[0])
    backward, second = unroll(pair[1], inputs.flip(0), state[1])
    return torch.cat([forward, backward.flip(0)], dim=2), [first, second]


def flat(state: tuple[Any, ...]) -> list[Tensor]:
    return [field for pair in state for one in pair for field in one]


@pytest.mark.parametrize("case", SOME, ids=lambda case: case.name)
@pytest.mark.parametrize("lengths", [None, [6, 2, 1, 4], [3, 3, 5, 4]], ids=["full", "ragged", "short"])
@pytest.mark.parametrize("fill", [0.0, torch.nan], ids=["zeros", "nan"])
def test_each_sequence_is_read_both_ways_within_its_own_length(
    case: Case, lengths: list[int] | None, fill: float
) -> None:
    recurrent = both_ways(case)
    sizes = torch.tensor(lengths or [6, 6, 6, 6])
    inputs, clean = ragged_inputs(sizes, fill=fill), ragged_inputs(sizes)
    start = tuple(Directions(*(random_state(cell, 4) for cell in cells(recurrent)[k : k + 2])) for k in (0, 2))
    outputs, state = recurrent(inputs, start, sizes if lengths else None)

    wanted, ends = torch.zeros_like(outputs), []
    for b, length in enumerate(sizes.tolist()):
        sequence, end = clean[:length, b : b + 1], []
        for layer, pair in enumerate(start):
            own = [type(one)(*(field[b : b + 1] for field in one)) for one in pair]
            sequence, after = alone(cells(recurrent)[2 * layer :][:2], sequence, own)
            end += after
        wanted = wanted.index_put((torch.arange(length), torch.tensor(b)), sequence[:, 0])
        ends.append([field for one in end for field in one])
    finals = [torch.cat(field) for field in zip(*ends, strict=True)]
    assert_same([outputs, *flat(state)], [wanted, *finals])
    rest = [*flat(start), *recurrent.parameters()]
    got = gradients([outputs, *flat(state)], [inputs, *rest])
    assert_same(got, gradients([wanted, *finals], [clean, *rest]))


def test_padding_turned_around_with_its_sequence_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_padding(layout: Layout, device: torch.device) -> Any:
        return lambda packed: layout.pack(layout.unpack(packed).flip(0))

    monkeypatch.setattr(directions, "reversal", with_padding)
    with pytest.raises(AssertionError, match="not close"):
        test_each_sequence_is_read_both_ways_within_its_own_length(CASES[0], [6, 2, 1, 4], 0.0)


@pytest.mark.parametrize("sizes", [[1], [3], [1, 1, 1], [3, 3], [4, 3, 1, 1], [2, 1]], ids=str)
def test_turning_around_twice_is_nothing(sizes: list[int]) -> None:
    turn = directions.reversal(Layout((len(sizes), sizes[0]), sizes), torch.device("cpu"))
    packed = torch.arange(2 * sum(sizes)).view(-1, 2)
    assert torch.equal(turn(turn(packed)), packed)
    assert torch.equal(turn(packed), packed) == (len(sizes) == 1)


def test_the_directions_are_named() -> None:
    recurrent = Recurrent("lstm", 3, 4, layers=2, bidirectional=True)
    inputs, lengths = torch.randn(5, 2, 3), torch.tensor([5, 2])
    outputs, state = recurrent(inputs, lengths=lengths)
    last = torch.stack([outputs[4, 0], outputs[1, 1]])
    assert torch.equal(state[-1].forward.h, last[:, :4])
    assert torch.equal(state[-1].backward.h, outputs[0, :, 4:])
    assert (recurrent.hidden_size, recurrent.output_size) == (4, 8)
    assert [cell.input_size for cell in cells(recurrent)] == [3, 3, 8, 8]


@every_cell
def test_the_initial_state_is_what_none_means(case: Case) -> None:
    recurrent, inputs = both_ways(case), torch.randn(5, 2, 3, dtype=torch.float64)
    start = recurrent.initial_state(2)
    assert [type(layer) for layer in start] == [Directions, Directions]
    assert_same([recurrent(inputs, start)[0]], [recurrent(inputs)[0]], tolerance=0)


def test_batch_first_is_the_transpose() -> None:
    inputs, lengths = torch.randn(5, 2, 3), torch.tensor([5, 2])
    recurrent = Recurrent("gru", 3, 4, bidirectional=True)
    wanted, _ = recurrent(inputs, lengths=lengths)
    recurrent.batch_first = True
    assert_same([recurrent(inputs.transpose(0, 1), lengths=lengths)[0].transpose(0, 1)], [wanted], tolerance=0)


def test_dropout_is_one_for_both_cells_above() -> None:
    class Passing(Cell):
        State = GRU.State

        def step(self, x: Tensor, state: GRU.State) -> GRU.State:
            return self.State(x + 0 * state.h)

        def initial_state(self, batch: int, **options: Any) -> GRU.State:
            return GRU.State(torch.zeros(batch, self.hidden_size))

    torch.manual_seed(0)
    network = Recurrent([GRU(3, 32), GRU(3, 32), Passing(64, 64), Passing(64, 64)], bidirectional=True, dropout=0.5)
    forward, backward = network(torch.randn(20, 4, 3))[0].chunk(2, dim=2)
    assert torch.equal(forward, backward)
    assert all(0.45 < (half == 0).float().mean() < 0.55 for half in forward.chunk(2, dim=2))
    network.eval()
    assert (network(torch.randn(20, 4, 3))[0] != 0).all()


def test_a_stream_has_no_future() -> None:
    with pytest.raises(ConfigError) as caught:
        Recurrent("gru", 3, 4, bidirectional=True).step(torch.zeros(2, 3))
    assert str(caught.value) == (
        "step: reads no future (got bidirectional=True); one direction; run whole sequences instead"
    )


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        ([GRU(3, 4)], {}, "cell: not two per layer (got 1); forward and backward; bidirectional layers have both"),
        (
            [GRU(3, 4), GRU(2, 4)],
            {},
            "cell: layer 0 does not fit (got input_size 2); 3, as the other direction; match them",
        ),
        (
            [GRU(3, 4), GRU(3, 5), GRU(9, 4), GRU(8, 4)],
            {},
            "cell: layer 1 does not fit (got input_size 8); 9, the output size below it; match them",
        ),
        (
            [GRU(3, 4), GRU(3, 4)],
            {"layers": 2},
            "layers: not the number of cells (got 2); 1; give two cells per layer",
        ),
    ],
)
def test_cells_that_make_no_layers_are_refused(cells: list[Cell], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Recurrent(cells, bidirectional=True, **options)
    assert str(caught.value) == message


def test_directions_may_be_of_different_cells_and_sizes() -> None:
    outputs, state = Recurrent([LSTM(3, 6), GRU(3, 2)], bidirectional=True)(torch.randn(7, 2, 3))
    assert outputs.shape == (7, 2, 8)
    assert (type(state[0].forward), type(state[0].backward)) == (LSTM.State, GRU.State)


@pytest.mark.parametrize(("state", "got"), [((GRU.State(torch.zeros(2, 4)),), "1"), ((torch.zeros(2, 4),), "Tensor")])
def test_a_state_of_one_direction_is_refused(state: Any, got: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Recurrent("gru", 3, 4, bidirectional=True)(torch.zeros(5, 2, 3), state)
    assert str(caught.value) == f"state: does not fit (got {got}); a pair per layer; forward and backward"


@pytest.mark.parametrize("lengths", [None, [5, 2, 4]])
def test_both_directions_at_once_are_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, lengths: list[int] | None
) -> None:
    torch.manual_seed(0)
    network, inputs = Recurrent("lstm", 3, 20, layers=2, bidirectional=True), torch.randn(5, 3, 3, requires_grad=True)
    before, results, ways = torch.get_num_threads(), [], []
    together = script.play
    monkeypatch.setattr(function, "play", lambda runs: ways.append(len(runs)) or together(runs))
    try:
        for threads in (1, 2, 2, 2, 2):
            torch.set_num_threads(threads)
            outputs, state = network(inputs, lengths=None if lengths is None else torch.tensor(lengths))
            ends = [field for pair in state for one in pair for field in one]
            loss = outputs.pow(2).sum() + sum(end.sum() for end in ends)
            results.append([outputs, *ends, *torch.autograd.grad(loss, [inputs, *network.parameters()])])
            with torch.no_grad():
                results[-1].append(network(inputs)[0])
    finally:
        torch.set_num_threads(before)
    assert set(ways) == {1, 2}
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))
