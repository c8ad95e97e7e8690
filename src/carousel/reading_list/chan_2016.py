"""Chan, Jaitly, Le and Vinyals 2016, Listen, attend and spell: their pyramid, on digits read pixel by pixel."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn

from carousel.nn import Recurrent
from carousel.nn.pyramid import join_steps
from carousel.reading_list.chang_2019 import SIDE, order_of
from carousel.reading_list.experiment import Condition, Experiment, Outcome, first_weights, judged
from carousel.tasks.digits import Digits
from carousel.tasks.problem import Examples

PAPER = "Chan, Jaitly, Le and Vinyals 2016, arXiv:1508.01211"
BATCH, IMAGES = 64, 58_000


class Pixels(Digits):
    """`Digits` row by row, or in the one random order of the experiment `pixel-digits`."""

    def __init__(self, data: str | Path, *, permuted: bool) -> None:
        super().__init__(data, side=SIDE, batch_size=BATCH)
        order = order_of(permuted)
        self.images = self.images[order]
        self.held = {split: (pixels[order], digits) for split, (pixels, digits) in self.held.items()}


class Hierarchy(nn.Module):
    """GRUs for the 196 pixels, the 28 half rows and the 14 rows, the last output of which is read.

    As `carousel.nn.Pyramid`, but layers differ in size, and each joins as many steps as makes a half row, or a row.

    >>> import torch
    >>> model = Hierarchy()
    >>> model(Examples(torch.zeros(196, 2, 1), torch.zeros(2))).shape
    torch.Size([2, 10])
    >>> sum(weight.numel() for weight in model.parameters())
    158730
    """

    def __init__(self) -> None:
        super().__init__()
        layers = [Recurrent("gru", 1, 32), Recurrent("gru", 7 * 32, 64), Recurrent("gru", 2 * 64, 128)]
        self.factors = [1, *(above.input_size // below.output_size for below, above in pairwise(layers))]
        self.layers, self.between = nn.ModuleList(layers), nn.Dropout(0.15)
        self.readout = nn.Sequential(nn.Dropout(0.4), nn.Linear(128, 10))

    def forward(self, examples: Examples) -> Tensor:
        outputs = examples.inputs
        for layer, factor in zip(self.layers, self.factors, strict=True):
            joined, _ = join_steps(outputs, factor=factor)
            outputs, _ = layer(self.between(joined) if factor > 1 else joined)
        said: Tensor = self.readout(outputs[-1])
        return said


def digits(
    permuted: bool, epochs: int, wanted: float, seed: int, limit: int | None = None, *, data: str | Path
) -> Outcome:
    with first_weights(seed):
        model = Hierarchy()
    problem, sequences = Pixels(data, permuted=permuted), limit or epochs * IMAGES
    return judged(model, problem, seed, sequences, batch=BATCH, wanted=wanted, learning_rate=0.004, average=0.998)


EXPERIMENTS = [
    Experiment(
        name="pixel-pyramid",
        paper=PAPER,
        about=(
            f"MNIST at {SIDE} x {SIDE}, each pixel the mean of four, read pixel by pixel, T = 196, row by row or in "
            "one random order for all. Score: percent of the 10,000 test digits. Solved: 98.5 row by row, 95 permuted. "
            "The paper's pyramid is of LSTMs and listens to speech; here a GRU of 32 units reads the pixels, one of 64 "
            "reads every seven of its outputs as one, and one of 128 every two of theirs. Six epochs, permuted three, "
            f"of Adam on batches of {BATCH} at one cycle of the rate, gradients clipped to norm 1, dropout between "
            "layers (0.15) and before the readout (0.4); the moving average of the weights (0.998) that did best on "
            "2,000 of the training images, which were not trained on, is tested once. No image is altered."
        ),
        score="accuracy in %",
        conditions=[
            Condition("plain", "not tried", partial(digits, False, 6, 98.5), trials=3),
            Condition("permuted", "not tried", partial(digits, True, 3, 95.0), trials=3),
        ],
        draw=("training images seen", "accuracy in %, validation"),
        data="the folder of MNIST's four idx files",
        digits=4,
    )
]
