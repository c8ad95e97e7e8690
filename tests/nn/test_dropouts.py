"""Noise inside the recurrence is where the papers put it, and gone in evaluation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cell_registry import CASES, Case, assert_same, ragged_inputs, random_state
from torch import Tensor, nn

from carousel.cells import CELLS, GRU, LSTM, Cell, Elman, LayerNormLSTM, ResetAfterGRU
from carousel.errors import ConfigError
from carousel.nn import CandidateDropout, LearnedStart, Locked, Recurrent, Zoneout, dropped_weights, unroll

ENGINES = pytest.mark.parametrize("engine", ["eager", "compiled"])


def close(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs() < 1e-5


@ENGINES
def test_zoneout_keeps_some_units_at_each_step(engine: Any) -> None:
    torch.manual_seed(0)
    inner = Elman(3, 50)
    cell, inputs, p = Zoneout(inner, 0.25), torch.randn(20, 8, 3), 0.25
    outputs, _ = unroll(cell, inputs, engine=engine)
    before = torch.cat([torch.zeros(1, 8, 50), outputs[:-1]])
    stepped = torch.stack([inner.step(x, Elman.State(h)).h for x, h in zip(inputs, before, strict=True)])
    kept = close(outputs, before)
    assert (kept | close(outputs, stepped)).all()
    share = kept.float()
    assert abs(share.mean() - p) < 0.02 and (share.mean((0, 1)) - p).abs().max() < 0.15  # of every unit
    assert not torch.equal(kept[3], kept[4]) and not torch.equal(kept[:, 0], kept[:, 1])  # new at each, for each


@ENGINES
def test_zoneout_is_its_expectation_in_evaluation(engine: Any) -> None:
    inner, inputs = LSTM(3, 4), torch.randn(6, 2, 3)
    outputs, state = unroll(Zoneout(inner, {"h": 0.2, "c": 0.5}).eval(), inputs, engine=engine)
    h, c = inner.initial_state(2)
    for x, output in zip(inputs, outputs, strict=True):
        new = inner.step(x, LSTM.State(h, c))
        h, c = 0.2 * h + 0.8 * new.h, 0.5 * c + 0.5 * new.c
        assert_same([output], [h], 1e-6)
    assert_same([*state], [h, c], 1e-6)


def test_everything_zoned_out_stands_still() -> None:
    cell = Zoneout(LSTM(3, 4), {"c": 1.0})
    start = random_state(cell, 2)
    assert_same([unroll(cell, torch.randn(5, 2, 3), start)[1].c], [start.c])


@ENGINES
def test_of_an_lstm_only_what_is_added_is_dropped(engine: Any) -> None:
    torch.manual_seed(0)
    inner = LSTM(3, 50)
    cell, x, state = CandidateDropout(inner, 0.25), torch.randn(1, 40, 3), LSTM.State(*torch.randn(2, 40, 50))
    h, c = unroll(cell, x, state, engine=engine)[1]
    i, f, g, o = (affine(x[0], state.h) for affine in (inner.input, inner.forget, inner.candidate, inner.output))
    added, carried = torch.sigmoid(i) * torch.tanh(g) / 0.75, torch.sigmoid(f) * state.c
    dropped = close(c, carried)
    assert (dropped | close(c, carried + added)).all() and abs(dropped.float().mean() - 0.25) < 0.03
    assert_same([h], [torch.sigmoid(o) * torch.tanh(c)], 1e-6)


@pytest.mark.parametrize("make", [GRU, ResetAfterGRU])
def test_of_a_gru_only_what_is_added_is_dropped(make: type[Cell]) -> None:
    inner: Any = make(3, 50)
    x, h = torch.randn(40, 3), torch.randn(40, 50)
    new = CandidateDropout(inner, 1.0).step(x, inner.State(h)).h
    assert_same([new], [torch.sigmoid(inner.update(x, h)) * h], 1e-6)


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.traceable and hasattr(c.cell(), "candidate") and "lstm-layer-norm" not in c.name],
    ids=lambda case: case.name,
)
def test_a_candidate_is_dropped_in_training_only(case: Case) -> None:
    inner = case.cell()
    cell = CandidateDropout(inner, 0.5).eval()
    x, state = torch.randn(5, 3, dtype=torch.float64), random_state(inner, 5)
    assert_same([*cell.step(x, state)], [*inner.step(x, state)], 1e-12)
    assert not torch.equal(cell.train().step(x, state)[0], cell.eval().step(x, state)[0])


@pytest.mark.parametrize(
    ("name", "kept"),  # of the last field, when nothing is added to it
    [
        ("gru", lambda cell, x, h: torch.sigmoid(cell.update(x, h)) * h),
        ("mut1", lambda cell, x, h: (1 - torch.sigmoid(cell.update(x))) * h),
        ("mingru", lambda cell, x, h: (1 - torch.sigmoid(cell.update.input(x))) * h),
        ("lstm-niaf", lambda cell, x, h, c: torch.sigmoid(cell.forget(x, h) + cell.p_f * c) * c),
        ("elman", lambda cell, x, h: 0 * h),
        ("indrnn", lambda cell, x, h: 0 * h),
    ],
)
def test_the_candidate_is_found(name: str, kept: Any) -> None:
    inner: Any = CELLS[name](3, 4)
    x, state = torch.randn(5, 3), random_state(inner, 5)
    assert_same([CandidateDropout(inner, 1.0).step(x, state)[-1]], [kept(inner, x, *state)], 1e-6)


def test_a_candidate_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^candidate_dropout: no candidate \(got Highway\)"):
        CandidateDropout(next(case for case in CASES if case.name == "highway").cell(), 0.5)

    class Branching(Elman):
        def step(self, x: Tensor, state: Any) -> Any:
            return super().step(x, state) if x.sum() > 0 else state

    with pytest.raises(
        ConfigError, match=r"^candidate_dropout: cannot trace \(got Branching\); a step without branches"
    ):
        CandidateDropout(Branching(3, 4), 0.5)


@ENGINES
def test_locked_masks_are_drawn_once_for_each_sequence(engine: Any) -> None:
    torch.manual_seed(0)
    inner = LSTM(30, 50)
    cell, lengths = Locked(inner, inputs=0.2, state=0.4), torch.tensor([3, 9, 6])
    inputs = torch.randn(9, 3, 30)
    outputs, end = unroll(cell, inputs, None, lengths, engine=engine)
    for mask, p in ((end.input_mask, 0.2), (end.state_mask, 0.4)):
        assert_same([mask.unique()], [torch.tensor([0.0, 1 / (1 - p)])], 1e-6)
        assert abs((mask == 0).float().mean() - p) < 0.12 and not torch.equal(mask[0], mask[1])
    h, c = inner.initial_state(3)
    for t, x in enumerate(inputs):
        h, c = inner.step(x * end.input_mask, LSTM.State(h * end.state_mask, c))
        alive = t < lengths
        assert_same([outputs[t, alive]], [h[alive]], 1e-5)


def test_of_a_gru_what_is_carried_on_is_not_masked() -> None:
    inner = GRU(3, 4)
    cell = Locked(inner, state=0.5)
    start, x = cell.initial_state(2)._replace(h=torch.randn(2, 4)), torch.randn(2, 3)
    h, masked = start.h, start.h * start.state_mask
    z, r = torch.sigmoid(inner.update(x, masked)), torch.sigmoid(inner.reset(x, masked))
    a = torch.tanh(inner.candidate(x, r * masked))
    assert_same([cell.step(x, start).h], [z * h + (1 - z) * a], 1e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case.name != "branching"], ids=lambda case: case.name)
def test_locked_is_the_cell_in_evaluation_even_from_a_state_in_training(case: Case) -> None:
    inner, lengths = case.cell(), torch.tensor([5, 2])
    inputs = ragged_inputs(lengths, fill=torch.nan)
    try:
        cell = Locked(inner, inputs=0.5, state=0.5)
    except ConfigError:  # no map of this cell reads its state
        cell = Locked(inner, inputs=0.5)
    start = cell.initial_state(2)
    outputs, _ = unroll(cell.eval(), inputs, start, lengths)
    assert_same([outputs], [unroll(inner, inputs, None, lengths)[0]], 1e-12)


def test_tracing_draws_no_random_numbers() -> None:
    network, inputs, drawn = Recurrent("lstm", 3, 4, state_dropout=0.5, zoneout=0.2), torch.randn(5, 2, 3), []
    for _ in range(2):
        torch.manual_seed(0)
        network(inputs)
        drawn.append(torch.rand(1))
    assert torch.equal(*drawn)


def test_maps_that_are_not_called_cannot_be_dropped_for() -> None:
    with pytest.raises(
        ConfigError, match=r"^state_dropout: no maps to drop for \(got LayerNormLSTM\); a step that calls"
    ):
        Locked(LayerNormLSTM(3, 4), state=0.5)
    with pytest.raises(ConfigError, match=r"^candidate_dropout: not computed on its own \(got LayerNormLSTM\)"):
        CandidateDropout(LayerNormLSTM(3, 4), 0.5)


def test_states_that_no_map_reads_cannot_be_dropped() -> None:
    class Decay(Cell):
        State = GRU.State

        def __init__(self, input_size: int, hidden_size: int) -> None:
            super().__init__(input_size, hidden_size)
            self.rate = nn.Parameter(torch.rand(hidden_size))

        def step(self, x: Tensor, state: Any) -> Any:
            return self.State(self.rate * state.h + x)

    with pytest.raises(
        ConfigError, match=r"^state_dropout: no maps to drop for \(got Decay\); a step that calls its maps"
    ):
        Locked(Decay(3, 3), state=0.5)


@ENGINES
def test_weights_are_dropped_once_for_all_steps(engine: Any) -> None:
    torch.manual_seed(0)
    network = Recurrent("lstm", 3, 20, weight_dropout=0.4, engine=engine)
    block: Any = network.cells[0].packed
    names, weight = [name for name, _ in network.named_parameters()], block.weight_hidden
    network(torch.randn(9, 4, 3))[0].sum().backward()
    dropped = weight.grad == 0
    assert abs(dropped.float().mean() - 0.4) < 0.05
    assert [name for name, _ in network.named_parameters()] == names and block.weight_hidden is weight
    assert block.weight_input.grad.all()

    inputs, state = torch.randn(2, 3), random_state(network.cells[0], 2)  # type: ignore[arg-type]
    with dropped_weights(list(network.cells), 0.4):  # type: ignore[arg-type]
        values = block.weight_hidden.detach()
        assert_same([values[values != 0]], [weight[values != 0] / 0.6], 1e-6)
        wanted = network.cells[0].step(inputs, state).h  # type: ignore[operator]
    torch.manual_seed(5)
    assert not torch.equal(network.step(inputs, (state,))[0], network.step(inputs, (state,))[0])
    assert not torch.equal(network.step(inputs, (state,))[0], wanted)
    network.eval()
    assert_same([network.step(inputs, (state,))[0]], [network.cells[0].step(inputs, state).h], 1e-6)  # type: ignore[operator]


def test_weights_come_back_after_an_error() -> None:
    cell = GRU(3, 4)
    weight = cell.packed.weight_hidden
    with pytest.raises(ValueError, match="planted"), dropped_weights([cell], 0.5):
        assert cell.packed.weight_hidden is not weight
        raise ValueError("planted")
    assert cell.packed.weight_hidden is weight


@ENGINES
def test_a_learned_start_is_learned(engine: Any) -> None:
    cell, inputs = LearnedStart(LSTM(3, 4)), torch.randn(4, 2, 3)
    assert_same([unroll(cell, inputs)[0]], [unroll(cell.cell, inputs)[0]], 0)  # from where the cell begins
    optimiser = torch.optim.SGD(cell.start.parameters(), lr=0.1)
    losses = []
    for _ in range(5):
        outputs, _ = unroll(cell, inputs, engine=engine)
        losses.append(outputs.square().sum())
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses == sorted(losses, reverse=True) and cell.start.c.all() and cell.initial_state(3).c.shape == (3, 4)
    assert isinstance(cell.start, nn.ParameterDict)
