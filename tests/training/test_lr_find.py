"""The range test looks and leaves everything as it was."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.errors import ConfigError, TrainingDiverged
from carousel.training.lr_find import lr_find


class Line(nn.Module):
    """y = w · x for x ~ N(0, 1): gradient descent diverges at rates above 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.norm = nn.BatchNorm1d(1)

    def loss(self, step: int) -> Tensor:
        x = torch.randn(1000)
        self.norm(x[:, None])
        return F.mse_loss(self.weight * x, 3 * x)


def test_it_rises_until_it_diverges_and_changes_nothing() -> None:
    line = Line().eval()
    before, random = {n: t.clone() for n, t in line.state_dict().items()}, torch.get_rng_state()
    found = lr_find(line, line.loss, optimiser="sgd", lowest=1e-4, highest=100.0, steps=80)
    again = lr_find(line, line.loss, optimiser="sgd", lowest=1e-4, highest=100.0, steps=80)
    assert found == again
    assert all(torch.equal(before[name], tensor) for name, tensor in line.state_dict().items())
    assert torch.equal(random, torch.get_rng_state()) and not line.training and line.weight.grad is None
    assert 1 < found.rates[-1] < 100 and found.smoothed[-1] > 4 * min(found.smoothed)
    assert len(found.rates) == len(found.losses) < 80
    assert all(b / a == pytest.approx(10 ** (6 / 79)) for a, b in zip(found.rates, found.rates[1:], strict=False))
    assert 0.01 < found.suggestion < 0.2  # a tenth of a rate below 1
    assert found.png()[1:4] == b"PNG"


def test_groups_keep_their_proportion() -> None:
    one, other = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
    model = nn.ParameterList([one, other])
    steps: list[tuple[float, float]] = []

    def loss(step: int) -> Tensor:
        steps.append((one.item(), other.item()))
        return -one - other + 10

    groups = [{"params": [one], "lr": 0.2}, {"params": [other], "lr": 0.05}]
    found = lr_find(model, loss, optimiser="sgd", groups=groups, lowest=0.01, highest=0.1, steps=5)
    assert steps[1] == pytest.approx((0.01, 0.0025)) and steps[-1][0] == pytest.approx(sum(found.rates[:-1]))
    assert groups[0]["lr"] == 0.2 and one.item() == 0


def test_what_cannot_be_is_told() -> None:
    line = Line()
    with pytest.raises(ConfigError, match=r"lr_find: no range \(got 1.0 to 0.1 in 100 steps\)"):
        lr_find(line, line.loss, lowest=1.0, highest=0.1)
    with pytest.raises(TrainingDiverged, match="first loss is not finite"):
        lr_find(line, lambda step: line.weight * math.nan)
