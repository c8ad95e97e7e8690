"""Greff, Srivastava, Koutnik, Steunebrink and Schmidhuber 2016, LSTM: a search space odyssey; on the chorales."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch

from carousel.data.rolls import KEYS
from carousel.nn import Recurrent
from carousel.reading_list.experiment import Condition, Experiment, Outcome, first_weights, judged
from carousel.tasks.chorales import Chorales
from carousel.tasks.problem import SequenceModel
from carousel.training.seeding import generator

PAPER = "Greff et al. 2016, arXiv:1503.04069v2"
VARIANTS = {
    "V": "lstm-peephole",
    "NIG": "lstm-nig",
    "NFG": "lstm-nfg",
    "NOG": "lstm-nog",
    "NIAF": "lstm-niaf",
    "NOAF": "lstm-noaf",
    "CIFG": "lstm-cifg",
    "NP": "lstm-np",
    "FGR": "lstm-fgr",
}
EPOCHS, BATCH, TRIALS, BINS = 16, 8, 10, 3


@dataclass(frozen=True)
class Settings:
    """What a trial is tried with."""

    learning_rate: float
    hidden: int
    input_dropout: float
    state_dropout: float


def drawn(variant: str, seed: int) -> Settings:
    """At random: the rate from 3e-4 to 0.1 and H from 20 to 200, both log-uniform; dropouts from 0 to 0.6, uniform.

    >>> drawn("V", 0) == drawn("V", 0) != drawn("V", 1)
    True
    """
    rate, size, inputs, state = torch.rand(4, generator=generator("odyssey", variant, seed)).tolist()
    return Settings(3e-4 * (1000 / 3) ** rate, round(20 * 10**size), 0.6 * inputs, 0.6 * state)


def odyssey(variant: str, seed: int, limit: int | None = None, *, data: str | Path) -> Outcome:
    problem, settings = Chorales(Path(data) / "JSB_Chorales.mat", batch_size=BATCH), drawn(variant, seed)
    with first_weights(seed):
        recurrent = Recurrent(
            VARIANTS[variant],
            KEYS,
            settings.hidden,
            input_dropout=settings.input_dropout,
            state_dropout=settings.state_dropout,
        )
        model = SequenceModel(recurrent, KEYS, every_step=True)
    outcome = judged(
        model,
        problem,
        seed,
        limit or EPOCHS * len(problem.pieces["train"]),
        batch=BATCH,
        wanted=problem.baselines()["the frame before"],
        learning_rate=settings.learning_rate,
        points=10,
    )
    return replace(outcome, drawn=[(settings.learning_rate, outcome.score)])


def importance(scores: Mapping[tuple[str, int], float]) -> dict[str, float]:
    """The share of the variance of scores that lies between the thirds of each setting, with the settings' names.

        Σ_b n_b (mean of bin b − mean)² / Σ (score − mean)²,    less what thirds of a random order would have

    of scores taken less the mean of their variant; not a number for so few that each is a third. A marginal effect of
    each setting by itself, as the first order of the paper's functional analysis of variance, without its regression
    forests.
    """
    means = {name: statistics.fmean(v for (one, _), v in scores.items() if one == name) for name, _ in scores}
    trials = [(drawn(name, seed), score - means[name]) for (name, seed), score in scores.items()]
    total, by_chance = sum(score**2 for _, score in trials), (BINS - 1) / max(1, len(trials) - 1)
    found = {}
    for setting in Settings.__dataclass_fields__:
        ordered = [score for _, score in sorted(trials, key=lambda trial: getattr(trial[0], setting))]
        edges = [round(k * len(ordered) / BINS) for k in range(BINS + 1)]
        bins = [ordered[a:b] for a, b in pairwise(edges) if b > a]
        between = sum(len(some) * statistics.fmean(some) ** 2 for some in bins)
        found[setting] = (between / total - by_chance) / (1 - by_chance) if total and by_chance < 1 else math.nan
    return found


def remarks(outcomes: Mapping[str, Mapping[int, Outcome]]) -> str:
    """The best trials of each variant, and the importance of each setting."""
    rows = ["| variant | best | mean of the best quarter | settings of the best |", "| --- | --- | --- | --- |"]
    for name, by_seed in outcomes.items():
        if by_seed:
            ranked = sorted(by_seed, key=lambda seed: by_seed[seed].score)
            quarter = [by_seed[seed].score for seed in ranked[: -(-len(ranked) // 4)]]
            best = drawn(name, ranked[0])
            rows.append(
                f"| {name} | {quarter[0]:.3f} | {statistics.fmean(quarter):.3f} | rate {best.learning_rate:.2g}, "
                f"H = {best.hidden}, dropout of inputs {best.input_dropout:.2f}, of state {best.state_dropout:.2f} |"
            )
    scores = {(name, seed): outcome.score for name, some in outcomes.items() for seed, outcome in some.items()}
    shares = [f"{name.replace('_', ' ')} {100 * share:.0f}%" for name, share in importance(scores).items()]
    said = (
        "Importance: the share of the variance of the scores, within variants, that lies between the thirds of a "
        f"setting, less what a random order would have: {', '.join(shares)}. It is the first-order effect only, and by "
        "means of bins, where the paper has a functional analysis of variance by regression forests."
    )
    return "\n".join([*rows, "", said])


SAID = {
    "V": "none is significantly better",
    "NFG": "critical: the forget gate",
    "NOAF": "critical: the output activation",
}
EXPERIMENTS = [
    Experiment(
        name="odyssey",
        paper=f"{PAPER}, JSB chorales",
        about=(
            "The vanilla LSTM, V, with peepholes, and eight variants of which each lacks or changes one part, by "
            f"random search: {TRIALS} trials each, of {EPOCHS} epochs (the paper: 5,400 runs on three tasks). Score: "
            "nats a frame. Solved: no more than the frame before gives away (10.49). Drawn at random: the learning "
            "rate from 3e-4 to 0.1 and H from 20 to 200, log-uniform; locked dropout of the inputs and of the state, 0 "
            "to 0.6; the settings are not all the paper's. Adam at one cycle of the rate, 8 pieces a step, gradients "
            "clipped to norm 1. The weights with the best validation score are tested."
        ),
        score="nats a frame",
        conditions=[
            Condition(name, SAID.get(name, "not significantly better than V"), partial(odyssey, name), trials=TRIALS)
            for name in VARIANTS
        ],
        draw=("learning rate", "nats a frame, test"),
        log_x=True,
        data="the folder of JSB_Chorales.mat",
        digits=4,
        remarks=remarks,
    )
]
