"""How recurrent weights may start."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from cell_registry import Case, assert_same, every_cell

from carousel.cells import GRU, LSTM, SLSTM, ProjectedLSTM, cell_class, chrono_, identity_, orthogonal_
from carousel.cells.initialisation import INITIALISATIONS, initialise_
from carousel.errors import ConfigError
from carousel.nn import Recurrent, unroll


@every_cell
def test_every_recurrent_map_is_orthogonal_by_itself(case: Case) -> None:
    weights, before = ([*cell.recurrent_weights()] for cell in (orthogonal_(case.cell(), gain=2.0), case.cell()))
    for weight, old in zip(weights, before, strict=True):
        if weight.dim() == 2:
            square = weight @ weight.t() if len(weight) <= weight.shape[1] else weight.t() @ weight
            assert_same([square.detach()], [4 * torch.eye(len(square), dtype=torch.float64)])
        else:
            assert torch.equal(weight, old)
    maps = [weight for weight in weights if weight.dim() == 2]
    assert not any(torch.equal(one, other) for one, other in pairwise(maps))


def test_nothing_else_is_changed() -> None:
    cell = GRU(3, 4)
    before = {name: value.clone() for name, value in cell.state_dict().items()}
    orthogonal_(cell)
    changed = {name for name, value in cell.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"packed.weight_hidden"}


def test_a_network_is_made_of_cells() -> None:
    network = orthogonal_(Recurrent("lstm", 3, 4, layers=2, bidirectional=True))
    maps = [U for cell in network.cells for U in cell.recurrent_weights()]  # type: ignore[operator]
    assert len(maps) == 16
    for U in maps:
        assert_same([(U.t() @ U).detach()], [torch.eye(4)], tolerance=1e-5)


def test_a_generator_decides() -> None:
    def drawn(seed: int) -> torch.Tensor:
        return orthogonal_(LSTM(3, 4), generator=torch.Generator().manual_seed(seed)).packed.weight_hidden

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_identity_is_that_of_every_map() -> None:
    assert torch.equal(identity_(GRU(3, 4), 0.5).packed.weight_hidden, 0.5 * torch.eye(4).repeat(3, 1))
    assert torch.equal(identity_(ProjectedLSTM(3, 4, projection_size=2)).input.U, torch.eye(4, 2))


@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_a_linear_unit_keeps_what_it_holds(gain: float) -> None:
    [cell] = orthogonal_(Recurrent("elman", 3, 8, activation="identity", bias=False), gain).cells
    start = cell.State(torch.randn(2, 8))  # type: ignore[operator]
    _, final = unroll(cell, torch.zeros(10, 2, 3), start)  # type: ignore[arg-type]
    assert_same([final.h.detach().norm(dim=1)], [gain**10 * start.h.norm(dim=1)], tolerance=1e-5)


@pytest.mark.parametrize("name", ["lstm", "lstm-projected", "lstm-peephole", "lstm-fgr", "lstm-layer-norm"])
def test_chrono_spreads_the_memory_over_the_steps(name: str) -> None:
    cell: Any = cell_class(name)(3, 400)
    before = {k: value.clone() for k, value in cell.state_dict().items()}
    assert chrono_(cell, longest=101, generator=torch.Generator().manual_seed(0)) is cell
    steps = cell.forget.b.detach().exp()
    assert 1 <= steps.min() < 3 and 98 < steps.max() <= 100 and 45 < steps.mean() < 56
    assert torch.equal(cell.input.b, -cell.forget.b)
    changed = [k for k, value in cell.state_dict().items() if not torch.equal(value, before[k])]
    assert changed == ["packed.bias"]
    assert all(not torch.equal(gate.b, cell.forget.b) for gate in (cell.candidate, cell.output))


def test_chrono_of_one_gate() -> None:
    without: Any = chrono_(cell_class("lstm-nig")(3, 4), longest=2)
    assert not without.forget.b.any()  # log 1
    coupled: Any = chrono_(cell_class("lstm-cifg")(3, 4), longest=100)
    assert (coupled.input.b < 0).all()


def test_chrono_is_refused_where_there_is_nothing_to_set() -> None:
    for cell in (LSTM(3, 4, bias=False), cell_class("lstm-nfg")(3, 4), GRU(3, 4), SLSTM(3, 4, forget="exp")):
        with pytest.raises(ConfigError) as caught:
            chrono_(cell, longest=10)
        assert str(caught.value) == (
            f"chrono_: no forget gate σ(W x + U h + b_f) (got {type(cell).__name__}); "
            "an LSTM with a forget gate and biases; leave it out"
        )
    with pytest.raises(ConfigError) as caught:
        chrono_(LSTM(3, 4), longest=1)
    assert str(caught.value) == "longest: too short to remember (got 1); 2 or more; the steps of a sequence"


@pytest.mark.parametrize("name", INITIALISATIONS)
def test_by_name_each_is_what_it_is_called(name: str) -> None:
    torch.manual_seed(0)
    plain = torch.nn.ModuleList([LSTM(3, 4), LSTM(4, 4)])
    named, by_hand = copy.deepcopy(plain), copy.deepcopy(plain)
    initialise_(named, name, longest=30, generator=torch.Generator().manual_seed(1))
    draw = torch.Generator().manual_seed(1)
    if name == "orthogonal":
        orthogonal_(by_hand, generator=draw)
    elif name == "identity":
        identity_(by_hand)
    elif name == "chrono":
        for cell in by_hand:
            chrono_(cell, 30, generator=draw)
    for one, other in zip(named.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(one, other)
    changed = any(not torch.equal(a, b) for a, b in zip(named.parameters(), plain.parameters(), strict=True))
    assert changed == (name != "default")


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(ConfigError, match=r"initialisation: unknown \(got 'ortogonal'\); .*did you mean 'orthogonal'"):
        initialise_(LSTM(3, 4), "ortogonal")
