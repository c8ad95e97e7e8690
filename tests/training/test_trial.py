"""One measured training run."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from carousel.errors import ConfigError
from carousel.training.schedule import one_cycle
from carousel.training.trial import Budget, run_trial


class Line(nn.Module):
    """Learn that y = 2x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def error(self, x: float) -> Tensor:
        return ((2 - self.weight) * x).square()


def test_a_budget_of_steps_is_kept_to_and_repeats_to_the_bit() -> None:
    def once() -> tuple[float, list[tuple[int, float]]]:
        line = Line()
        seen: list[int] = []

        def loss(step: int) -> Tensor:
            seen.append(step)
            return line.error(1 + torch.rand(()).item())

        trial = run_trial(line, loss, lambda: line.error(1).item(), Budget(steps=40), learning_rate=0.2, points=10)
        assert seen == [0, *range(40)]  # the first once more, to compile
        assert (trial.steps, trial.diverged) == (40, False)
        assert [point.step for point in trial.curve] == list(range(0, 41, 4))
        assert trial.best == min(point.score for point in trial.curve) < 0.1
        return line.weight.item(), [(point.step, point.score) for point in trial.curve]

    assert once() == once()


def test_it_is_the_plain_loop() -> None:
    """With gradients of very different sizes, so that clipping shows, and a rate that changes."""
    scale, (line, plain), looks = [1.0, 100.0, 0.1, 5.0, 0.3], (Line(), Line()), itertools.count()
    run_trial(
        line,
        lambda step: line.error(scale[step]),
        lambda: float(next(looks)),  # always better: the last weights are kept
        Budget(steps=5),
        learning_rate=0.1,
        clip_norm=0.7,
        points=5,
        higher_is_better=True,
    )
    optimiser = torch.optim.Adam(plain.parameters(), lr=0.1)
    for step, size in enumerate(scale):
        optimiser.param_groups[0]["lr"] = 0.1 * one_cycle(step / 5)
        optimiser.zero_grad()
        plain.error(size).backward()  # type: ignore[no-untyped-call]
        assert plain.weight.grad is not None
        plain.weight.grad.clamp_(-0.7, 0.7)  # of one number, the norm
        optimiser.step()
    assert line.weight.item() == pytest.approx(plain.weight.item(), rel=1e-5)


@pytest.mark.parametrize(("threads", "clock"), [(1, "process_time"), (2, "perf_counter")])
def test_a_budget_of_time_ends_by_the_clock(threads: int, clock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reading is a second later than the one before; what is not training reads no clock."""
    readings = itertools.count()
    monkeypatch.setattr(f"time.{clock}", lambda: float(next(readings)))
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    line, told = Line(), list[float]()
    trial = run_trial(
        line,
        lambda step: line.error(1),
        lambda: line.error(1).item(),
        Budget(seconds=7.5),
        learning_rate=0.1,
        points=2,
        watch=told.append,
    )
    assert (trial.steps, trial.seconds) == (8, 8.0)
    assert [point.step for point in trial.curve] == [0, 4, 8]
    assert told == [0.0, 4 / 7.5, 1.0]


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_best_weights_are_left_in_the_model(higher_is_better: bool) -> None:
    line = Line()
    scores = iter([5.0, 9.0, 1.0, 7.0])
    weights: dict[float, float] = {}

    def validate() -> float:
        value = next(scores)
        weights[value] = line.weight.item()
        return value

    trial = run_trial(
        line,
        lambda step: line.error(1),
        validate,
        Budget(steps=3),
        learning_rate=0.3,
        points=3,
        higher_is_better=higher_is_better,
    )
    assert trial.best == (9.0 if higher_is_better else 1.0)
    assert line.weight.item() == weights[trial.best]
    assert len(set(weights.values())) == 4


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_run_that_diverges_ends_with_its_best(bad: float) -> None:
    line = Line()
    trial = run_trial(
        line,
        lambda step: line.error(1) * (bad if step == 2 else 1),
        lambda: line.error(1).item(),
        Budget(steps=100),
        learning_rate=0.1,
        points=100,
    )
    assert trial.diverged
    assert trial.steps == 2
    assert math.isfinite(line.weight.item())
    assert line.error(1).item() == trial.best


@pytest.mark.parametrize(
    "budget", [{}, {"steps": 0}, {"seconds": -1.0}, {"seconds": math.inf}, {"seconds": 1.0, "steps": 1}]
)
def test_a_budget_is_one_of_the_two(budget: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="budget: one is needed"):
        Budget(**budget)  # type: ignore[arg-type]


def test_the_average_of_the_weights_is_judged_and_kept() -> None:
    """The formula of `WeightAverage` over the same steps; training goes on from the weights themselves."""

    def weights(average: float) -> tuple[list[float], float]:
        line, seen = Line(), list[float]()

        def validate() -> float:
            seen.append(line.weight.item())
            return -len(seen)  # always better: the last are kept

        run_trial(
            line, lambda step: line.error(1), validate, Budget(steps=6), learning_rate=0.2, points=6, average=average
        )
        return seen, line.weight.item()

    (plain, last), (averaged, kept) = weights(0.0), weights(0.9)
    expected = [plain[0]]
    for n, weight in enumerate(plain[1:], start=1):
        decay = min(0.9, (1 + n) / (10 + n))
        expected.append(decay * expected[-1] + (1 - decay) * weight)
    assert averaged == pytest.approx(expected)
    assert (kept, last) == (averaged[-1], plain[-1]) and abs(kept - last) > 0.01
