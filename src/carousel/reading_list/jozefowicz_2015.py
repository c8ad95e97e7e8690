"""Jozefowicz, Zaremba and Sutskever 2015, An empirical exploration of recurrent network architectures, ICML."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.reading_list.experiment import Condition, Experiment, Outcome, learn, network
from carousel.training.seeding import derived_seed

PAPER = "Jozefowicz, Zaremba and Sutskever 2015, ICML"
SYMBOLS = string.ascii_lowercase + string.digits + "+-=.<>/ "
INDEX = {symbol: k for k, symbol in enumerate(SYMBOLS)}
BATCH, HELD_OUT, LONGEST = 32, 1000, 60
CLOSING = re.compile("</([a-z]*>?)")


class Text(NamedTuple):
    """A batch of texts: symbols, the ones that follow them, and which of these are asked for, (T, B) each."""

    symbols: Tensor
    following: Tensor
    asked: Tensor


def sum_of_two(drawn: random.Random, digits: int) -> tuple[str, int]:
    """Two numbers with letters between their digits, and their sum or difference; asked for from the "=" on.

    >>> sum_of_two(random.Random(0), 2)
    ('5j-5dd1=-46.', 8)
    """
    a, b = (drawn.choice((-1, 1)) * drawn.randrange(10 ** drawn.randint(1, digits)) for _ in "ab")
    sign = drawn.choice("+-")
    said = f"{a}{sign}{b}"
    between = ["".join(drawn.choices(string.ascii_lowercase, k=drawn.randrange(3))) for _ in said]
    question = "".join(one + noise for one, noise in zip(said, between, strict=True)) + "="
    return f"{question}{a + b if sign == '+' else a - b}.", len(question)


def arithmetic(digits: int, size: int, drawn: random.Random) -> Text:
    """As in the paper, with fewer digits: 3e36d9-h1h39f94eeh43keg3c= -13991064 is an example of its 8."""
    texts = [sum_of_two(drawn, digits) for _ in range(size)]
    return batch([text for text, _ in texts], [range(start, len(text)) for text, start in texts])


def document(drawn: random.Random) -> str:
    """Tags: with probability 1/2 the last one is closed, or all is over where none is open; else a new one is opened.

    >>> document(random.Random(2))
    '<cj></cj><gfa><quw><olg></olg></quw></gfa>'
    """
    text, opened = "", list[str]()
    for k in range(1000):
        if k and (k >= 50 or drawn.random() < 0.5):
            if not opened:
                break
            text += f"</{opened.pop()}>"
        else:
            opened.append("".join(drawn.choices(string.ascii_lowercase, k=drawn.randint(2, 4))))
            text += f"<{opened[-1]}>"
    return text


def xml(size: int, drawn: random.Random) -> Text:
    """Documents, cut after `LONGEST` symbols; what is asked for is the names of the tags that are closed."""
    texts = [document(drawn)[:LONGEST] for _ in range(size)]
    return batch(texts, [[k for tag in CLOSING.finditer(text) for k in range(*tag.span(1))] for text in texts])


def batch(texts: Sequence[str], asked: Sequence[Sequence[int]]) -> Text:
    """Texts padded by spaces at their ends."""
    longest = max(map(len, texts))
    symbols = torch.tensor([[INDEX[symbol] for symbol in text.ljust(longest)] for text in texts]).t()
    mask = torch.zeros(symbols.shape, dtype=torch.bool)
    for b, places in enumerate(asked):
        mask[list(places), b] = True
    return Text(symbols[:-1], symbols[1:], mask[1:])


def reading(
    make: Callable[[int, random.Random], Text],
    wanted: float,
    sequences: int,
    cell: str,
    hidden: int,
    options: dict[str, float],
    seed: int,
    limit: int | None = None,
) -> Outcome:
    model = network(seed, cell, len(SYMBOLS), hidden, len(SYMBOLS), **options)
    held_out = make(HELD_OUT, random.Random("held out"))

    def said(some: Text) -> Tensor:
        outputs: Tensor = model(F.one_hot(some.symbols, len(SYMBOLS)).float())[some.asked]
        return outputs

    def loss(step: int) -> Tensor:
        some = make(BATCH, random.Random(derived_seed(seed, "text", step)))
        return F.cross_entropy(said(some), some.following[some.asked])

    def right() -> tuple[bool, float]:
        share = float((said(held_out).argmax(-1) == held_out.following[held_out.asked]).float().mean())
        return share >= wanted, share

    limit = limit or sequences
    every = max(1, limit // BATCH // 20)
    outcome = learn(model, loss, right, batch=BATCH, limit=limit, every=every, learning_rate=0.01, decay=True)
    return replace(outcome, drawn=outcome.curve)


# Each with about as many parameters: the cell, its H, and its options
NETWORKS: dict[str, tuple[str, int, dict[str, float]]] = {
    "tanh": ("elman", 220, {}),
    "LSTM, forget bias 0": ("lstm", 96, {"forget_bias": 0.0}),
    "LSTM, forget bias 1": ("lstm", 96, {"forget_bias": 1.0}),
    "GRU": ("gru", 114, {}),
    "MUT1": ("mut1", 122, {}),
    "MUT2": ("mut2", 116, {}),
    "MUT3": ("mut3", 114, {}),
}


def with_each(make: Callable[[int, random.Random], Text], wanted: float, sequences: int) -> list[Condition]:
    return [
        Condition(name, SAID.get(name, ""), partial(reading, make, wanted, sequences, *network), trials=2)
        for name, network in NETWORKS.items()
    ]


SAID = {"LSTM, forget bias 0": "worse than GRU", "LSTM, forget bias 1": "closes the gap to GRU"}
HOW = (
    "About 60,000 parameters each, the same learning rate (0.01, falling along a line) and {sequences:,} sequences "
    "for all, 32 a step; the paper searches the settings of each. Trained on what is asked alone, each symbol given "
    "the right ones before it. The figures of the paper could not be checked, only what it says of the LSTM's bias."
)
EXPERIMENTS = [
    Experiment(
        name="arithmetic",
        paper=PAPER,
        about=(
            "The sum or difference of two numbers of one digit, read symbol by symbol, with 0 to 2 letters after each; "
            f"the paper's have up to 8 digits. Score: the share of right symbols in the answers to {HELD_OUT:,} new "
            f"questions. Solved: 0.9. {HOW.format(sequences=64_000)}"
        ),
        score="share right",
        conditions=with_each(partial(arithmetic, 1), 0.9, 64_000),
        draw=("sequences", "share of right symbols"),
    ),
    Experiment(
        name="xml",
        paper=PAPER,
        about=(
            "Random tags of 2 to 4 letters (the paper: to 10), opened and closed as in XML, the first 60 symbols of "
            "each document. Score: the share of right symbols in the names of tags that are closed, in "
            f"{HELD_OUT:,} new documents; the paper's is of all symbols. Solved: 0.9. {HOW.format(sequences=32_000)}"
        ),
        score="share right",
        conditions=with_each(xml, 0.9, 32_000),
        draw=("sequences", "share of right symbols"),
    ),
]
