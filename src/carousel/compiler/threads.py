"""The threads that share a batch."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import torch

_POOL: list[ThreadPoolExecutor] = []


def pool() -> ThreadPoolExecutor:
    """Threads that wait for work, as many as there are processors; a forked process makes its own."""
    if not _POOL:
        _POOL.append(ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="carousel"))
    return _POOL[0]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.clear)


def count(batch: int) -> int:
    """How many threads share a batch of that many sequences."""
    return max(1, min(torch.get_num_threads(), batch // 4))
