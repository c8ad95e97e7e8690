"""Pascanu, Mikolov and Bengio 2013, On the difficulty of training recurrent neural networks, section 4.1.1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.cells import Cell
from carousel.nn import Recurrent
from carousel.reading_list.experiment import Condition, Experiment, Outcome, learn
from carousel.training.seeding import derived_seed, generator

PAPER = "Pascanu, Mikolov and Bengio 2013, ICML, arXiv:1211.5063v2, section 4.1.1"
UNITS, BATCH, ALPHA, RATE, UPDATES = 50, 20, 4.0, 0.03, 15_000
BOUND = 1e-20  # of ‖∂E/∂h_t‖², below which there is no gradient to keep
LENGTHS, ANY, FARTHER = (50, 75, 100, 150, 200), (50, 200), (50, 100, 150, 200, 250, 500, 1000, 2000, 3000, 5000)
SCREENED, JUDGED = 1000, 10_000  # sequences: every 500 updates, and once these are right


def temporal_order(length: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Symbols A, B, c, d, e, f as one-hot (T, B, 6), and which of AA, BA, AB, BB was in them, 0 to 3.

    All are drawn from c to f but for an A or B at a place in [T/10, 2T/10) and another in [5T/10, 6T/10), as in the
    authors' program.

    >>> inputs, _ = temporal_order(50, 3, torch.Generator().manual_seed(0))
    >>> (inputs[..., :2].sum(-1) == 1).sum(0)
    tensor([2, 2, 2])
    """
    everyone, span = torch.arange(size), (size,)
    symbols = 2 + torch.randint(4, (length, size), generator=generator)
    first, second = (torch.randint(2, span, generator=generator) for _ in range(2))
    for place, kind in ((length // 10, first), (length // 2, second)):
        symbols[place + torch.randint(length // 10, span, generator=generator), everyone] = kind
    return F.one_hot(symbols, 6).float(), first + 2 * second


class Units(Cell):
    """Tanh or logistic units that get their input's product ready-made, so that autograd has ∂E/∂a_t.

    h_t = φ(a_t + U h_{t-1}),       a_t = W x_t + b
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)

    def __init__(self, hidden_size: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__(hidden_size, hidden_size)
        self.activation, self.U = activation, nn.Parameter(torch.empty(hidden_size, hidden_size))

    def step(self, x: Tensor, state: State) -> State:
        return self.State(self.activation(x + F.linear(state.h, self.U)))

    def recurrent_weights(self) -> Iterator[Tensor]:
        yield self.U


class Network(nn.Module):
    """The paper's: 50 units and a softmax over the four orders at the last step.

    Args:
        initialisation: "sigmoid", logistic units with weights of standard deviation 0.01; "basic tanh", of 0.1; or
            "smart tanh", of 0.01, but 15 recurrent weights into each unit, scaled to a spectral radius of 0.95.
    """

    def __init__(self, initialisation: str) -> None:
        super().__init__()
        units = Units(UNITS, torch.sigmoid if initialisation == "sigmoid" else torch.tanh)
        self.enter, self.recurrent, self.readout = nn.Linear(6, UNITS), Recurrent([units]), nn.Linear(UNITS, 4)
        self.U = units.U
        for weight in (self.enter.weight, self.U, self.readout.weight):
            nn.init.normal_(weight, std=0.1 if initialisation == "basic tanh" else 0.01)
        for linear in (self.enter, self.readout):
            nn.init.zeros_(linear.bias)
        if initialisation == "smart tanh":
            with torch.no_grad():
                self.U.mul_(torch.rand(UNITS, UNITS).argsort(1) < 15)
                self.U.mul_(0.95 / torch.linalg.eigvals(self.U).abs().max())

    def forward(self, inputs: Tensor) -> Tensor:
        self.entered = self.enter(inputs)
        self.last = self.recurrent(self.entered)[0][-1]
        said: Tensor = self.readout(self.last)
        return said

    def omega(self) -> Tensor:
        """The authors' Ω, for all steps of a batch at once, after the loss's backward pass.

            δ_t = ∂E/∂h_t = Uᵀ ∂E/∂a_{t+1},     Ω = mean of (‖Uᵀ ∂E/∂a_t‖² / ‖δ_t‖² − 1)²  where  ‖δ_t‖² ≥ 10⁻²⁰

        Their program holds φ' fixed, so that one product with U is all there is to differentiate; else it is
        `omega(network, squared=True, per_step=True)`, which takes any cell and is many times slower.
        """
        assert self.entered.grad is not None and self.last.grad is not None
        sent = (self.entered.grad @ self.U).square().sum(-1)  # (T, B)
        received = torch.cat([sent[1:].detach(), self.last.grad.square().sum(-1)[None]])
        alive = received >= BOUND
        strayed = alive * (sent / received.clamp(min=BOUND) - 1).square()
        penalty: Tensor = strayed.sum() / alive.sum().clamp(min=1)
        return penalty

    def retain(self) -> None:
        """Keep what `omega` reads."""
        self.entered.retain_grad()
        self.last.retain_grad()


def made(initialisation: str, seed: int) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "weights"))
        return Network(initialisation)


@torch.no_grad()
def share_wrong(model: Network, length: int, count: int) -> float:
    """Of so many sequences that are the same for every network."""
    wrong, at_once = 0, max(1, min(count, 200_000 // length))
    for k in range(0, count, at_once):
        inputs, orders = temporal_order(length, min(at_once, count - k), generator("held out", length, k))
        wrong += int((model(inputs).argmax(-1) != orders).sum())
    return wrong / count


def train(
    model: Network,
    method: str,
    drawn: Callable[[int], tuple[Tensor, Tensor]],
    test: Callable[[], tuple[bool, float]],
    limit: int | None,
) -> Outcome:
    """With "MSGD", "MSGD-C" or "MSGD-CR": plain, clipped, or clipped with Ω."""

    def loss(step: int) -> Tensor:
        inputs, orders = drawn(step)
        error = F.cross_entropy(model(inputs), orders)
        model.retain()
        return error

    return learn(
        model,
        loss,
        test,
        batch=BATCH,
        limit=limit or BATCH * UPDATES,
        every=500,
        learning_rate=RATE,
        decay=True,
        clip=math.inf if method == "MSGD" else 1.0,
        optimiser=torch.optim.SGD,
        penalty=(lambda: ALPHA * model.omega()) if method == "MSGD-CR" else None,
    )


def one_length(initialisation: str, method: str, length: int, seed: int, limit: int | None = None) -> Outcome:
    model = made(initialisation, seed)

    def test() -> tuple[bool, float]:
        wrong = share_wrong(model, length, SCREENED)
        if wrong < 0.01:
            wrong = share_wrong(model, length, JUDGED)
        return wrong < 0.01, wrong

    return train(model, method, lambda k: temporal_order(length, BATCH, generator(seed, "order", k)), test, limit)


def one_model(initialisation: str, method: str, seed: int, limit: int | None = None) -> Outcome:
    """Trained on lengths of 50 to 200, and then asked for longer ones."""
    model, (least, most) = made(initialisation, seed), ANY

    def drawn(step: int) -> tuple[Tensor, Tensor]:
        source = generator(seed, "order", step)
        return temporal_order(int(torch.randint(least, most + 1, (1,), generator=source)), BATCH, source)

    def test() -> tuple[bool, float]:
        wrong = max(share_wrong(model, length, SCREENED) for length in LENGTHS)
        return wrong == 0, wrong

    outcome = train(model, method, drawn, test, limit)
    return replace(outcome, drawn=[(float(length), share_wrong(model, length, JUDGED)) for length in FARTHER])


METHODS = ("MSGD", "MSGD-C", "MSGD-CR")
HOW = (
    f"{UNITS} units, plain descent on batches of {BATCH}, clipped at a norm of 1, Ω weighed with {ALPHA:g}, as in the "
    f"paper; but a rate that falls from {RATE:g} to 0 rather than 0.01, and at most {UPDATES:,} updates rather than 5 "
    "million. C: clipped; R: with Ω."
)
EXPERIMENTS = [
    Experiment(
        name=f"order-{initialisation.replace(' ', '-')}",
        paper=f"{PAPER}, figure 7",
        about=(
            f"The temporal order problem over its length, initialisation “{initialisation}”. Solved: fewer than 1% "
            f"of {JUDGED:,} new sequences named wrongly. {HOW}"
        ),
        score="share wrong",
        conditions=[
            Condition(
                f"{method}, T = {length}",
                "",
                partial(one_length, initialisation, method, length),
                trials=3,
                point=(method, length),
            )
            for method in METHODS
            for length in LENGTHS
        ],
        draw=("length T", "share of trials solved"),
    )
    for initialisation in ("sigmoid", "basic tanh", "smart tanh")
] + [
    Experiment(
        name="order-any-length",
        paper=PAPER,
        about=(
            "The temporal order problem with one model for lengths of 50 to 200, each batch of one drawn at random, "
            f"and how it does on up to {FARTHER[-1]:,}. Solved: none of {SCREENED:,} new sequences wrong at 50, 75, "
            f"100, 150 and 200; the figure is of {JUDGED:,} others at each length. {HOW}"
        ),
        score="share wrong",
        conditions=[
            Condition(
                "MSGD-CR", "5 of 5; none wrong up to 5,000", partial(one_model, "basic tanh", "MSGD-CR"), trials=5
            )
        ],
        draw=("length T", "share wrong"),
    ),
]
