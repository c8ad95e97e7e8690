"""Jacobians and singular values that are known."""

from __future__ import annotations

import math

import pytest
import torch

from carousel.cells import LSTM, Cell, Elman
from carousel.diagnostics import Layer, observing, singular_values, spectrum, state_jacobians
from carousel.nn import Recurrent


def observed(cell: Cell) -> Layer:
    network = Recurrent([cell])
    with observing(network) as layers:
        network(torch.randn(6, 3, 3).to(next(cell.parameters()).dtype), lengths=torch.tensor([6, 1, 4]))
    (layer,) = layers
    return layer


def test_a_rotation_has_its_angle_on_the_circle_of_its_radius() -> None:
    cell, angle = Elman(3, 2, activation="identity"), 0.7
    with torch.no_grad():
        turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        cell.packed.weight_hidden.copy_(0.9 * turn)
    found = spectrum(observed(cell))
    assert found is not None and found.shape == (4, 2)
    assert torch.allclose(found.abs(), torch.full((4, 2), 0.9))
    assert torch.allclose(found.angle().abs(), torch.full((4, 2), angle))
    assert torch.allclose(singular_values(cell)["candidate"], torch.full((2,), 0.9))


def test_the_jacobian_of_an_lstm_without_recurrent_weights_is_its_forget_gate() -> None:
    cell = LSTM(3, 4)
    with torch.no_grad():
        cell.packed.weight_hidden.zero_()
    layer = observed(cell)
    found = state_jacobians(layer, states=100)
    assert found is not None and found.shape == (11, 8, 8)
    assert torch.allclose(found[:, 4:, 4:], torch.diag_embed(torch.cat(layer.gates["f"])))
    assert not found[:, :, :4].any()


def test_the_jacobian_is_that_of_autograd() -> None:
    cell = LSTM(3, 4).double()
    layer = observed(cell)
    _, found = state_jacobians(layer, states=2)  # type: ignore[misc]
    x, state = layer.inputs[-1:].detach(), layer.before[-1]  # the last step of the longest sequence
    expected = torch.autograd.functional.jacobian(
        lambda h, c: torch.cat(cell.step(x, cell.State(h, c)), 1), (state.h[:1].detach(), state.c[:1].detach())
    )
    assert torch.allclose(found, torch.cat([part[0, :, 0] for part in expected], 1))


def test_states_that_are_too_large_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carousel.diagnostics.spectra.LARGEST", 7)
    assert spectrum(observed(LSTM(3, 4))) is None


def test_singular_values_have_the_names_of_the_maps() -> None:
    cell = LSTM(3, 4)
    found = singular_values(cell)
    assert list(found) == ["input", "forget", "candidate", "output"]
    assert torch.allclose(found["forget"], torch.linalg.svdvals(cell.forget.U))
    with torch.no_grad():
        cell.output.U.mul_(2)
    assert torch.allclose(singular_values(cell)["output"], 2 * found["output"])
