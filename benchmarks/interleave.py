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


@dataclass(frozen=True)
class Timing:
    """The seconds that each round took."""

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
    """Time every run once a round, for about `budget` seconds and at least `least` rounds, after a warm-up.

    The order is drawn anew each round: in turn, or rotated, a run would always inherit the same neighbour's caches.
    `rest` seconds of sleep before each let the worker threads of the one before stop spinning. `prime` is one of the
    runs that is called once, untimed, each time before it is timed: a rate to be held to, at its best.
    """

    def one_round(seconds: dict[str, list[float]]) -> float:
        began = time.perf_counter()
        for name in order.sample(names, len(names)):
            if rest:
                time.sleep(rest)
            if runs[name] is prime:
                prime()
            seconds[name].append(_timed(runs[name]))
        return time.perf_counter() - began

    names, order = list(runs), random.Random(0)
    if one_round({name: [] for name in names}) < budget:
        one_round({name: [] for name in names})
    seconds: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        spent, rounds = 0.0, 0
        while rounds < least or spent < budget:
            spent, rounds = spent + one_round(seconds), rounds + 1
    finally:
        gc.enable()
    return {name: Timing(tuple(taken)) for name, taken in seconds.items()}


def _timed(run: Run) -> float:
    """Seconds; what the run gives is freed after the clock has stopped."""
    began = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - began
    del result
    return seconds


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
