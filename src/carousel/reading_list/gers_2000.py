"""Gers, Schmidhuber and Cummins 2000, Learning to forget: continual prediction with LSTM, Neural Computation 12(10)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.cells import LSTM, LSTM1997, Cell
from carousel.reading_list.experiment import Condition, Experiment, Network, Outcome, Points, learn, network
from carousel.reading_list.reber import SYMBOLS, Symbol, coins, one_hot, predicted, reber
from carousel.training import BPTT, Piece
from carousel.training.seeding import generator

PAPER = "Gers, Schmidhuber and Cummins 2000, Neural Computation 12(10)"
STREAMS, STEPS, PIECE = 10, 10_000, 50
BLOCKS, CELLS = 4, 16


class CutLSTM(LSTM):
    """An `LSTM` with the paper's gradient: an error that leaves a memory cell for what it read of h goes no further."""

    def step(self, x: Tensor, state: LSTM.State) -> LSTM.State:
        return super().step(x, self.State(state.h.detach(), state.c))


class CutLSTM1997(LSTM1997):
    """An `LSTM1997` with the paper's gradient, as `CutLSTM`."""

    def step(self, x: Tensor, state: LSTM1997.State) -> LSTM1997.State:
        return super().step(x, self.State(state.h.detach(), state.c))


def endless(generator: torch.Generator) -> Iterator[Symbol]:
    """Embedded Reber strings one after the other, with nothing to tell where one ends."""
    drawn = coins(generator)
    while True:
        yield from reber(drawn)


def streams(count: int, *seed: int | str) -> Iterator[tuple[Tensor, Tensor]]:
    """`count` streams side by side, piece by piece: inputs and what may follow, (50, B, 7) each."""
    sources = [endless(generator("continual", *seed, k)) for k in range(count)]
    while True:
        pieces = [one_hot(islice(source, PIECE)) for source in sources]
        yield torch.stack([piece[0] for piece in pieces], 1), torch.stack([piece[1] for piece in pieces], 1)


@cache
def test_streams(steps: int) -> list[tuple[Tensor, Tensor]]:
    """The same pieces for every network."""
    return list(islice(streams(STREAMS, "test"), steps // PIECE))


def closing(inputs: Tensor, legal: Tensor) -> Tensor:
    """Where the next symbol is the one to be remembered: the string within has ended, and either T or P is right."""
    E, T, P = (SYMBOLS.index(symbol) for symbol in "ETP")
    return (inputs[..., E] == 1) & ((legal[..., T] == 1) | (legal[..., P] == 1))


def staggered(model: Network) -> Network:
    """The paper's first biases: in block k input and output gates have -k/2, forget gates k/2."""
    biases = torch.arange(1, BLOCKS + 1).repeat_interleave(CELLS // BLOCKS) / 2
    for cell in model.recurrent.cells:
        for name, sign in (("input", -1), ("output", -1), ("forget", 1)):
            gate = getattr(cell, name, None)  # there may be no forget gate
            if gate is not None:
                gate.b.data.copy_(sign * biases)
    return model


def continual(cell: type[Cell], seed: int, limit: int | None = None) -> Outcome:
    model, batch = staggered(network(seed, cell, 7, CELLS, 7)), 16
    source = streams(batch, "train", seed)

    def forward(piece: Piece, state: Any) -> tuple[Tensor, Any]:
        outputs, state = model.recurrent(piece.inputs, state)
        likely = piece.targets / piece.targets.sum(-1, keepdim=True)
        return F.cross_entropy(model.readout(outputs).flatten(0, 1), likely.flatten(0, 1)), state

    bptt = BPTT(forward, model, k1=PIECE)

    def loss(step: int) -> Tensor:
        return bptt(Piece(*next(source)))

    norms: Points = []

    def right() -> tuple[bool, float]:
        state, hits, asked, wrong = None, 0, 0, 0
        norms.clear()
        for k, (inputs, legal) in enumerate(test_streams(STEPS)):
            outputs, state = model.recurrent(inputs, state)
            found, matters = predicted(model.readout(outputs), legal), closing(inputs, legal)
            if k:  # the first piece begins where training was only once
                hits, asked = hits + int((found & matters).sum()), asked + int(matters.sum())
                wrong += int((~found).sum())
            if k % 5 == 4:
                norms.append((float((k + 1) * PIECE), float(state[0].c.norm(dim=1).mean())))
        return wrong == 0, hits / asked

    symbols = batch * PIECE
    outcome = learn(
        model, loss, right, batch=symbols, limit=limit or 1_200_000, every=250, learning_rate=0.02, decay=True
    )
    return replace(outcome, drawn=list(norms))


EXPERIMENTS = [
    Experiment(
        name="continual-reber",
        paper=PAPER,
        about=(
            "Continual embedded Reber grammar: strings one after the other, never a reset. Score: the share of right "
            f"predictions of the symbol before last, the one to be remembered, in {STREAMS} test streams of {STEPS:,} "
            f"symbols, after the first {PIECE}; solved: not one wrong prediction among all of those, of any symbol. "
            f"{CELLS} cells with gates of their own and the first biases of the paper's {BLOCKS} blocks, of 2 cells; "
            f"Adam with a falling rate on 16 streams at once, truncated BPTT over {PIECE} steps, cross-entropy "
            "with the symbols that may follow; the paper trained after every symbol, on one stream until its first "
            "error. Its gradient is cut where an error leaves a memory cell; that, and the whole one."
        ),
        score="share right",
        digits=4,
        sequences="symbols",
        conditions=[
            Condition("forget gates, cut", "solves it", partial(continual, CutLSTM)),
            Condition("no forget gates, cut", "fails", partial(continual, CutLSTM1997)),
            Condition("forget gates, whole", "", partial(continual, LSTM)),
            Condition("no forget gates, whole", "", partial(continual, LSTM1997)),
        ],
        draw=("test symbols", "norm of the state c"),
    )
]
