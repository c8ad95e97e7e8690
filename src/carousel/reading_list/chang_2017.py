"""Chang et al. 2017, Dilated recurrent neural networks: copy memory."""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor
from torch.nn import functional as F

from carousel.reading_list.experiment import Condition, Experiment, Outcome, learn, network
from carousel.tasks.copying import CATEGORIES, SHOWN, SYMBOLS, copying
from carousel.training.seeding import generator

PAPER = "Chang et al. 2017, arXiv:1710.02224, the copy memory problem"
UNITS, LAYERS, BATCH, SEQUENCES, HELD_OUT, DELAY = 32, 6, 32, 64_000, 200, 30


def copies(cell: str, dilated: bool, delay: int, seed: int, limit: int | None = None) -> Outcome:
    dilation = [2**layer if dilated else 1 for layer in range(LAYERS)]
    model = network(seed, cell, CATEGORIES, UNITS, CATEGORIES, layers=LAYERS, dilation=dilation)
    test = copying(HELD_OUT, delay, generator("held out", delay))
    guess = SHOWN * math.log(SYMBOLS) / (delay + 2 * SHOWN)

    def loss(step: int) -> Tensor:
        some = copying(BATCH, delay, generator(seed, "copying", step))
        return F.cross_entropy(model(some.inputs).flatten(0, 1), some.targets.flatten())

    def right() -> tuple[bool, float]:
        share = float(F.cross_entropy(model(test.inputs).flatten(0, 1), test.targets.flatten())) / guess
        return share < 0.1, share

    return learn(model, loss, right, batch=BATCH, limit=limit or SEQUENCES, every=100, learning_rate=0.003)


EXPERIMENTS = [
    Experiment(
        name="dilated-copy",
        paper=PAPER,
        about=(
            f"Copy memory with a delay of {DELAY} (the paper: 500 and 1000): a stack of {LAYERS} layers with dilations "
            f"1, 2, 4 to {2 ** (LAYERS - 1)} against the same stack without. Solved: on {HELD_OUT} new sequences a "
            f"cross-entropy below a tenth of what can be had without a memory, {SHOWN} ln {SYMBOLS} / (T + {2 * SHOWN})"
            f". {UNITS} units a layer, Adam on batches of {BATCH}, for at most {SEQUENCES:,} sequences."
        ),
        score="cross-entropy over that without a memory",
        conditions=[
            Condition(
                f"{name}, {'dilated' if dilated else 'plain'}", "", partial(copies, cell, dilated, DELAY), trials=3
            )
            for name, cell in (("tanh", "elman"), ("GRU", "gru"))
            for dilated in (True, False)
        ],
    )
]
