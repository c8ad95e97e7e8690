"""The running average of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from carousel.training import WeightAverage


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
    for error in (None, RuntimeError):
        try:
            with average.applied():
                assert model.weight is optimised and model.weight.item() == pytest.approx(9 / 11)
                if error:
                    raise error
        except RuntimeError:
            pass
        assert model.weight.item() == 1.0
        assert average.tensors["weight"].item() == pytest.approx(9 / 11)
