"""The running average of the weights."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from carousel.training import WeightAverage
from carousel.training.averaging import TriggeredAverage


def set_to(model: nn.Linear, value: float) -> None:
    with torch.no_grad():
        model.weight.fill_(value)


@pytest.mark.parametrize(("decay", "expected"), [(0.2, [2 / 11, 0.2, 0.2]), (0.999, [2 / 11, 3 / 12, 4 / 13])])
def test_by_hand(decay: float, expected: list[float]) -> None:
    model = nn.Linear(1, 1, bias=False)
    set_to(model, 0.0)
    average, by_hand = WeightAverage(model, decay), 0.0
    for value, d in zip((1.0, -3.0, 5.0), expected, strict=True):
        set_to(model, value)
        average.update()
        by_hand = d * by_hand + (1 - d) * value
        assert average.tensors["weight"].item() == pytest.approx(by_hand)


def test_without_decay_it_is_the_weights() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, 0.0)
    for _ in range(3):
        nn.init.normal_(model.weight)
        average.update()
        assert torch.equal(average.tensors["weight"], model.weight)


def test_applied_within_the_block_alone() -> None:
    model = nn.Linear(1, 1)
    model.bias.requires_grad = False
    set_to(model, 0.0)
    average = WeightAverage(model, 0.5)
    set_to(model, 1.0)
    average.update()
    assert average.tensors.keys() == {"weight"}
    optimised = model.weight
    for leaving in (nullcontext(), pytest.raises(RuntimeError)):
        with leaving as failing, average.applied():
            assert model.weight is optimised and model.weight.item() == pytest.approx(9 / 11)
            if failing is not None:
                raise RuntimeError
        assert model.weight.item() == 1.0
        assert average.tensors["weight"].item() == pytest.approx(9 / 11)


# --- NT-ASGD ----------------------------------------------------------------------------------------------------------


def triggered_at(logs: list[float], n: int) -> int | None:
    """Algorithm 1, transcribed."""
    for t, v in enumerate(logs):
        if t > n and v > min(logs[l] for l in range(t - n)):  # noqa: E741
            return t
    return None


@pytest.mark.parametrize("n", [1, 2, 5])
def test_it_is_triggered_as_the_algorithm_says(n: int) -> None:
    draw = torch.Generator().manual_seed(n)
    for _ in range(50):
        logs = (torch.rand(12, generator=draw) + torch.linspace(1, 0, 12)).tolist()
        average = TriggeredAverage(nn.Linear(1, 1), n)
        seen = [t for t in range(12) if average.observe(logs[: t + 1])]
        assert seen == list(range(at, 12)) if (at := triggered_at(logs, n)) is not None else not seen


def test_the_mean_since_the_trigger() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = TriggeredAverage(model, 1)
    values = [5.0, 1.0, 2.0, 4.0, 9.0]
    for k, value in enumerate(values):
        set_to(model, value)
        average.update()
        expected = value if k < 2 else sum(values[1 : k + 1]) / k  # from w_T on, which is values[1]
        assert average.tensors["weight"].item() == pytest.approx(expected)
        if k == 1:
            assert average.observe([1.0, 3.0, 2.0, 2.0])
        else:
            average.observe([1.0, 3.0, 2.0, 2.0, 0.5] if k > 1 else [1.0])
