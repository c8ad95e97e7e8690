"""A training step in mixed precision, "on" and "auto", as a multiple of the one in float32, on one thread.

Three networks of a recurrence and a linear readout: the captioner's decoder (a readout over its words), a classifier of
texts (an LSTM in both directions, two labels), and a small network over long sequences. Modes take turns in one run;
medians of processor time, with the spread of the middle half.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from carousel import Recurrent
from carousel.training import autocast, bfloat16_pays, recurrences_compiled

MODES: tuple[Any, ...] = ("off", "on", "auto")
SHAPES = {  # T, B, I, H, classes, both directions, an answer at every step
    "captioner's decoder": (13, 60, 512, 512, 2538, False, True),
    "classifier of texts": (150, 32, 128, 128, 2, True, False),
    "small, long": (300, 32, 64, 64, 10, False, False),
}


def step_of(shape: tuple[Any, ...]) -> Callable[[Any], float]:
    """A function from a mode to the processor seconds of a step."""
    steps, batch, inputs, hidden, classes, both, every = shape
    torch.manual_seed(0)
    network = Recurrent("lstm", inputs, hidden, bidirectional=both)
    model = nn.ModuleList([network, nn.Linear(network.output_size, classes)])
    x, targets = torch.randn(steps, batch, inputs), torch.randint(classes, (steps if every else 1, batch))

    def step(mode: Any) -> float:
        model.zero_grad()
        began = time.process_time()
        with recurrences_compiled(model, mode):
            with autocast(mode):
                outputs, _ = network(x)
                logits = model[1](outputs if every else outputs[-1:]).float()
                loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
            loss.backward()
        return time.process_time() - began

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"bfloat16 {'is' if bfloat16_pays() else 'is not'} native; {rounds} rounds")
    for name, shape in SHAPES.items():
        step = step_of(shape)
        for mode in MODES:
            step(mode)
        taken = [{mode: step(mode) for mode in MODES} for _ in range(rounds)]
        print(f"{name}: off {statistics.median(one['off'] for one in taken):.4f} s", end="")
        for mode in MODES[1:]:
            low, middle, high = statistics.quantiles([one[mode] / one["off"] for one in taken], n=4)
            print(f"; {mode} {middle:.2f} ({low:.2f} to {high:.2f})", end="")
        print(flush=True)


if __name__ == "__main__":
    main()
