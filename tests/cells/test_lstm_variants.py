"""Peepholes and the variants of Greff et al., each as its equations say, and each next to its neighbours."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from cell_registry import assert_same
from transcription import Array, Equations, assert_transcribed, sigmoid

from carousel.cells import (
    CELLS,
    LSTM,
    Cell,
    CoupledLSTM,
    FullGateLSTM,
    NoForgetGateLSTM,
    NoInputActivationLSTM,
    NoInputGateLSTM,
    NoOutputActivationLSTM,
    NoOutputGateLSTM,
    PeepholeLSTM,
)

Weights = Mapping[str, Array]


def affine(w: Weights, k: str, x: Array, h: Array) -> Array:
    return x @ w[f"W_{k}"].T + h @ w[f"U_{k}"].T + w[f"b_{k}"]


def v(w: Weights, x: Array, s: Weights) -> Weights:
    i = sigmoid(affine(w, "i", x, s["h"]) + w["p_i"] * s["c"])
    f = sigmoid(affine(w, "f", x, s["h"]) + w["p_f"] * s["c"])
    c = f * s["c"] + i * np.tanh(affine(w, "g", x, s["h"]))
    o = sigmoid(affine(w, "o", x, s["h"]) + w["p_o"] * c)
    return {"h": o * np.tanh(c), "c": c}


def nig(w: Weights, x: Array, s: Weights) -> Weights:
    f = sigmoid(affine(w, "f", x, s["h"]) + w["p_f"] * s["c"])
    c = f * s["c"] + np.tanh(affine(w, "g", x, s["h"]))
    o = sigmoid(affine(w, "o", x, s["h"]) + w["p_o"] * c)
    return {"h": o * np.tanh(c), "c": c}


def nfg(w: Weights, x: Array, s: Weights) -> Weights:
    i = sigmoid(affine(w, "i", x, s["h"]) + w["p_i"] * s["c"])
    c = s["c"] + i * np.tanh(affine(w, "g", x, s["h"]))
    o = sigmoid(affine(w, "o", x, s["h"]) + w["p_o"] * c)
    return {"h": o * np.tanh(c), "c": c}


def nog(w: Weights, x: Array, s: Weights) -> Weights:
    i = sigmoid(affine(w, "i", x, s["h"]) + w["p_i"] * s["c"])
    f = sigmoid(affine(w, "f", x, s["h"]) + w["p_f"] * s["c"])
    c = f * s["c"] + i * np.tanh(affine(w, "g", x, s["h"]))
    return {"h": np.tanh(c), "c": c}


def niaf(w: Weights, x: Array, s: Weights) -> Weights:
    i = sigmoid(affine(w, "i", x, s["h"]) + w["p_i"] * s["c"])
    f = sigmoid(affine(w, "f", x, s["h"]) + w["p_f"] * s["c"])
    c = f * s["c"] + i * affine(w, "g", x, s["h"])
    o = sigmoid(affine(w, "o", x, s["h"]) + w["p_o"] * c)
    return {"h": o * np.tanh(c), "c": c}


def noaf(w: Weights, x: Array, s: Weights) -> Weights:
    i = sigmoid(affine(w, "i", x, s["h"]) + w["p_i"] * s["c"])
    f = sigmoid(affine(w, "f", x, s["h"]) + w["p_f"] * s["c"])
    c = f * s["c"] + i * np.tanh(affine(w, "g", x, s["h"]))
    o = sigmoid(affine(w, "o", x, s["h"]) + w["p_o"] * c)
    return {"h": o * c, "c": c}


def cifg(w: Weights, x: Array, s: Weights) -> Weights:
    i = sigmoid(affine(w, "i", x, s["h"]) + w["p_i"] * s["c"])
    c = (1 - i) * s["c"] + i * np.tanh(affine(w, "g", x, s["h"]))
    o = sigmoid(affine(w, "o", x, s["h"]) + w["p_o"] * c)
    return {"h": o * np.tanh(c), "c": c}


def fgr(w: Weights, x: Array, s: Weights) -> Weights:
    blocks = [np.split(rows, 3, axis=1) for rows in np.split(w["recurrence"], 3)]
    to_i, to_f, to_o = (sum(s[gate] @ R.T for gate, R in zip("ifo", row, strict=True)) for row in blocks)
    i = sigmoid(affine(w, "i", x, s["h"]) + w["p_i"] * s["c"] + to_i)
    f = sigmoid(affine(w, "f", x, s["h"]) + w["p_f"] * s["c"] + to_f)
    c = f * s["c"] + i * np.tanh(affine(w, "g", x, s["h"]))
    o = sigmoid(affine(w, "o", x, s["h"]) + w["p_o"] * c + to_o)
    return {"h": o * np.tanh(c), "c": c, "i": i, "f": f, "o": o}


VARIANTS: dict[type[Cell], tuple[str, Equations]] = {
    PeepholeLSTM: ("ifgo", v),
    NoInputGateLSTM: ("fgo", nig),
    NoForgetGateLSTM: ("igo", nfg),
    NoOutputGateLSTM: ("ifg", nog),
    NoInputActivationLSTM: ("ifgo", niaf),
    NoOutputActivationLSTM: ("ifgo", noaf),
    CoupledLSTM: ("igo", cifg),
    FullGateLSTM: ("ifgo", fgr),
}


@pytest.mark.parametrize("cell", VARIANTS, ids=lambda cell: cell.__name__)
def test_step_is_the_equations(cell: type[Cell]) -> None:
    assert_transcribed(cell(3, 4), *VARIANTS[cell])


@pytest.mark.parametrize("cell", VARIANTS, ids=lambda cell: cell.__name__)
def test_the_forget_bias_is_where_it_should_be(cell: type[Cell]) -> None:
    maps, _ = VARIANTS[cell]
    if "f" not in maps and cell is not CoupledLSTM:
        with pytest.raises(TypeError, match="forget_bias"):
            cell(3, 4, forget_bias=1.0)  # type: ignore[call-arg]
        return
    b = cell(3, 4, forget_bias=2.5).packed.bias.chunk(len(maps))  # type: ignore[call-arg, union-attr]
    gate, value = ("i", -2.5) if cell is CoupledLSTM else ("f", 2.5)
    assert [bool((part == value).all()) for part in b] == [letter == gate for letter in maps]
    assert cell(3, 4, bias=False).packed.bias is None  # type: ignore[call-arg, union-attr]


@pytest.mark.parametrize("cell", VARIANTS, ids=lambda cell: cell.__name__)
def test_new_weights_are_within_the_bounds_of_torch(cell: type[Cell]) -> None:
    own = [p for name, p in cell(3, 100).named_parameters() if not name.startswith("packed")]
    assert own and all(0.09 < p.abs().max() <= 0.1 for p in own)


# One variant next to another, with the same weights.


def pair(one: Cell, other: Cell) -> tuple[Cell, Cell]:
    """Both with the parameters of the first that the second has too."""
    missing, unknown = other.load_state_dict(one.state_dict(), strict=False)
    assert not missing or not unknown
    return one, other


def steps(cell: Cell) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = cell.State(*(torch.ones_like(field) / 2 for field in cell.initial_state(2)))
    outputs = []
    for x in torch.randn(4, 2, 3, generator=generator):
        state = cell.step(x, state)
        outputs += [state.h, state.c]
    return outputs


def fill(cell: Cell, value: float, *names: str) -> None:
    for name in names:
        torch.nn.init.constant_(cell.get_parameter(name), value)


def test_without_peepholes_it_is_an_lstm() -> None:
    assert CELLS["lstm-np"] is LSTM
    vanilla, plain = pair(PeepholeLSTM(3, 4), LSTM(3, 4))
    assert (steps(vanilla)[0] - steps(plain)[0]).abs().max() > 1e-3
    fill(vanilla, 0.0, "p_i", "p_f", "p_o")
    assert_same(steps(vanilla), steps(plain), tolerance=1e-6)


def test_full_gate_recurrence_of_zero_is_none() -> None:
    full, vanilla = pair(FullGateLSTM(3, 4), PeepholeLSTM(3, 4))
    assert (steps(full)[0] - steps(vanilla)[0]).abs().max() > 1e-3
    fill(full, 0.0, "recurrence")
    assert_same(steps(full), steps(vanilla), tolerance=1e-6)


@pytest.mark.parametrize(
    ("variant", "gate", "peephole"),
    [(NoInputGateLSTM, "input", "p_i"), (NoForgetGateLSTM, "forget", "p_f"), (NoOutputGateLSTM, "output", "p_o")],
)
def test_without_a_gate_is_with_it_open(variant: type[Cell], gate: str, peephole: str) -> None:
    whole, less = PeepholeLSTM(3, 4), variant(3, 4)
    with torch.no_grad():
        for name in {"input", "forget", "candidate", "output"} - {gate}:
            for part in ("W", "U", "b"):
                getattr(getattr(less, name), part).copy_(getattr(getattr(whole, name), part))
        for name in {"p_i", "p_f", "p_o"} - {peephole}:
            less.get_parameter(name).copy_(whole.get_parameter(name))
        torch.nn.init.constant_(getattr(whole, gate).b, 100)
    assert_same(steps(less), steps(whole), tolerance=1e-6)


def test_coupled_gates_are_an_input_gate_and_its_complement() -> None:
    coupled, vanilla = CoupledLSTM(3, 4), PeepholeLSTM(3, 4)
    with torch.no_grad():
        for name in ("input", "candidate", "output"):
            for part in ("W", "U", "b"):
                getattr(getattr(vanilla, name), part).copy_(getattr(getattr(coupled, name), part))
        for part in ("W", "U", "b"):  # 1 - σ(a) = σ(-a)
            getattr(vanilla.forget, part).copy_(-getattr(coupled.input, part))
        for name, value in (("p_i", coupled.p_i), ("p_o", coupled.p_o), ("p_f", -coupled.p_i)):
            vanilla.get_parameter(name).copy_(value)
    assert_same(steps(coupled), steps(vanilla), tolerance=1e-6)


@pytest.mark.parametrize("variant", [NoInputActivationLSTM, NoOutputActivationLSTM])
def test_an_activation_matters_less_the_smaller_its_argument(variant: type[Cell]) -> None:
    def difference(scale: float) -> float:
        torch.manual_seed(0)
        without, vanilla = pair(variant(3, 4), PeepholeLSTM(3, 4))
        with torch.no_grad():
            for cell in (without, vanilla):
                for part in (cell.candidate.W, cell.candidate.U, cell.candidate.b):
                    part.mul_(scale)
        first, second = (cell.step(torch.ones(2, 3), cell.initial_state(2)).h for cell in (without, vanilla))
        return float((first - second).detach().abs().max())

    assert 0 < difference(1e-1) < difference(1.0) / 100  # tanh a = a + O(a³)
