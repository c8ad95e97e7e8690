"""Le, Jaitly and Hinton 2015, A simple way to initialize recurrent networks of rectified linear units: adding."""

from __future__ import annotations

from functools import partial

from torch import Tensor
from torch.nn import functional as F

from carousel.reading_list.experiment import Condition, Experiment, Outcome, learn, network
from carousel.tasks.adding import adding
from carousel.training.seeding import generator

PAPER = "Le, Jaitly and Hinton 2015, arXiv:1504.00941v2, section 4.1"
UNITS, BATCH, SEQUENCES, HELD_OUT = 40, 16, 96_000, 2000
RATES = {"irnn": 0.001, "lstm": 0.01, "elman": 0.001}


def additions(cell: str, length: int, seed: int, limit: int | None = None) -> Outcome:
    model = network(seed, cell, 2, UNITS, 1)
    test = adding(HELD_OUT, length, generator("held out", length))

    def loss(step: int) -> Tensor:
        some = adding(BATCH, length, generator(seed, "adding", step))
        return F.mse_loss(model(some.inputs)[-1, :, 0], some.targets)

    def right() -> tuple[bool, float]:
        error = float(F.mse_loss(model(test.inputs)[-1, :, 0], test.targets))
        return error < 0.01, error

    return learn(model, loss, right, batch=BATCH, limit=limit or SEQUENCES, every=250, learning_rate=RATES[cell])


EXPERIMENTS = [
    Experiment(
        name="irnn-adding",
        paper=PAPER,
        about=(
            "The adding problem over its length: rectified linear units that start with the identity as their "
            "recurrent weights, against an LSTM and tanh units. Always saying 1 has a squared error of 0.167. Solved: "
            f"below 0.01 on {HELD_OUT:,} new sequences. {UNITS} units, Adam on batches of {BATCH}, clipped at a norm "
            f"of 1, with a rate of 0.001 (the LSTM: 0.01), for at most {SEQUENCES:,} sequences."
        ),
        score="squared error",
        conditions=[
            Condition(f"{name}, T = {length}", "", partial(additions, cell, length), trials=5, point=(name, length))
            for name, cell in (("IRNN", "irnn"), ("LSTM", "lstm"), ("tanh", "elman"))
            for length in (50, 100, 150, 300)
        ],
        draw=("length T", "share of trials solved"),
    )
]
