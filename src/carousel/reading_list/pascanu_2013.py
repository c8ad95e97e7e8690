"""Pascanu, Mikolov and Bengio 2013, On the difficulty of training recurrent neural networks, section 4.1.1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
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
LENGTHS, FARTHER = (50, 75, 100, 150, 200), (50, 100, 150, 200, 250, 500, 1000, 2000, 3000, 5000)
GROWING, SHORT, LONG, SURE, GROWTH = 12_000, 40, 250, 0.02, 0.15  # one model: updates, and how lengths grow
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


class Growing:
    """Lengths from a quarter of `longest` on, which grows from 40 to 250 with every batch while few are named wrongly.

    >>> lengths = Growing()
    >>> for _ in range(2000):
    ...     lengths.told(0.0)
    >>> lengths.longest
    250
    """

    def __init__(self) -> None:
        self.longest, self.wrong = float(SHORT), 0.75  # the share of late

    def draw(self, generator: torch.Generator) -> int:
        most = int(self.longest)
        return int(torch.randint(most // 4, most + 1, (1,), generator=generator))

    def told(self, wrong: float) -> None:
        self.wrong += 0.02 * (wrong - self.wrong)
        if self.wrong < SURE:
            self.longest = min(self.longest + GROWTH, LONG)

    def slower(self) -> float:
        """The longer the sequences, the steeper the cliffs."""
        return (SHORT / self.longest) ** 3


def train(
    model: Network,
    method: str,
    drawn: Callable[[int], tuple[Tensor, Tensor]],
    test: Callable[[], tuple[bool, float]],
    limit: int,
    *,
    every: int = 500,
    lengths: Growing | None = None,
) -> Outcome:
    """With "MSGD", "MSGD-C" or "MSGD-CR": plain, clipped, or clipped with Ω.

    Args:
        lengths: hear what share of each batch was wrong, and say how slowly to go on.
    """

    def loss(step: int) -> Tensor:
        inputs, orders = drawn(step)
        said = model(inputs)
        model.retain()
        if lengths is not None:
            lengths.told(float((said.argmax(-1) != orders).float().mean()))
        return F.cross_entropy(said, orders)

    return learn(
        model,
        loss,
        test,
        batch=BATCH,
        limit=limit,
        every=every,
        learning_rate=RATE,
        decay=True,
        slower=(lambda: 1.0) if lengths is None else lengths.slower,
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

    def drawn(step: int) -> tuple[Tensor, Tensor]:
        return temporal_order(length, BATCH, generator(seed, "order", step))

    return train(model, method, drawn, test, limit or BATCH * UPDATES)


def one_model(initialisation: str, method: str, seed: int, limit: int | None = None) -> Outcome:
    """Trained on lengths that come to be 50 to 200, and then asked for longer ones."""
    model, lengths = made(initialisation, seed), Growing()

    def drawn(step: int) -> tuple[Tensor, Tensor]:
        source = generator(seed, "order", step)
        return temporal_order(lengths.draw(source), BATCH, source)

    def test() -> tuple[bool, float]:
        wrong = max(share_wrong(model, length, SCREENED) for length in LENGTHS)
        return wrong == 0, wrong

    outcome = train(model, method, drawn, test, limit or BATCH * GROWING, every=1000, lengths=lengths)
    far = [
        (float(length), share_wrong(model, length, JUDGED if length <= LENGTHS[-1] else SCREENED)) for length in FARTHER
    ]
    return replace(outcome, solved=all(wrong < 0.01 for length, wrong in far if length <= LENGTHS[-1]), drawn=far)


def by_length(outcomes: Mapping[str, Mapping[int, Outcome]]) -> str:
    """How many trials of each condition named fewer than 1% wrongly, at each length."""
    rows = [["fewer than 1% wrong at T =", *map(str, FARTHER)], ["---"] * (1 + len(FARTHER))]
    for name, by_seed in outcomes.items():
        if ends := [outcome.drawn for outcome in by_seed.values()]:
            solved = (sum(wrong < 0.01 for _, wrong in at) for at in zip(*ends, strict=True))
            rows.append([name, *(f"{count} of {len(ends)}" for count in solved)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


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
            "The temporal order problem with one model for lengths of 50 to 200, and how it does on up to "
            f"{FARTHER[-1]:,}, to which the paper's holds. Solved: fewer than 1% of {JUDGED:,} new sequences named "
            f"wrongly at each of 50, 100, 150 and 200. Score: the worst share at these and 75, of {SCREENED:,} in "
            "training's last test; beyond 200 the figure is of as many. The paper draws the length of a batch from 50 "
            f"to 200. Here it is from L/4 to L, and L grows from {SHORT} to {LONG}, by {GROWTH} with every batch while "
            f"of late fewer than {SURE:.0%} are wrong. {UNITS} units, plain descent on batches of {BATCH}, clipped at "
            f"a norm of 1, Ω weighed with {ALPHA:g}, as in the paper; rate: {RATE:g} ({SHORT} / L)³, and falls to 0 "
            f"along a line besides, rather than 0.01, and there are {GROWING:,} updates at most rather than 5 million. "
            "C: clipped; R: with Ω."
        ),
        score="share wrong",
        conditions=[
            Condition(f"{initialisation}, {method}", "", partial(one_model, initialisation, method), trials=3)
            for initialisation in ("smart tanh", "basic tanh", "sigmoid")
            for method in METHODS
        ],
        draw=("length T", "share wrong"),
        log_x=True,
        remarks=by_length,
    ),
]
