"""Chang, Chen, Haber and Chi 2019, AntisymmetricRNN: digits pixel by pixel, plain and permuted."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.reading_list.experiment import Condition, Experiment, Outcome, learn, network
from carousel.tasks.digits import Digits
from carousel.tasks.problem import Held
from carousel.training.seeding import generator

PAPER = "Chang, Chen, Haber and Chi 2019, arXiv:1902.09689v1, table 1"
UNITS, BATCH, SIDE, EPOCH = 64, 64, 14, 58_000

digits = lru_cache(maxsize=1)(Digits)


def order_of(permuted: bool) -> Tensor:
    """In which the pixels are read: row by row, or one random order for all."""
    pixels = SIDE * SIDE
    return torch.randperm(pixels, generator=generator("permutation")) if permuted else torch.arange(pixels)


def pixels(cell: str, permuted: bool, seed: int, limit: int | None = None, *, data: str | Path) -> Outcome:
    problem = digits(data, side=SIDE, batch_size=BATCH)
    model = network(seed, cell, 1, UNITS, 10)
    order = order_of(permuted)

    def said(inputs: Tensor) -> Tensor:
        named: Tensor = model(inputs[order])[-1]
        return named

    def loss(step: int) -> Tensor:
        some = problem.batch(seed, step)
        return F.cross_entropy(said(some.inputs), some.targets)

    def share_right(split: Held) -> float:
        right = [(said(some.inputs).argmax(-1) == some.targets).float() for some in problem.held_out(split)]
        return float(torch.cat(right).mean())

    outcome = learn(
        model,
        loss,
        lambda: (False, share_right("val")),
        batch=BATCH,
        limit=limit or EPOCH,
        every=EPOCH // BATCH // 4,
        learning_rate=0.003,
        decay=True,
    )
    with torch.no_grad():
        score = share_right("test")
    return replace(outcome, solved=score >= 0.9, score=score, drawn=outcome.curve)


FOUND = {
    ("antisymmetric", False): "98.0%, 128 units, 28 x 28",
    ("antisymmetric", True): "95.8%",
    ("antisymmetric-gated", False): "98.8%",
    ("antisymmetric-gated", True): "93.1%",
    ("lstm", False): "97.3%",
    ("lstm", True): "92.6%",
}
NAMES = {"antisymmetric": "antisymmetric", "antisymmetric-gated": "antisymmetric, gated", "lstm": "LSTM"}
EXPERIMENTS = [
    Experiment(
        name="pixel-digits",
        paper=PAPER,
        about=(
            f"MNIST at {SIDE} x {SIDE}, one pixel a step, row by row or in one random order for all. Score: the share "
            f"of the 10,000 test images named right after one epoch; solved: at least 0.9. {UNITS} units, Adam with a "
            f"rate that falls from 0.003, batches of {BATCH}; the paper had 128, images of 28 x 28 and trained longer."
        ),
        score="share right",
        conditions=[
            Condition(
                f"{NAMES[cell]}, {'permuted' if permuted else 'plain'}",
                FOUND[cell, permuted],
                partial(pixels, cell, permuted),
                trials=2,
            )
            for permuted in (False, True)
            for cell in NAMES
        ],
        draw=("sequences", "share of validation images right"),
        data="the folder of MNIST's four idx files",
    )
]
