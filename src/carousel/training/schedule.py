"""How the learning rate goes over a run: a factor of the given rate, a pure function of the share of the run done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from carousel.training.names import nearest


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


def warm_up(done: float, share: float = 0.05) -> float:
    """Rise in a line from 0 over the first `share`, then 1."""
    return min(1.0, done / share)


def linear(done: float) -> float:
    """Fall in a line from 1 to 0."""
    return 1 - done


def cosine(done: float) -> float:
    """Fall from 1 to 0 along half a cosine.

    Loshchilov and Hutter 2017, arXiv:1608.03983v5, eq. 5, without restarts.
    """
    return _cosine(1.0, 0.0, done)


def exponential(done: float, last: float = 0.01) -> float:
    """Fall by the same factor at every step, to `last`."""
    return float(last**done)


def steps(done: float, factor: float = 0.1) -> float:
    """1 for the first half; then a tenth, for the last quarter a hundredth."""
    return 1.0 if done < 0.5 else factor if done < 0.75 else factor * factor


def triangular(done: float, cycles: int = 4, lowest: float = 0.1) -> float:
    """Rise from `lowest` to 1 and fall again, in lines, so many times.

    Smith 2017, arXiv:1506.01186v6, section 3.1, "triangular".
    """
    place = done * cycles % 1
    return lowest + (1 - lowest) * (1 - abs(2 * place - 1))


SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "one-cycle": one_cycle,
    "constant": constant,
    "warm-up": warm_up,
    "linear": linear,
    "cosine": cosine,
    "exponential": exponential,
    "steps": steps,
    "triangular": triangular,
}


def schedule_named(name: str) -> Callable[[float], float]:
    """The schedule of that name, or a `ConfigError` with the nearest."""
    return SCHEDULES[nearest("schedule", name, SCHEDULES)]


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
