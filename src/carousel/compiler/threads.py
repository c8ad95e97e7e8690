"""The threads that share a batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

_POOL: list[ThreadPoolExecutor] = []


def together(tasks: Sequence[Callable[[], Any]]) -> None:
    """Run all of them, each in a thread of its own, the first in this one."""
    waiting = [_pool().submit(_without_grad, task) for task in tasks[1:]]
    try:
        tasks[0]()
    finally:
        for one in waiting:
            one.result()


def _without_grad(task: Callable[[], Any]) -> None:
    with torch.no_grad():
        task()


def _pool() -> ThreadPoolExecutor:
    """Threads that wait for work, as many as there are processors; a forked process makes its own."""
    if not _POOL:
        _POOL.append(ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="carousel"))
    return _POOL[0]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.clear)


def available() -> int:
    """How many threads may be used: `torch.get_num_threads`."""
    return torch.get_num_threads()


def count(batch: int) -> int:
    """How many threads share a batch of that many sequences."""
    return max(1, min(available(), batch // 4))
