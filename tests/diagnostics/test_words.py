"""Words that follow the numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from carousel.cells import LSTM, Elman
from carousel.diagnostics import Flow, Gate, GradientFlow, LayerDiagnosis, diagnose, words
from carousel.nn import Recurrent


def flow(*shares: float, field: str = "h", layer: str = "layer 1") -> Flow:
    """Of one sequence, with the norms that lie so many steps before the loss."""
    return Flow(
        layer, field, torch.tensor(shares, dtype=torch.float32).flip(0)[:, None], torch.tensor([len(shares) - 1])
    )


@pytest.mark.parametrize(
    ("flows", "start"),
    [
        (
            [flow(1, 0.1, 0.01, 0.001)],
            "Gradients of h reach about 3 steps back, where ‖∂L/∂h‖ falls below 1% of that at lag 0, "
            "10% of it left by each step on average.",
        ),
        (
            [flow(2, 1, 0.5)],
            "Gradients of h reach back all the way, 2 steps: ‖∂L/∂h‖ ends at 25% of that at lag 0, "
            "50% of it left by each step on average.",
        ),
        ([flow(1, 5, 0.5)], "Gradients of h reach back all the way, 2 steps: ‖∂L/∂h‖ ends at 50% of that at lag 0"),
        (
            [flow(0, 4, 2, 1)],
            "Gradients of h reach back all the way, 3 steps: ‖∂L/∂h‖ ends at 25% of that at lag 1, "
            "50% of it left by each step on average.",
        ),
        ([flow(0, 0)], "No gradient arrives."),
        ([flow(3)], "‖∂L/∂h‖ is there, but at one step alone."),
        (
            [flow(1, 0.001), flow(1, 0.5, field="c")],
            "Gradients of c reach back all the way, 1 step: ‖∂L/∂c‖ ends at 50%",
        ),
        ([flow(1, 0.001), flow(1, 0.001, layer="layer 2")], "Layer 1: gradients of h reach about 1 step back"),
    ],
)
def test_how_far_gradients_reach(flows: list[Flow], start: str) -> None:
    assert words.gradient_words(GradientFlow(1.0, flows)).startswith(start)


def test_a_gradient_that_grows_is_told() -> None:
    assert "on its way it grows 5-fold, at lag 1" in words.gradient_words(GradientFlow(1.0, [flow(1, 5, 0.5)]))
    assert "grows" not in words.gradient_words(GradientFlow(1.0, [flow(1, 1.9, 0.5)]))


def test_how_many_sequences_a_lag_stands_for_is_told() -> None:
    norms, last = torch.ones(4, 3), torch.tensor([3, 3, 1])
    said = words.gradient_words(GradientFlow(1.0, [Flow("layer 1", "h", norms, last)]))
    assert said.endswith("(3 sequences at lag 0, 2 at lag 3).")


def layer(**given: object) -> LayerDiagnosis:
    states = {"c": torch.ones(8, 2, 3)}
    plain = {"states": states, "gates": [], "memory": {}, "eigenvalues": None, "singular": {}}
    return LayerDiagnosis("layer 1", torch.tensor([8, 8]), **(plain | given))  # type: ignore[arg-type]


def gate(name: str, *units: float, kind: str = "sigmoid") -> Gate:
    return Gate(name, kind, torch.tensor(units).expand(4, 2, len(units)), torch.ones(4, 2, dtype=torch.bool))


def test_gates_that_never_move_are_named() -> None:
    gates = [gate("f", 0.99, 0.97, 0.5), gate("i", 0.01, 0.5, 0.5), gate("o", *[0.99] * 9)]
    said = words.gate_words(layer(gates=gates))
    assert said == (
        "f is 0.82 open on average, above 0.95 in 2 of 3 units; units 0, 1 stay above 0.95 at every step. "
        "i is 0.34 open on average; unit 0 stays below 0.05 at every step. "
        "o is 0.99 open on average, above 0.95 in 9 of 9 units; 9 of 9 units stay above 0.95 at every step."
    )
    assert words.gate_words(layer()) == "This cell names no gate that comes from a sigmoid."


def test_saturation_is_told_of_sigmoids_and_tanhs() -> None:
    said = words.saturation_words(layer(gates=[gate("f", 0.95, 0.5, 0.5, 0.05), gate("g", -0.95, 0, kind="tanh")]))
    assert said == (
        "f: 25% below .1, 25% above .9, 2 of 4 units always on one side. "
        "g: 50% below -.9, never above .9, 1 of 2 units always on one side."
    )


def test_memory_is_told() -> None:
    said = words.memory_words(layer(memory={"c": torch.tensor([2.0, 44.731, 8.0, math.inf])}))
    assert said == (
        "1 of 4 units of c keep all that they have; half of the units of c keep 1/e of their state for 8 steps or "
        "less; 1 of 4 for more than 10; the longest, unit 1, for 44.7."
    )
    assert words.memory_words(layer()).startswith("No unit keeps")


@pytest.mark.parametrize(
    ("norms", "end"),
    [
        (torch.full((8,), 3.0), "goes from 3 after the first step to 3 after step 8, where it levels off."),
        (1.1 ** torch.arange(8.0), "to 1.95 after step 8, where it still grows by 10% a step."),
        (0.8 ** torch.arange(8.0), "to 0.21 after step 8, where it still falls by 20% a step."),
    ],
)
def test_norms_that_grow_and_that_do_not(norms: Tensor, end: str) -> None:
    states = torch.zeros(8, 2, 3)
    states[..., 0] = norms[:, None]
    assert words.norm_words(layer(states={"c": states})).endswith(end)


def test_spectra_are_told() -> None:
    inside = words.spectrum_words(layer(eigenvalues=torch.tensor([[0.5, 0.2j], [0.25, 0.1]])))
    assert inside == (
        "The largest of 2 eigenvalues has modulus 0.25 to 0.50, at 2 states. None lies outside the unit circle. "
        "None is above .9."
    )
    outside = words.spectrum_words(layer(eigenvalues=torch.tensor([[1.5, 0.95, 0.2j, 0.0]])))
    assert "25% lie outside the unit circle" in outside and "50% are above .9." in outside
    assert words.spectrum_words(layer()) == "The state is too large for a spectrum."
    assert words.singular_words(layer(singular={"forget": torch.tensor([2.0, 0.01])})) == (
        "The singular values go: forget from 2.00 to 0.01."
    )


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ([0.5, 0.25, 0.0], "The gradient was clipped in 50% of the steps of epoch 1 and none of epoch 3."),
        (
            [0.1, 0.5, 0.2],
            "The gradient was clipped in 10% of the steps of epoch 1 and 20% of epoch 3, most often in epoch 2, 50%.",
        ),
        ([0.0, 0.0], "The gradient was never clipped in 2 epochs."),
        ([0.3], "The gradient was clipped in 30% of the steps."),
    ],
)
def test_clipping_is_told(shares: list[float], said: str) -> None:
    assert words.clipping_words([{"epoch": k, "clipped": share} for k, share in enumerate(shares, start=1)]) == said


def test_a_network_with_known_answers_is_told_rightly() -> None:
    cell = Elman(3, 4, activation="identity")
    with torch.no_grad():
        cell.packed.weight_hidden.copy_(0.5 * torch.linalg.qr(torch.randn(4, 4))[0])
    found = diagnose(Recurrent([cell]), torch.randn(20, 3, 3), lambda answer: answer[0][-1].square().sum())
    said = words.gradient_words(found.flow)
    assert "reach about 7 steps back" in said and "50% of it left by each step" in said  # 2^-7 < 1% < 2^-6
    assert "modulus 0.50, at 4 states" in words.spectrum_words(found.layers[0])
    assert words.singular_words(found.layers[0]) == "The singular values go: candidate from 0.50 to 0.50."


def test_a_planted_dead_gate_is_reported() -> None:
    cell = LSTM(3, 5)
    with torch.no_grad():
        cell.input.b[3] = -30.0  # type: ignore[index]
    found = diagnose(Recurrent([cell]), torch.randn(9, 3, 3), lambda answer: answer[0][-1].sum())
    assert "unit 3 stays below 0.05 at every step" in words.gate_words(found.layers[0])
    assert "i: 20% below .1, never above .9, 1 of 5 units always on one side." in words.saturation_words(
        found.layers[0]
    )
