"""Gates and memory of networks whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch

from carousel.cells import GRU, LSTM, Cell
from carousel.diagnostics import Layer, gates, memory_lengths, observing, retention
from carousel.nn import Recurrent

LENGTHS = torch.tensor([9, 4, 6])


def observed(cell: Cell | str, **options: object) -> Layer:
    network = Recurrent([cell]) if isinstance(cell, Cell) else Recurrent(cell, 3, 5, **options)  # type: ignore[arg-type]
    with observing(network) as layers:
        network(0.1 * torch.randn(9, 3, 3), lengths=LENGTHS)
    (layer,) = layers
    return layer


def planted_lstm() -> LSTM:
    """Unit 3's input gate is shut, unit 1's forget gate open, and unit 0's candidate always far below -.9."""
    cell = LSTM(3, 5)
    with torch.no_grad():
        cell.input.b[3], cell.forget.b[1], cell.candidate.b[0] = -30.0, 30.0, -30.0  # type: ignore[index]
    return cell


def test_planted_gates_are_found_and_no_others() -> None:
    found = {gate.name: gate for gate in gates(observed(planted_lstm()))}
    assert {name: (gate.stuck_closed, gate.stuck_open) for name, gate in found.items()} == {
        "i": ([3], []),
        "f": ([], [1]),
        "g": ([], []),
        "o": ([], []),
    }
    assert found["g"].low.tolist() == [1, 0, 0, 0, 0] and not found["g"].high.any()
    assert found["f"].high[1] == 1 and found["i"].low[3] == 1


def test_padding_is_no_closed_gate() -> None:
    cell = LSTM(3, 5)
    with torch.no_grad():
        cell.output.b.fill_(30.0)  # type: ignore[union-attr]
    (gate,) = [gate for gate in gates(observed(cell)) if gate.name == "o"]
    assert len(gate.taken) == LENGTHS.sum()
    assert gate.stuck_open == [0, 1, 2, 3, 4] and not gate.low.any()


@pytest.mark.parametrize(
    ("cell", "kinds"),
    [
        ("lstm-cifg", {"i": "sigmoid", "f": "sigmoid", "g": "tanh", "o": "sigmoid"}),  # f = 1 - i
        ("gru-layer-norm", {"r": "sigmoid", "z": "sigmoid", "a": "tanh"}),
        ("elman", {"h": "tanh"}),
        ("irnn", {}),
        ("lstm-fgr", {"i": "sigmoid", "f": "sigmoid", "g": "tanh", "o": "sigmoid"}),  # gates that are state
    ],
)
def test_what_bounds_a_value_is_known(cell: str, kinds: dict[str, str]) -> None:
    assert {gate.name: gate.kind for gate in gates(observed(cell))} == kinds


@pytest.mark.parametrize(
    ("cell", "field", "gate"),
    [("lstm", "c", "f"), ("lstm-peephole", "c", "f"), ("gru", "h", "z"), ("gru-reset-after", "h", "z")],
)
def test_what_is_kept_is_what_the_gate_lets_through(cell: str, field: str, gate: str) -> None:
    layer = observed(cell)
    kept = retention(layer)
    assert list(kept) == [field]
    assert torch.allclose(kept[field], torch.cat(layer.gates[gate]))


def test_what_is_kept_without_a_gate() -> None:
    assert retention(observed("elman")) == {}
    assert torch.equal(retention(observed("lstm-1997"))["c"], torch.ones(19, 5))
    mgu = observed("mgu")
    assert torch.allclose(retention(mgu)["h"], 1 - torch.cat(mgu.gates["f"]))


def test_memory_is_the_time_constant_of_the_gate() -> None:
    cell = GRU(3, 5)
    with torch.no_grad():
        cell.packed.weight_input.zero_()
        cell.packed.weight_hidden.zero_()
        cell.update.b.copy_(torch.tensor([0.0, math.log(9), math.log(99), -2.0, 30.0]))  # type: ignore[union-attr]
    found = memory_lengths(retention(observed(cell))["h"])
    z = torch.sigmoid(torch.tensor([0.0, math.log(9), math.log(99), -2.0]))
    assert torch.allclose(found[:4], -1 / z.log(), rtol=1e-4)
    assert found[4] == math.inf
