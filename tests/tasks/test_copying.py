"""The copy memory problem."""

import math

import pytest
import torch

from carousel.errors import ConfigError
from carousel.tasks.copying import Copying, copying
from carousel.training import generator


def test_it_is_laid_out_as_published() -> None:
    T = 7
    inputs, targets, _ = copying(500, T, generator(0))
    assert inputs.shape == (T + 20, 500, 10)
    seen = inputs.argmax(-1)
    assert torch.equal(inputs.sum(-1), torch.ones(T + 20, 500))
    assert set(seen[:10].unique().tolist()) == set(range(8))
    assert set(seen[10 : T + 9].unique().tolist()) == {8}  # T - 1 blanks
    assert set(seen[T + 9].tolist()) == {9}
    assert set(seen[T + 10 :].unique().tolist()) == {8}
    assert set(targets[: T + 10].unique().tolist()) == {8}
    assert torch.equal(targets[T + 10 :], seen[:10])


def test_the_score_of_a_network_without_memory_is_the_baseline() -> None:
    """Blanks for sure, and each of the eight symbols as likely as the others when they are due."""
    problem = Copying(delay=5)
    [baseline] = problem.baselines().values()
    assert baseline == pytest.approx(10 * math.log(8) / 25)
    examples = problem.held_out("test")[0]
    outputs = torch.full((25, 256, 10), -1e4)
    outputs[:15, :, 8], outputs[15:, :, :8] = 1e4, 1e4
    total, items = problem.measure(outputs, examples)
    assert total / items == pytest.approx(baseline, rel=1e-5)
    assert float(problem.loss(outputs, examples)) == pytest.approx(baseline, rel=1e-5)


def test_a_delay_is_at_least_one() -> None:
    assert Copying(delay=1).batch(0, 0).inputs.shape == (21, 32, 10)
    with pytest.raises(ConfigError, match=r"length: not a delay \(got 0\)"):
        Copying(delay=0)
