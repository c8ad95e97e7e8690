"""Truncated BPTT over one long stream: its memory, and its time against the same steps as independent chunks.

    python benchmarks/truncated_bptt.py [--steps 1000000]

A stream of 10^6 steps is read in 32 columns by an LSTM, in pieces of k1 = 100 steps with Adam after each. Compared,
alternating in one process, on one thread: the state carried over (k2 = k1); chunks that each begin at zero and know
nothing of one another, without BPTT; and backward passes that go further (k2 = 2 k1 and 4 k1, for which windows that
overlap would cost 2 and 4 times everything). Prints for each the median time of a step over rounds, the spread, the
ratio to the chunks, and the memory of the process after the first round and in the end.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from carousel.nn import Recurrent
from carousel.training import BPTT, Columns, Piece

K1, BATCH, FEATURES, HIDDEN, ROUNDS = 100, 32, 32, 128, 25


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.readout = Recurrent("lstm", FEATURES, HIDDEN), nn.Linear(HIDDEN, FEATURES)

    def forward(self, piece: Piece, state: Any) -> tuple[Tensor, Any]:
        outputs, state = self.recurrent(piece.inputs, state)
        return (self.readout(outputs) - piece.targets).square().sum() / (K1 * BATCH), state


def resident() -> int:
    """Megabytes that the process has now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() >> 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    stream = torch.randn(options.steps + 1, FEATURES, generator=torch.Generator().manual_seed(0)).cumsum(0).sin_()
    pieces = Columns(stream[:-1], stream[1:], BATCH, K1)
    ways: dict[str, Callable[[Piece], Tensor]] = {}
    optimisers: dict[str, torch.optim.Optimizer] = {}
    for name, k2 in (("chunks", 0), ("k2 = k1", K1), ("k2 = 2 k1", 2 * K1), ("k2 = 4 k1", 4 * K1)):
        torch.manual_seed(0)
        model = Model()
        ways[name] = BPTT(model, model, k1=K1, k2=k2) if k2 else lambda piece, model=model: model(piece, None)[0]
        optimisers[name] = torch.optim.Adam(model.parameters())
    for name in ways:  # compile
        ways[name](pieces[0]).backward()
    times: dict[str, list[float]] = {name: [] for name in ways}
    size = max(1, len(pieces) // ROUNDS)
    print(f"{options.steps:,} steps in {BATCH} columns, {len(pieces)} pieces of {K1}, {len(pieces) // size} rounds")
    before = 0
    for begin in range(0, len(pieces), size):
        chosen = [pieces[k] for k in range(begin, min(begin + size, len(pieces)))]
        for name, way in ways.items():
            began = time.perf_counter()
            for piece in chosen:
                optimisers[name].zero_grad()
                way(piece).backward()
                optimisers[name].step()
            times[name].append((time.perf_counter() - began) / sum(len(piece.inputs) for piece in chosen))
        before = before or resident()
    print(f"memory {before} MB after the first round, {resident()} MB in the end, the stream's included")
    for name, found in times.items():
        ratio = statistics.median(a / b for a, b in zip(found, times["chunks"], strict=True))
        print(
            f"{name:10} {1e6 * statistics.median(found):7.1f} us a step of {BATCH} "
            f"({1e6 * min(found):.1f} to {1e6 * max(found):.1f})   {ratio:.3f} of the chunks"
        )


if __name__ == "__main__":
    main()
