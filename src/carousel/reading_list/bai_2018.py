"""Bai, Kolter and Koltun 2018, An empirical evaluation of generic convolutional and recurrent networks: music."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from carousel.data.rolls import KEYS
from carousel.nn import Recurrent
from carousel.reading_list.experiment import Condition, Experiment, Outcome, first_weights, judged
from carousel.tasks.chorales import Chorales, guesses
from carousel.tasks.problem import SequenceModel

PAPER = "Bai, Kolter and Koltun 2018, arXiv:1803.01271v2, table 1"
BATCH = 8


@dataclass(frozen=True)
class Setting:
    """How a set is learned: its file, and what was chosen for it by the validation pieces.

    Args:
        masks: locked dropout of the inputs, of the state that each step reads, and of what is read out.
        longest: the frames of a part, where pieces are cut.
        informed: the readout's bias begins at how often each key sounds.
    """

    name: str
    masks: tuple[float, float, float]
    longest: int | None = None
    informed: bool = False


JSB = Setting("JSB_Chorales", (0.2, 0.6, 0.5))
NOTTINGHAM = Setting("Nottingham", (0.0, 0.1, 0.2), longest=50, informed=True)


def network(cell: str, hidden: int, masks: tuple[float, float, float], seed: int) -> SequenceModel:
    with first_weights(seed):
        recurrent = Recurrent(cell, KEYS, hidden, input_dropout=masks[0], state_dropout=masks[1])
        return SequenceModel(recurrent, KEYS, every_step=True, dropout=masks[2])


def music(
    setting: Setting,
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
    problem = Chorales(Path(data) / f"{setting.name}.mat", batch_size=BATCH, longest=setting.longest)
    model = network(cell, hidden, setting.masks, seed)
    if setting.informed:
        often = guesses(problem.pieces["train"])["each key's frequency"]
        model.readout.bias.data = often(torch.zeros(KEYS)).logit()
    return judged(
        model,
        problem,
        seed,
        limit or epochs * len(problem.parts),
        batch=BATCH,
        wanted=wanted,
        learning_rate=rate,
        average=0.99,
    )


HOW = (
    "The next frame of a piano roll; score: the negative log-likelihood of a test frame, in nats, as in the paper. "
    "Solved: no more than the paper has. One layer, trained for {epochs} epochs, 8 {pieces} a step, by Adam at one "
    "cycle of the learning rate, with gradients clipped to norm 1, locked dropout of inputs ({masks[0]}) and of the "
    "state that each step reads ({masks[1]}), and dropout before the readout ({masks[2]}); the moving average of the "
    "weights (0.99) that did best on the validation pieces is tested once. "
)
EXPERIMENTS = [
    Experiment(
        name="jsb-chorales",
        paper=PAPER,
        about=HOW.format(epochs="150 (GRU: 200)", pieces="pieces", masks=JSB.masks)
        + "H = 220 (291,368 parameters) and 260 (295,228).",
        score="nats a frame",
        conditions=[
            Condition("lstm", "8.45", partial(music, JSB, 150, "lstm", 220, 0.008, 8.45), trials=3),
            Condition("gru", "8.43", partial(music, JSB, 200, "gru", 260, 0.005, 8.43), trials=3),
        ],
        draw=("training pieces seen", "nats a frame, validation"),
        data="the folder of JSB_Chorales.mat",
        digits=4,
    ),
    Experiment(
        name="nottingham",
        paper=PAPER,
        about=HOW.format(epochs=16, pieces="parts of 50 frames", masks=NOTTINGHAM.masks)
        + "H = 220 and 260, as for the chorales. The readout's bias begins at how often each key sounds.",
        score="nats a frame",
        conditions=[
            Condition("lstm", "3.29", partial(music, NOTTINGHAM, 16, "lstm", 220, 0.008, 3.29), trials=1),
            Condition("gru", "3.46", partial(music, NOTTINGHAM, 16, "gru", 260, 0.004, 3.46), trials=1),
        ],
        draw=("training pieces seen", "nats a frame, validation"),
        data="the folder of Nottingham.mat",
        digits=4,
    ),
]
