"""Time several ways to do one thing in turns, in a new random order each round, so that noise hits all alike."""

from __future__ import annotations

import gc
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Run = Callable[[], Any]
TURN = 0.02  # seconds


@dataclass(frozen=True)
class Timing:
    """The seconds that a call took, of each round the mean."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high


def interleave(
    runs: Mapping[str, Run], budget: float, *, least: int = 3, rest: float = 0.0, prime: Run | None = None
) -> dict[str, Timing]:
    """Time every run in each round, for about `budget` seconds and at least `least` rounds, after two that warm up.

    What is shorter than `TURN` is called as often as fills it, and once before that is not timed: training and serving
    make one call after the other, and do not find their memory full of somebody else's. The order is drawn anew each
    round: in turn, or rotated, a run would always inherit the same neighbour's caches. `rest` seconds of sleep before
    each let the worker threads of the one before stop spinning. `prime` is one of the runs that is called once,
    untimed, each time before it is timed: a rate to be held to, at its best.
    """

    def one_round(seconds: dict[str, list[float]], calls: Mapping[str, int]) -> float:
        began = time.perf_counter()
        for name in order.sample(names, len(names)):
            if rest:
                time.sleep(rest)
            if runs[name] is prime:
                prime()
            seconds[name].append(_timed(runs[name], calls.get(name, 1)))
        return time.perf_counter() - began

    names, order = list(runs), random.Random(0)
    warm: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(2):  # the first time compiles, and does not say how long a call takes
        one_round(warm, {})
    calls = {name: max(1, int(TURN / min(warm[name]))) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        spent, rounds = 0.0, 0
        while rounds < least or spent < budget:
            spent, rounds = spent + one_round(seconds, calls), rounds + 1
    finally:
        gc.enable()
    return {name: Timing(tuple(taken)) for name, taken in seconds.items()}


def _timed(run: Run, calls: int) -> float:
    """The seconds of a call; what the last gives is freed after the clock has stopped."""
    if calls > 1:
        run()
    began = time.perf_counter()
    for _ in range(calls):
        result = run()
    seconds = time.perf_counter() - began
    del result
    return seconds / calls


def pin(threads: int) -> None:
    """Hold this process and every library in it to `threads` cores.

    OpenMP and XLA read the environment when they are loaded, so the process starts itself again with the right one.
    """
    wanted = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if threads == 1:
        wanted["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    if hasattr(os, "sched_setaffinity"):
        # The last cores: the first serves most interrupts.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})
