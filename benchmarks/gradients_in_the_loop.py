"""What reading and clipping the states' gradients at every step costs: in the compiled loop, and step by step.

    python benchmarks/gradients_in_the_loop.py

A training step of `Recurrent` on random inputs, forward and backward, on one thread; alternating in one process: plain;
read by `gauging`; clipped by `ClippedSteps`, compiled; the same with `engine="eager"`. Prints for each the median time
over rounds, the spread, and the median of its ratios to the plain step of the same round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from carousel.diagnostics import gauging
from carousel.nn import Recurrent
from carousel.training import ClippedSteps

ROUNDS = 31
SHAPES: list[tuple[str, int, int, int, dict[str, Any]]] = [  # cell, T, B, I = H
    ("lstm", 100, 32, 128, {}),
    ("gru", 100, 32, 128, {}),
    ("elman", 100, 32, 128, {}),
    ("lstm", 100, 32, 256, {"layers": 2}),
    ("lstm", 100, 32, 128, {"bidirectional": True}),
    ("lstm", 50, 16, 64, {}),
]


def ways(cell: str, T: int, B: int, H: int, options: dict[str, Any]) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    inputs, plain = torch.randn(T, B, H), Recurrent(cell, H, H, **options)
    clipped = [
        Recurrent([ClippedSteps(one, 1.0) for one in plain.cells], bidirectional=plain.bidirectional, engine=engine)  # type: ignore[arg-type]
        for engine in ("auto", "eager")
    ]

    def train(network: Recurrent) -> None:
        network.zero_grad()
        network(inputs)[0].square().sum().backward()

    def read() -> None:
        plain.zero_grad()
        with gauging(plain) as gauges:
            outputs, _ = plain(inputs)
        outputs.square().sum().backward()
        gauges.norms()

    return {
        "plain": lambda: train(plain),
        "read": read,
        "clipped": lambda: train(clipped[0]),
        "clipped, eager": lambda: train(clipped[1]),
    }


def main() -> None:
    torch.set_num_threads(1)
    for cell, T, B, H, options in SHAPES:
        made = ways(cell, T, B, H, options)
        times: dict[str, list[float]] = {name: [] for name in made}
        for way in made.values():
            way()
            way()
        for _ in range(ROUNDS):
            for name, way in made.items():
                began = time.process_time()
                way()
                times[name].append(1000 * (time.process_time() - began))
        print(f"{cell}, T = {T}, B = {B}, I = H = {H} {options or ''}")
        for name, found in times.items():
            ratio = statistics.median(a / b for a, b in zip(found, times["plain"], strict=True))
            print(
                f"    {name:15} {statistics.median(found):7.2f} ms ({min(found):.2f} to {max(found):.2f})   {ratio:.3f}"
            )


if __name__ == "__main__":
    main()
