"""Learning rates and seeds are functions of where training stands."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from carousel.errors import ConfigError
from carousel.training import derived_seed, epoch_order, generator
from carousel.training.schedule import SCHEDULES, one_cycle, schedule_named


@pytest.mark.parametrize("warm_up", [0.05, 0.3])
def test_one_cycle_by_hand(warm_up: float) -> None:
    assert one_cycle(0.0, warm_up) == pytest.approx(1 / 25)
    assert one_cycle(warm_up / 2, warm_up) == pytest.approx((1 / 25 + 1) / 2)
    assert one_cycle(warm_up, warm_up) == pytest.approx(1.0)
    assert one_cycle(warm_up + (1 - warm_up) / 4, warm_up) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert one_cycle(1.0, warm_up) == pytest.approx(0.0)


STEPS = 40


@pytest.mark.parametrize(
    ("name", "in_torch"),
    [
        ("constant", lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        ("warm-up", lambda o: lr_scheduler.LinearLR(o, start_factor=1e-9, total_iters=STEPS // 20)),
        ("linear", lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=STEPS)),
        ("cosine", lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS)),
        ("exponential", lambda o: lr_scheduler.ExponentialLR(o, 0.01 ** (1 / STEPS))),
        ("steps", lambda o: lr_scheduler.MultiStepLR(o, [STEPS // 2, 3 * STEPS // 4])),
        ("triangular", lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, STEPS // 8, cycle_momentum=False)),
        (
            "one-cycle",
            lambda o: lr_scheduler.OneCycleLR(
                o, 1.0, STEPS + 1, pct_start=3 / (STEPS + 1), final_div_factor=1e9, cycle_momentum=False
            ),
        ),
    ],
)
def test_they_are_torchs(name: str, in_torch: Any) -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = in_torch(optimiser)
    for step in range(STEPS + 1):
        assert schedule_named(name)(step / STEPS) == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-7), step
        optimiser.step()
        if step < STEPS:
            scheduler.step()


def test_every_schedule_is_held_to_torch_and_an_unknown_one_is_told() -> None:
    assert len(SCHEDULES) == 8
    with pytest.raises(ConfigError, match=r"schedule: unknown \(got 'cosin'\); .*did you mean 'cosine'\?"):
        schedule_named("cosin")


@given(done=st.floats(0, 1))
def test_factors_are_shares(done: float) -> None:
    assert all(-1e-12 <= schedule(done) <= 1 + 1e-12 for schedule in SCHEDULES.values())
    assert SCHEDULES["constant"](done) == 1


def test_seeds_tell_every_part_apart() -> None:
    parts = [(s, what, e, i) for s in range(5) for what in ("step", "mirror") for e in range(5) for i in range(12)]
    seeds = {derived_seed(*part) for part in parts}
    assert len(seeds) == len(parts) and all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(0, "order", 1) == 2961819992523135983  # the same in every version: a run must stay resumable


def test_orders_are_permutations_that_differ_by_epoch_and_seed() -> None:
    orders = [tuple(epoch_order(50, seed, epoch)) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9 and all(sorted(order) == list(range(50)) for order in orders)


def test_generators_are_their_own() -> None:
    before = torch.get_rng_state()
    assert torch.equal(torch.rand(3, generator=generator(0, "a")), torch.rand(3, generator=generator(0, "a")))
    assert torch.equal(torch.get_rng_state(), before)
