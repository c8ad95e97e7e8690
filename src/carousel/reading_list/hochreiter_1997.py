"""Hochreiter and Schmidhuber 1997, Long short-term memory, Neural Computation 9(8), 1735-1780: experiments 1 to 6."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from carousel.reading_list.experiment import Condition, Experiment, Network, Outcome, hold, learn, network
from carousel.reading_list.reber import coins, one_hot, predicted, reber
from carousel.tasks.adding import adding_1997
from carousel.training.seeding import generator

PAPER = "Hochreiter and Schmidhuber 1997, Neural Computation 9(8)"
ONLINE = "Adam on batches; the paper trained after every sequence, by plain descent."
STRINGS, HELD_OUT = 256, 2560
AT_ONCE = 2**27  # numbers that a network reads


class Batch(NamedTuple):
    """Sequences (T, B, I), numbers or one-hot booleans, what is right at their last steps, and where those are."""

    inputs: Tensor
    targets: Tensor  # (B,) or (B, K)
    ends: Tensor  # (B,)


Make = Callable[[int, torch.Generator], Batch]


# Experiment 1


class Strings(NamedTuple):
    """Embedded Reber strings but for their last symbols, which nothing follows: (T, B, 7) each, (T, B)."""

    inputs: Tensor
    legal: Tensor
    following: Tensor  # the symbol that did follow, (T, B); -100 in the padding

    def some(self, rows: Tensor) -> Strings:
        return Strings(*(part[:, rows] for part in self))


def reber_strings(seed: int) -> tuple[Strings, Strings]:
    """256 strings to train on and 256 to test with, none of which is among the first."""
    drawn, known = coins(generator("reber", seed, "strings")), set[str]()
    kept: list[tuple[Tensor, Tensor]] = []
    while len(kept) < 2 * STRINGS:
        string = list(reber(drawn))
        text = "".join(symbol for symbol, _ in string)
        if len(kept) < STRINGS:
            known.add(text)
        if len(kept) < STRINGS or text not in known:
            kept.append(one_hot(string))
    return _strings(kept[:STRINGS]), _strings(kept[STRINGS:])


def _strings(strings: Sequence[tuple[Tensor, Tensor]]) -> Strings:
    inputs, legal = (pad_sequence([string[k][:-1] for string in strings]) for k in (0, 1))
    following = pad_sequence([inputs[1:].argmax(-1) for inputs, _ in strings], padding_value=-100)
    return Strings(inputs, legal, following)


def embedded_reber(seed: int, limit: int | None = None) -> Outcome:
    (train, test), batch, drawn = reber_strings(seed), 4, generator("reber", seed, "order")
    model = network(seed, "lstm", 7, 16, 7, forget_bias=3.0)

    def loss(step: int) -> Tensor:
        strings = train.some(torch.randint(STRINGS, (batch,), generator=drawn))
        return F.cross_entropy(model(strings.inputs).flatten(0, 1), strings.following.flatten())

    def right() -> tuple[bool, float]:
        found = [(predicted(model(s.inputs), s.legal) | (s.following < 0)).all(0) for s in (train, test)]
        return all(bool(strings.all()) for strings in found), 1 - float(found[1].float().mean())

    return learn(model, loss, right, batch=batch, limit=limit or 40_000, every=25, learning_rate=0.03)


# Experiment 2


def noise_free(length: int, kind: int) -> Tensor:
    """Task 2a: (x, a_1, ..., a_{p-1}, x), or with y for x, as numbers (p + 1, 1).

    >>> noise_free(4, 0).T.tolist(), noise_free(4, 1).T.tolist()
    ([[3, 0, 1, 2, 3]], [[4, 0, 1, 2, 4]])
    """
    ends = torch.tensor([length - 1 + kind])
    return torch.cat([ends, torch.arange(length - 1), ends])[:, None]


def long_lag(length: int, seed: int, limit: int | None = None) -> Outcome:
    """Both sequences in each batch; the memory joins once the rest is learned, as in the paper."""
    model = network(seed, "lstm-noaf", length + 1, 2, length + 1, shortcut=True)
    longer = math.log10(length / 100)
    hold(model, input_bias=-3.0 - 4 * longer, forget_bias=6.0 + 3 * longer)
    with torch.no_grad():  # the more symbols come between, the less each may add
        for weight in (one for one in model.recurrent.parameters() if one.ndim == 2):
            weight.mul_(100 / length)
    both = torch.cat([noise_free(length, 0), noise_free(length, 1)], dim=1)
    symbols = torch.eye(length + 1)
    inputs, none = symbols[both[:-1]], torch.zeros(length, 2, 2)

    def read(outputs: Tensor) -> Tensor:
        """As `model.read`, but one column of the weights for each symbol, not their product with its one-hot vector."""
        weight, bias = model.readout.weight, model.readout.bias
        return F.linear(outputs, weight[:, :2], bias) + F.embedding(both[:-1], weight[:, 2:].t())

    def phase(said: Callable[[], Tensor], steps: int, rate: float, limit: int) -> Outcome:
        def loss(step: int) -> Tensor:
            return F.cross_entropy(said().flatten(0, 1), both[1:].flatten(), reduction="sum") / 2

        def right() -> tuple[bool, float]:
            error = float((said().softmax(-1) - symbols[both[1:]])[:steps].abs().max())
            return error < 0.25, error

        return learn(model, loss, right, batch=2, limit=limit, every=25, learning_rate=rate)

    most = limit or 20_000
    alone = phase(lambda: read(none), length - 1, 0.1, most)
    with_memory = phase(lambda: read(model.recurrent(inputs)[0]), length, 0.02, max(2, most - alone.sequences))
    later = [(alone.sequences + at, error) for at, error in with_memory.curve]
    return replace(
        with_memory,
        sequences=alone.sequences + with_memory.sequences,
        seconds=alone.seconds + with_memory.seconds,
        curve=alone.curve + later,
    )


def distracted(length: int, symbols: int, size: int, generator: torch.Generator) -> Batch:
    """Task 2c: b, then x or y, at least q distractors, e: the target is the second symbol, 0 for x and 1 for y."""
    more = torch.empty(size).geometric_(0.1, generator=generator).long() - 1
    ends = length + more + 2  # of b, x or y, the distractors, e
    numbers = torch.randint(symbols, (int(ends.max()) + 1, size), generator=generator)
    second = torch.randint(2, (size,), generator=generator)
    numbers[0], numbers[1] = symbols + 1, symbols + 2 + second
    numbers[ends, torch.arange(size)] = symbols
    one_of_many = torch.zeros(*numbers.shape, symbols + 4, dtype=torch.bool)  # p = 1000 is too much as numbers
    return Batch(one_of_many.scatter_(2, numbers[..., None], True), second, ends)


# Experiment 3


def two_sequence(informative: int, size: int, generator: torch.Generator, length: int = 100) -> Batch:
    """Task 3c: ±1 for the first N steps and then noise of variance 0.2; the target is 0.2 for +1 and 0.8 for -1.

    >>> inputs, targets, _ = two_sequence(3, 9, torch.Generator().manual_seed(0))
    >>> torch.equal(inputs[2, :, 0] > 0, targets < 0.5)
    True
    """
    ends = torch.randint(length, length + length // 10 + 1, (size,), generator=generator) - 1
    inputs = 0.2**0.5 * torch.randn(int(ends.max()) + 1, size, generator=generator)
    kind = torch.randint(2, (size,), generator=generator)
    inputs[:informative] = 1 - 2.0 * kind
    return Batch(inputs[..., None], 0.2 + 0.6 * kind, ends)


# Experiments 4 and 5


def additions(length: int, size: int, generator: torch.Generator) -> Batch:
    inputs, targets, lengths = adding_1997(size, length, generator)
    assert lengths is not None
    return Batch(inputs, targets, lengths - 1)


def multiplications(length: int, size: int, generator: torch.Generator) -> Batch:
    """As the adding problem, with numbers in [0, 1] and their product as the target; a marked first number is 1."""
    inputs, _, ends = additions(length, size, generator)
    numbers, marks = (1 + inputs[..., 0]) / 2, inputs[..., 1]
    numbers[0] = torch.where(marks[0] == 1, 1.0, numbers[0])
    product = torch.where(marks == 1, numbers, 1.0).prod(0)
    return Batch(torch.stack([numbers, marks], dim=-1), product, ends)


# Experiment 6


def temporal_order(places: tuple[int, ...], size: int, generator: torch.Generator) -> Batch:
    """E, then symbols a to d but for X or Y at one of eleven steps from each place on, then B: 100 to 110 in all.

    The class is the number whose binary digits are the X (0) and Y (1), in order; symbols are a, b, c, d, X, Y, E, B.
    """
    ends = torch.randint(100, 111, (size,), generator=generator) - 1
    numbers = torch.randint(4, (110, size), generator=generator)
    numbers[0], targets, everyone = 6, torch.zeros(size, dtype=torch.long), torch.arange(size)
    for place in places:
        kind = torch.randint(2, (size,), generator=generator)
        numbers[place + torch.randint(11, (size,), generator=generator) - 1, everyone] = 4 + kind
        targets = 2 * targets + kind
    numbers[ends, everyone] = 7
    return Batch(F.one_hot(numbers, 8).float(), targets, ends)


# What is asked for at the end of a sequence: experiments 2c to 6


def at_the_end(
    make: Callable[[int, torch.Generator], Batch],
    model: Network,
    criterion: Callable[[Tensor, Batch], tuple[bool, float]],
    seed: int,
    limit: int,
    *,
    batch: int = 16,
    learning_rate: float = 0.02,
    train: Callable[[Tensor, Tensor], Tensor] = F.mse_loss,
) -> Outcome:
    """Train on new sequences at every step, and hold what is said of 2,560 others to the criterion."""
    test = make(HELD_OUT, generator("held out"))

    def said(some: Batch) -> Tensor:
        at_once = max(1, AT_ONCE // some.inputs[:, 0].numel())
        parts = zip(torch.split(some.inputs, at_once, dim=1), torch.split(some.ends, at_once), strict=True)
        outputs = torch.cat([model(inputs.float(), ends) for inputs, ends in parts])
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def loss(step: int) -> Tensor:
        some = make(batch, generator(seed, "batch", step))
        return train(said(some), some.targets)

    def right() -> tuple[bool, float]:
        return criterion(said(test), test)

    return learn(model, loss, right, batch=batch, limit=limit, every=200, learning_rate=learning_rate)


def squared_error(said: Tensor, batch: Batch) -> tuple[bool, float]:
    """Below 0.001 in the mean."""
    error = float((said - batch.targets).square().mean())
    return error < 1e-3, error


def off_the_mean(said: Tensor, batch: Batch) -> tuple[bool, float]:
    """Task 3c: within 0.1 of the target without noise for every sequence, and within 0.015 in the mean."""
    error = (said - batch.targets).abs()
    return bool((error < 0.1).all() & (error.mean() < 0.015)), float(error.mean())


def wrong_classes(most: int, within: float, said: Tensor, batch: Batch) -> tuple[bool, float]:
    """All outputs, as probabilities, within so much of what is right, but for at most so many of the sequences."""
    error = (said.softmax(-1) - F.one_hot(batch.targets, said.shape[1])).abs().amax(-1)
    return int((error > within).sum()) <= most, float((error > within).float().mean())


def distraction(length: int, symbols: int, seed: int, limit: int | None = None) -> Outcome:
    model = network(seed, "lstm-noaf", symbols + 4, 2, 2)
    hold(model, input_bias=-3.0, forget_bias=3 * math.log10(length))
    make, criterion = partial(distracted, length, symbols), partial(wrong_classes, 0, 0.2)
    return at_the_end(make, model, criterion, seed, limit or 100_000, batch=8, train=F.cross_entropy)


def noisy_targets(said: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(said, targets + 0.1**0.5 * torch.randn_like(targets))


def two_sequences(informative: int, seed: int, limit: int | None = None) -> Outcome:
    model, make = hold(network(seed, "lstm", 1, 8, 1), -2.0, 5.0), partial(two_sequence, informative)
    return at_the_end(make, model, off_the_mean, seed, limit or 400_000, train=noisy_targets, learning_rate=0.005)


def arithmetic(
    make: Callable[[int, int, torch.Generator], Batch], length: int, seed: int, limit: int | None = None
) -> Outcome:
    longer = math.log10(length / 100)  # the more steps add to a memory, the less each may, or it saturates
    model = hold(network(seed, "lstm", 2, 8, 1), -2.0 - 5 * longer, 5.0 + 2.5 * longer)
    return at_the_end(partial(make, length), model, squared_error, seed, limit or 400_000)


def order(places: tuple[int, ...], seed: int, limit: int | None = None) -> Outcome:
    model = hold(network(seed, "lstm", 8, 8, 2 ** len(places)), -1.0, 4.0)
    make, criterion = partial(temporal_order, places), partial(wrong_classes, 3, 0.3)
    return at_the_end(make, model, criterion, seed, limit or 400_000, train=F.cross_entropy)


EXPERIMENTS = [
    Experiment(
        name="embedded-reber",
        paper=f"{PAPER}, experiment 1, table 1",
        about=(
            "Embedded Reber grammar: 256 strings to train on and 256 others. Solved: in every string of both sets, the "
            f"symbols that may come next have the greatest outputs at every step. {ONLINE} An LSTM with forget gates "
            "and 16 cells; the paper's had none and 4 to 6."
        ),
        score="share of test strings wrong",
        conditions=[Condition("lstm", "97 to 100% of 30, 8,440 to 39,740 sequences", embedded_reber, trials=30)],
    ),
    Experiment(
        name="long-lag",
        paper=f"{PAPER}, experiment 2a, table 2",
        about=(
            "Two sequences, alike but for the first symbol, which is to be said again after p steps. Solved: every "
            "output within 0.25 of what is right, at every step. As in the paper, the output is not squashed, the "
            "readout sees the input, and the memory joins once the error without it is as low as it gets; 2 cells "
            "with forget gates. Adam on both sequences at once; the paper trained on one after the other. The paper "
            "has no p = 1000 here; for it the first weights are a tenth as large and the input gates shut further."
        ),
        score="greatest error",
        conditions=[
            Condition("p = 100", "18 of 18, 5,040 sequences", partial(long_lag, 100)),
            Condition("p = 1000", "not tried", partial(long_lag, 1000)),
        ],
    ),
    Experiment(
        name="distracted-lag",
        paper=f"{PAPER}, experiment 2c, table 3",
        about=(
            "The second symbol is asked for after at least q + 1 others, drawn from p. Solved: both outputs within "
            f"0.2 of what is right for {HELD_OUT:,} new sequences; the paper asked 10,000. {ONLINE}"
        ),
        score="share wrong",
        conditions=[
            Condition("q = p = 100", "31,000 sequences", partial(distraction, 100, 100)),
            Condition("q = p = 1000", "49,000 sequences", partial(distraction, 1000, 1000)),
        ],
    ),
    Experiment(
        name="two-sequence",
        paper=f"{PAPER}, experiment 3c, table 6",
        about=(
            "Which of two beginnings, N steps long, a sequence of noise had, from targets with noise of their own. "
            f"Solved: of {HELD_OUT:,} test sequences (the paper: 256) none off the target without noise by 0.1, and "
            f"by 0.015 in the mean. {ONLINE}"
        ),
        score="mean error",
        conditions=[
            Condition("N = 3", "269,650 sequences", partial(two_sequences, 3)),
            Condition("N = 1", "565,640 sequences", partial(two_sequences, 1)),
        ],
    ),
    Experiment(
        name="adding",
        paper=f"{PAPER}, experiment 4, table 7",
        about=(
            f"The adding problem. Solved: a mean squared error below 0.001 on {HELD_OUT:,} new sequences. The paper's "
            "criterion is stricter (2,000 sequences in a row within 0.04), so that the counts of sequences are not to "
            f"be compared. {ONLINE} 8 cells with forget gates; the longer T, the more the input gates are shut first "
            "(bias -2, -5.5, -7) and the forget gates open (5, 6.7, 7.5)."
        ),
        score="squared error",
        conditions=[
            Condition(f"T = {length}", f"{count:,} sequences (10 trials)", partial(arithmetic, additions, length))
            for length, count in ((100, 74_000), (500, 209_000), (1000, 853_000))
        ],
    ),
    Experiment(
        name="multiplication",
        paper=f"{PAPER}, experiment 5, table 8",
        about=(
            f"The multiplication problem. Solved: a mean squared error below 0.001 on {HELD_OUT:,} new sequences; the "
            f"paper stopped when fewer than 140, or 13, of 2,000 were off by 0.04. {ONLINE} 8 cells with forget gates."
        ),
        score="squared error",
        conditions=[
            Condition("T = 100", "482,000 sequences (140), 1,273,000 (13)", partial(arithmetic, multiplications, 100))
        ],
    ),
    Experiment(
        name="temporal-order",
        paper=f"{PAPER}, experiment 6, table 9",
        about=(
            "Temporal order: in which order two (or three) X or Y came. Solved: at most 3 of "
            f"{HELD_OUT:,} new sequences have an output more than 0.3 off. {ONLINE} 8 cells with forget gates."
        ),
        score="share wrong",
        conditions=[
            Condition("two symbols (6a)", "31,390 sequences (20 trials)", partial(order, (10, 50))),
            Condition("three symbols (6b)", "571,100 sequences (10 trials)", partial(order, (10, 33, 66))),
        ],
    ),
]
