"""How the learning rate goes over a run: a factor of the given rate, a pure function of the share of the run done."""

from __future__ import annotations

import math


def one_cycle(done: float, warm_up: float = 0.05) -> float:
    """Rise from 1/25 to 1 over the `warm_up`, then fall to 0, both along a cosine; `done` is from 0 to 1.

    Smith and Topin 2017, arXiv:1708.07120v3, with the momentum left as it is.

    >>> [round(one_cycle(done), 6) for done in (0.0, 0.05, 1.0)]
    [0.04, 1.0, 0.0]
    """
    if done < warm_up:
        return _cosine(0.04, 1.0, done / warm_up)
    return _cosine(1.0, 0.0, (done - warm_up) / (1 - warm_up))


def constant(done: float) -> float:
    """1 throughout."""
    return 1.0


SCHEDULES = {"one-cycle": one_cycle, "constant": constant}


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
