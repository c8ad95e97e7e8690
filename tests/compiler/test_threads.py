"""Threads: the same numbers with any, and the faster choice once both are known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from carousel.cells import GRU
from carousel.compiler import threads
from carousel.nn import unroll


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "TRIALS", {})


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("faster", [True, False])
def test_the_faster_way_is_taken_once_both_are_known(monkeypatch: pytest.MonkeyPatch, faster: bool) -> None:
    now = [0.0]
    ways: list[bool] = []

    def together(play: Any, head: int, parts: int) -> None:
        ways.append(True)
        now[0] += 0.0005 if faster else 0.0015

    def alone(head: int, number: int, team: int) -> None:
        ways.append(False)
        now[0] += 0.001

    monkeypatch.setattr(threads, "_together", together)
    monkeypatch.setattr(threads.time, "perf_counter", lambda: now[0])
    for _ in range(threads.WARM + threads.TRIED):
        threads.share(alone, 0, 2, "work")
    assert True in ways and False in ways
    ways.clear()
    for _ in range(threads.FIRST):
        threads.share(alone, 0, 2, "work")
    assert set(ways) == {faster}


def test_the_question_is_asked_anew_after_a_while() -> None:
    trial = threads.Trial()
    for _ in range(threads.AGAIN):
        assert trial.calls < threads.AGAIN
        trial.learn(trial.together, 1.0)
    assert not trial.settled


@pytest.mark.parametrize("second", [1.0, 0.001], ids=["long", "short"])
def test_one_slow_moment_does_not_make_work_be_done_in_turn(second: float) -> None:
    trial, ways = threads.Trial(), []
    for call in range(60):
        ways.append(trial.together)
        slow = 3.0 if call < (1 if second == 1.0 else 6) else 1.0  # the second core was away, once
        trial.learn(trial.together, (slow if trial.together else 2.0) * second)
    assert ways[-20:].count(False) <= 2


@pytest.mark.parametrize(("second", "calls"), [(1.0, 400), (0.0005, 4000)], ids=["long", "short"])
def test_work_beside_a_busy_core_is_tried_together_ever_more_seldom(second: float, calls: int) -> None:
    trial, ways = threads.Trial(), []
    for _ in range(calls):
        ways.append(trial.together)
        trial.learn(trial.together, (3.0 if trial.together else 2.0) * second)
    assert 4 <= sum(ways[:40]) <= 12 and sum(ways[calls // 2 :]) <= 6
    for _ in range(calls):  # free again
        ways.append(trial.together)
        trial.learn(trial.together, (1.0 if trial.together else 2.0) * second)
    assert sum(ways[-calls // 2 :]) >= 0.98 * calls // 2


def test_a_core_that_is_taken_away_is_noticed() -> None:
    trial, ways = threads.Trial(), []
    for call in range(200):
        ways.append(trial.together)
        trial.learn(trial.together, (1.0 if call < 100 or not trial.together else 9.0) + (not trial.together))
    assert ways[20:100].count(False) == 0 and ways[100:110].count(False) >= 3 and ways[-60:].count(True) <= 6


def test_few_sequences_share_products_alone_if_those_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "available", lambda: 2)
    assert [threads.count(batch) for batch in (1, 7, 8)] == [1, 1, 2]
    assert [threads.count(1, beside) for beside in (threads.WORTH - 1, threads.WORTH)] == [1, 2]
    assert [threads.loops(2, batch) for batch in (1, 7, 8)] == [1, 1, 2]


def test_one_part_needs_no_trial() -> None:
    called: list[Any] = []
    threads.share(lambda *about: called.append(about), 0, 1, "work")
    assert called == [(0, 0, 1)] and not threads.TRIALS


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("batch", [32, 3], ids=["sequences", "products"])
def test_together_and_in_turn_give_the_same_bits(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(threads, "WORTH", 0)
    torch.manual_seed(0)
    cell, weights = GRU(8, 24), torch.randn(9, batch, 24)
    inputs = torch.randn(9, batch, 8, requires_grad=True)
    results = []
    for _ in range(threads.WARM + threads.TRIED + 2):
        outputs, _ = unroll(cell, inputs, engine="compiled")
        grads = torch.autograd.grad((outputs * weights).sum(), [inputs, *cell.parameters()])
        results.append([outputs, *grads])
    assert any(trial.settled for trial in threads.TRIALS.values())
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))
