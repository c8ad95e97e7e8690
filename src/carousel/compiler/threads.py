"""The threads that share a batch.

Where PyTorch brings GNU OpenMP, its threads are used, through OpenMP's own entry point: threads of ours beside them
would fight for the same cores, as OpenMP's stay awake for a while after each operation. Elsewhere, and in a forked
process, where OpenMP's are gone, Python's threads do the same.

A second core that is busy with something else makes two threads slower than one. So the parts of a piece of work are
done now together, now in turn, until it is known which is faster; the results are the same to the bit either way.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

WORD = ctypes.c_int64
_FORKED: list[bool] = []
_POOL: list[ThreadPoolExecutor] = []


class OpenMP(NamedTuple):
    """What is needed of GNU OpenMP: its entry point, and the addresses of two functions."""

    parallel: Any
    thread_number: int
    team_size: int


@dataclass
class Trial:
    """How long a piece of work took, in turn and together."""

    calls: int = 0
    best: dict[bool, float] = field(default_factory=lambda: {False: math.inf, True: math.inf})

    @property
    def settled(self) -> bool:
        return self.calls >= WARM + TRIED or LONG < min(self.best.values()) <= max(self.best.values()) < math.inf

    @property
    def together(self) -> bool:
        """Whether the next call is by all threads."""
        return self.best[True] <= self.best[False] if self.settled else self.calls % 2 == 0

    def learn(self, together: bool, seconds: float) -> None:
        if WARM <= self.calls < WARM + TRIED or (seconds > LONG and not self.settled):
            self.best[together] = min(self.best[together], seconds)
        self.calls += 1
        if self.calls == AGAIN:
            self.calls, self.best = 0, dict.fromkeys(self.best, math.inf)


WARM, TRIED, AGAIN = 2, 4, 2000  # calls: not counted, counted, and after how many all is asked anew
LONG = 0.01  # seconds: of work that takes longer, one call of each kind says enough
TRIALS: dict[Any, Trial] = {}


def share(function: Any, tables: Sequence[Any], about: Any) -> None:
    """Call a compiled function `void f(int64 *table)` with each table, at the same time or in turn.

    Args:
        about: what the work is: calls about the same thing learn from each other.
    """
    if len(tables) == 1:
        function(tables[0])
        return
    if len(TRIALS) > 1000:
        TRIALS.clear()
    trial = TRIALS.setdefault(about, Trial())
    together, began = trial.together, time.perf_counter()
    if together:
        _together(function, tables)
    else:
        for table in tables:
            function(table)
    trial.learn(together, time.perf_counter() - began)


def timed(function: Any, tables: Sequence[Any]) -> float:
    """The seconds that it takes with all threads."""
    began = time.perf_counter()
    _together(function, tables)
    return time.perf_counter() - began


def _together(function: Any, tables: Sequence[Any]) -> None:
    openmp = None if _FORKED else _openmp()
    if len(tables) == 1:
        function(tables[0])
    elif openmp is None:
        waiting = [_pool().submit(function, table) for table in tables[1:]]
        function(tables[0])
        for one in waiting:
            one.result()
    else:
        addresses = [ctypes.addressof(table) for table in tables]
        words = (openmp.thread_number, openmp.team_size, _address(function), len(tables), *addresses)
        openmp.parallel(_each(), (WORD * len(words))(*words), len(tables), 0)


@cache
def _openmp() -> OpenMP | None:
    """GNU OpenMP as PyTorch has loaded it."""
    if sys.platform != "linux":
        return None
    lines = Path("/proc/self/maps").read_text().splitlines()
    loaded = {line.split(maxsplit=5)[-1] for line in lines if "libgomp" in line}
    if len(loaded) != 1:
        return None
    try:
        library = ctypes.CDLL(loaded.pop())
        library.GOMP_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        library.GOMP_parallel.restype = None
        return OpenMP(
            library.GOMP_parallel, _address(library.omp_get_thread_num), _address(library.omp_get_num_threads)
        )
    except (OSError, AttributeError):
        return None


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@cache
def _each() -> int:
    """The address of a function that calls another with the tables of the thread it runs in."""
    from llvmlite import ir

    from carousel.compiler import objects
    from carousel.compiler.arithmetic import LONG, POINTER
    from carousel.compiler.blocks import Loops, Target

    module = ir.Module("share")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), "each")
    w = Loops(function, Target(1, 1))
    b, (words,) = w.b, function.args
    ask, act = ir.FunctionType(ir.IntType(32), []), ir.FunctionType(ir.VoidType(), [POINTER])

    def word(place: Any) -> Any:
        return b.load(b.gep(words, [place], source_etype=LONG), typ=LONG)

    def call(address: Any, kind: ir.FunctionType, *arguments: Any) -> Any:
        return b.call(b.inttoptr(address, kind.as_pointer()), arguments)

    number = b.sext(call(word(LONG(0)), ask), LONG)
    team = b.sext(call(word(LONG(1)), ask), LONG)
    mine = b.add(b.sub(word(LONG(3)), number), b.sub(team, LONG(1)))
    with w.loop(b.sdiv(mine, team)) as turn:  # OpenMP may give fewer threads than asked for
        table = word(b.add(LONG(4), b.add(number, b.mul(turn, team))))
        call(word(LONG(2)), act, b.inttoptr(table, POINTER))
    b.ret_void()
    return _address(objects.library(str(module)).function("each", ctypes.c_void_p))


def _pool() -> ThreadPoolExecutor:
    if not _POOL:
        _POOL.append(ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="carousel"))
    return _POOL[0]


def _after_fork() -> None:
    _FORKED.append(True)
    _POOL.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def available() -> int:
    """How many threads may be used: `torch.get_num_threads`."""
    return torch.get_num_threads()


def count(batch: int) -> int:
    """How many threads share a batch of that many sequences."""
    return max(1, min(available(), batch // 4))
