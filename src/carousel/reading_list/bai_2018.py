"""Bai, Kolter and Koltun 2018, An empirical evaluation of generic convolutional and recurrent networks: music."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from carousel.data.rolls import KEYS
from carousel.nn import Recurrent
from carousel.reading_list.experiment import Condition, Experiment, Outcome, first_weights, judged
from carousel.tasks.chorales import Chorales
from carousel.tasks.problem import SequenceModel

PAPER = "Bai, Kolter and Koltun 2018, arXiv:1803.01271v2, table 1"
BATCH = 8


def network(cell: str, hidden: int, seed: int) -> SequenceModel:
    """One layer, with locked dropout of its inputs and of the state that each step reads, and of what is read out."""
    with first_weights(seed):
        recurrent = Recurrent(cell, KEYS, hidden, input_dropout=0.2, state_dropout=0.6)
        return SequenceModel(recurrent, KEYS, every_step=True, dropout=0.5)


def music(
    name: str,
    epochs: int,
    cell: str,
    hidden: int,
    rate: float,
    wanted: float,
    seed: int,
    limit: int | None = None,
    *,
    data: str | Path,
) -> Outcome:
    problem = Chorales(Path(data) / f"{name}.mat", batch_size=BATCH)
    return judged(
        network(cell, hidden, seed),
        problem,
        seed,
        limit or epochs * len(problem.pieces["train"]),
        batch=BATCH,
        wanted=wanted,
        learning_rate=rate,
        average=0.99,
    )


HOW = (
    "The next frame of a piano roll; score: the negative log-likelihood of a test frame, in nats, as in the paper. "
    "Solved: no more than the paper has. One layer, trained for {epochs} epochs, 8 pieces a step, by Adam at one cycle "
    "of the learning rate, with gradients clipped to norm 1, locked dropout of inputs (0.2) and of the state that each "
    "step reads (0.6), and dropout before the readout (0.5); the moving average of the weights (0.99) that did best on "
    "the validation pieces is tested once. {parameters}"
)
EXPERIMENTS = [
    Experiment(
        name="jsb-chorales",
        paper=PAPER,
        about=HOW.format(epochs="150 (GRU: 200)", parameters="H = 220 (291,368 parameters) and 260 (295,228)."),
        score="nats a frame",
        conditions=[
            Condition("lstm", "8.45", partial(music, "JSB_Chorales", 150, "lstm", 220, 0.008, 8.45), trials=3),
            Condition("gru", "8.43", partial(music, "JSB_Chorales", 200, "gru", 260, 0.005, 8.43), trials=3),
        ],
        draw=("training pieces seen", "nats a frame, validation"),
        data="the folder of JSB_Chorales.mat",
        digits=4,
    ),
    Experiment(
        name="nottingham",
        paper=PAPER,
        about=HOW.format(epochs=20, parameters="H = 220 and 260, as for the chorales."),
        score="nats a frame",
        conditions=[
            Condition("lstm", "3.29", partial(music, "Nottingham", 20, "lstm", 220, 0.008, 3.29), trials=1),
            Condition("gru", "3.46", partial(music, "Nottingham", 20, "gru", 260, 0.004, 3.46), trials=1),
        ],
        draw=("training pieces seen", "nats a frame, validation"),
        data="the folder of Nottingham.mat",
        digits=4,
    ),
]
