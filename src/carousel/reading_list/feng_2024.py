"""Feng et al. 2024, Were RNNs all we needed?: minGRU takes all steps at once, and gets deeper to select."""

from __future__ import annotations

import statistics
import time
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.reading_list.experiment import Condition, Experiment, Network, Outcome, learn, network
from carousel.training.memory import keep_freed_memory
from carousel.training.seeding import generator

PAPER = "Feng et al. 2024, arXiv:2410.01201v1"
UNITS, BATCH, REPEATS = 64, 32, 3
TIMED = (32, 64, 128, 256, 512)
SHOWN, SYMBOLS, LENGTH, SEQUENCES, HELD_OUT = 4, 8, 32, 64_000, 512


def step_time(model: Network, inputs: Tensor) -> float:
    """Milliseconds for outputs and gradients, on one thread of the processor's own."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    model(inputs).square().mean().backward()
    return 1e3 * (clock() - began)


def timed(cell: str, engine: str, seed: int, limit: int | None = None) -> Outcome:
    """In turn with a GRU step by step, so that both have the same machine."""
    keep_freed_memory()
    model = network(seed, cell, UNITS, UNITS, 1, engine=engine)
    gru = network(seed, "gru", UNITS, UNITS, 1, engine="eager")
    times, ratios, began = [], [], time.perf_counter()
    for length in TIMED:
        inputs = torch.randn(length, BATCH, UNITS, generator=generator(seed, length))
        found = [(step_time(model, inputs), step_time(gru, inputs)) for _ in range(REPEATS + 1)]
        del found[0]  # compiles
        times.append((float(length), statistics.median(ours for ours, _ in found)))
        ratios.append((float(length), statistics.median(theirs / ours for ours, theirs in found)))
    faster = dict(ratios)[TIMED[-1]]
    return Outcome(faster > 1, REPEATS * BATCH * len(TIMED), time.perf_counter() - began, faster, ratios, times)


def selective(size: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Symbols 1 to 8 at 4 of T places, noise (0) at the others, then "say" (9) 4 times: (T + 4, B, 10), and (4, B).

    Gu and Dao 2023, arXiv:2312.00752, section 3.1, have 16 of them among 4,096.

    >>> inputs, wanted = selective(3, 20, torch.Generator().manual_seed(0))
    >>> inputs.shape, wanted[:, 0].tolist() == [k for k in inputs[:20, 0].argmax(-1).tolist() if k]
    (torch.Size([24, 3, 10]), True)
    """
    places = torch.rand(length, size, generator=generator).topk(SHOWN, dim=0).indices.sort(0).values
    wanted = 1 + torch.randint(SYMBOLS, (SHOWN, size), generator=generator)
    seen = torch.zeros(length, size, dtype=torch.long).scatter_(0, places, wanted)
    say = torch.full((SHOWN, size), SYMBOLS + 1)
    return F.one_hot(torch.cat([seen, say]), SYMBOLS + 2).float(), wanted


def selections(layers: int, seed: int, limit: int | None = None) -> Outcome:
    model = network(seed, "mingru", SYMBOLS + 2, UNITS, SYMBOLS + 1, layers=layers, skip="residual")
    inputs, wanted = selective(HELD_OUT, LENGTH, generator("held out"))

    def loss(step: int) -> Tensor:
        some, right = selective(BATCH, LENGTH, generator(seed, "selective", step))
        return F.cross_entropy(model(some)[-SHOWN:].flatten(0, 1), right.flatten())

    def right() -> tuple[bool, float]:
        share = float((model(inputs)[-SHOWN:].argmax(-1) == wanted).float().mean())
        return share > 0.95, share

    return learn(model, loss, right, batch=BATCH, limit=limit or SEQUENCES, every=100, learning_rate=0.003)


EXPERIMENTS = [
    Experiment(
        name="parallel-training",
        paper=PAPER,
        about=(
            f"How long outputs and gradients of a layer of {UNITS} units take over the length of the sequences, "
            f"{BATCH} at once, on one thread; in turn with a GRU taken step by step in PyTorch. Solved: faster than "
            f"that at T = {TIMED[-1]}. The paper's factor is of a GPU."
        ),
        score=f"how many times as fast at T = {TIMED[-1]}",
        conditions=[
            Condition("minGRU, all steps at once", "175 times as fast", partial(timed, "mingru", "scan"), trials=3),
            Condition("minGRU, compiled loop", "", partial(timed, "mingru", "compiled"), trials=3),
            Condition("minGRU, step by step", "", partial(timed, "mingru", "eager"), trials=3),
            Condition("GRU, compiled loop", "", partial(timed, "gru", "compiled"), trials=3),
        ],
        draw=("length T", "milliseconds"),
    ),
    Experiment(
        name="selective-copying",
        paper=PAPER,
        about=(
            f"Selective copying: {SHOWN} symbols among {LENGTH} steps are to be said in their order (usual: 16 "
            f"among 4,096). Solved: more than 95% of them right in {HELD_OUT} new sequences. Layers of minGRU, {UNITS} "
            f"units each, residual; Adam on batches of {BATCH}, for at most {SEQUENCES:,} sequences."
        ),
        score="share right",
        conditions=[
            Condition(f"{layers} layer{'s' * (layers > 1)}", "", partial(selections, layers), trials=3)
            for layers in (1, 2, 3)
        ],
    ),
]
