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
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

WORD = ctypes.c_int64
_FORKED: list[bool] = []
_POOL: list[ThreadPoolExecutor] = []
_ONE_TEAM = threading.Lock()  # of the pool: two that each wait for a thread the other has would wait forever


class OpenMP(NamedTuple):
    """What is needed of GNU OpenMP: its entry point, and the addresses of two functions."""

    parallel: Any
    thread_number: int
    team_size: int


WARM, TRIED, AGAIN = 2, 4, 2000  # calls: not counted, counted, and after how many all is asked anew
LONG = 0.002  # seconds: of work that takes longer, every call counts
LEAST, FIRST = 2, 4  # calls: of long work before it is done together, and in turn until together is tried again
LATE = 3  # calls in a row, slower together than in turn, after which all is asked anew
FEWEST = 4  # sequences: of each thread that shares a loop
WORTH = 2**24  # operations: of products beside a loop that threads share where its sequences are too few to be


@dataclass
class Trial:
    """How long a piece of work took, in turn and together.

    That it is slower together is believed late and not for long: a core that was taken away for a moment looks the same
    as one that is always busy.
    """

    calls: int = 0
    best: dict[bool, float] = field(default_factory=lambda: {False: math.inf, True: math.inf})
    patience: int = FIRST
    late: int = 0

    @property
    def settled(self) -> bool:
        least, most = sorted(self.best.values())
        enough = LEAST if self.best[True] <= self.best[False] else TRIED
        return self.calls >= (enough if LONG < least <= most < math.inf else WARM + TRIED)

    @property
    def together(self) -> bool:
        """Whether the next call is by all threads."""
        return self.best[True] <= self.best[False] if self.settled else self.calls % 2 == 0

    def learn(self, together: bool, seconds: float) -> None:
        if WARM <= self.calls < WARM + TRIED or (seconds > LONG and not self.settled):
            self.best[together] = min(self.best[together], seconds)
        self.late = self.late + 1 if together and self.settled and seconds > self.best[False] else 0
        self.calls += 1
        if self.calls >= self.again(seconds) or self.late == LATE:
            slower = self.best[True] > self.best[False]
            self.patience = min(2 * self.patience, self.rest(seconds)) if slower else FIRST
            self.calls, self.late, self.best = 0, 0, dict.fromkeys(self.best, math.inf)

    def again(self, seconds: float) -> int:
        """After how many calls all is asked anew: soon if all threads seemed the slower way."""
        slower = self.settled and self.best[True] > self.best[False]
        return WARM + TRIED + self.patience if slower else self.rest(seconds)

    @staticmethod
    def rest(seconds: float) -> int:
        """How many calls an answer holds at the most."""
        return AGAIN // 10 if seconds > LONG else AGAIN


TRIALS: dict[Any, Trial] = {}


def share(play: Any, head: int, parts: int, about: Any) -> None:
    """Call `play(head, number, team)` in each thread of a team of so many, or in turn in one.

    Args:
        head: an address.
        play: a compiled function `void play(int64 *head, int64 number, int64 team)` that does all parts number,
            number + team, ...
        about: what the work is: calls about the same thing learn from each other.
    """
    if parts == 1:
        play(head, 0, 1)
        return
    if len(TRIALS) > 1000:
        TRIALS.clear()
    trial = TRIALS.setdefault(about, Trial())
    together, began = trial.together, time.perf_counter()
    if together:
        _together(play, head, parts)
    else:
        play(head, 0, 1)
    trial.learn(together, time.perf_counter() - began)


def timed(play: Any, head: int, parts: int) -> float:
    """The seconds that it takes with all threads."""
    began = time.perf_counter()
    _together(play, head, parts)
    return time.perf_counter() - began


def _together(play: Any, head: int, parts: int) -> None:
    openmp = None if _FORKED else _openmp()
    if parts == 1:
        play(head, 0, 1)
    elif openmp is None:
        team = min(parts, _workers() + 1)  # each must run at the same time as the others: they wait for each other
        with _ONE_TEAM:
            waiting = [_pool().submit(play, head, number, team) for number in range(1, team)]
            play(head, 0, team)
            for one in waiting:
                one.result()
    else:
        words = (openmp.thread_number, openmp.team_size, address(play), head)
        openmp.parallel(_each(), (WORD * len(words))(*words), parts, 0)


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
        return OpenMP(library.GOMP_parallel, address(library.omp_get_thread_num), address(library.omp_get_num_threads))
    except (OSError, AttributeError):
        return None


def address(function: Any) -> int:
    """Where a compiled function is."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@cache
def _each() -> int:
    """The address of a function that calls another with a head, and the number of the thread it runs in."""
    from llvmlite import ir

    from carousel.compiler import objects
    from carousel.compiler.arithmetic import LONG, POINTER

    module = ir.Module("share")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), "each")
    b, (words,) = ir.IRBuilder(function.append_basic_block("entry")), function.args
    ask, act = ir.FunctionType(ir.IntType(32), []), ir.FunctionType(ir.VoidType(), [POINTER, LONG, LONG])
    found = [b.load(b.gep(words, [LONG(place)], source_etype=LONG), typ=LONG) for place in range(4)]
    number, team = (b.sext(b.call(b.inttoptr(one, ask.as_pointer()), []), LONG) for one in found[:2])
    b.call(b.inttoptr(found[2], act.as_pointer()), [b.inttoptr(found[3], POINTER), number, team])
    b.ret_void()
    return address(objects.library(str(module)).function("each", ctypes.c_void_p))


def _workers() -> int:
    return max(1, (os.cpu_count() or 1) - 1)


def _pool() -> ThreadPoolExecutor:
    if not _POOL:
        _POOL.append(ThreadPoolExecutor(_workers(), thread_name_prefix="carousel"))
    return _POOL[0]


def _after_fork() -> None:
    global _ONE_TEAM
    _FORKED.append(True)
    _POOL.clear()
    _ONE_TEAM = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def available() -> int:
    """How many threads may be used: `torch.get_num_threads`."""
    return torch.get_num_threads()


def count(batch: int, beside: int = 0) -> int:
    """How many threads share a batch of that many sequences, with so many operations in products beside its loop."""
    return available() if beside >= WORTH else loops(available(), batch)


def loops(threads: int, batch: int) -> int:
    """How many of so many threads share the loop itself; the products beside it are for all of them."""
    return max(1, min(threads, batch // FEWEST))
