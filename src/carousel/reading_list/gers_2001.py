"""Gers and Schmidhuber 2001, LSTM recurrent networks learn simple context-free and context-sensitive languages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.reading_list.experiment import Condition, Experiment, Network, Outcome, hold, learn, network
from carousel.training.seeding import generator

PAPER = "Gers and Schmidhuber 2001, IEEE Transactions on Neural Networks 12(6)"
TRAINED, ASKED, NOISE = 10, 1000, 0.3


def counted(letters: int, counts: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Strings S a^n b^n, or S a^n b^n c^n, for each n: inputs and what may follow (T, B, K), and what is real (T, B).

    Symbols are S, a, b (and c) as inputs, and a, b (c) and T, the end, as what may follow: after S an a, after an a
    either a or b, and then only what completes the string.

    >>> inputs, legal, _ = counted(2, [2])
    >>> "".join("Sab"[k] for k in inputs[:, 0].argmax(-1)), legal[:, 0].int().tolist()
    ('Saabb', [[1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]])
    """
    n, t = torch.tensor(counts), torch.arange(1 + letters * max(counts))[:, None]
    symbol = (t + n - 1) // n  # S, then n steps of each letter
    real = t <= letters * n
    following = (t + n) // n - 1  # the letter of the next step, or the end
    legal = F.one_hot(following.clamp(max=letters), letters + 1).float()
    legal[..., 1] = torch.maximum(legal[..., 1], (symbol == 1).float())
    legal[..., 0] = torch.maximum(legal[..., 0], (symbol == 1).float())
    return F.one_hot(symbol.clamp(max=letters), letters + 1).float(), legal, real


def reach(model: Network, letters: int, most: int = ASKED) -> int:
    """The greatest N such that every string with n = 1 to N is predicted without an error."""
    for end in (min(most, 100), most):
        inputs, legal, real = counted(letters, range(1, end + 1))
        with torch.no_grad():
            wrong = ((((model(inputs) > 0) != (legal > 0)).any(-1)) & real).any(0)
        if wrong.any():
            return int(wrong.int().argmax())
    return most


def counting(letters: int, cell: str, wanted: int, seed: int, limit: int | None = None) -> Outcome:
    """Noise in the weights asks for gates that are open or shut: the others would miscount, and more so with n."""
    cells, limit = letters - 1, limit or (letters - 1) * 20_000
    drawn = generator("counting", seed)
    model = network(seed, cell, letters + 1, cells, letters + 1, shortcut=True)
    for name, weight in model.named_parameters():
        if not name.endswith("bias"):
            nn.init.uniform_(weight, -0.1, 0.1, generator=drawn)
    hold(model, input_bias=5.0, forget_bias=15.0)
    inputs, legal, real = counted(letters, range(1, TRAINED + 1))

    def loss(step: int) -> Tensor:
        noise = NOISE * min(1.0, 2 * step * TRAINED / limit)
        noisy = {
            name: weight + noise * torch.randn(weight.shape, generator=drawn)
            for name, weight in model.named_parameters()
        }
        said = torch.func.functional_call(model, noisy, (inputs,))
        return F.binary_cross_entropy_with_logits(said[real], legal[real])

    outcome = learn(
        model,
        loss,
        lambda: (False, float(reach(model, letters))),
        batch=TRAINED,
        limit=limit,
        every=500,
        learning_rate=0.03,
        decay=True,
    )
    return replace(outcome, solved=outcome.score >= wanted, drawn=outcome.curve)


EXPERIMENTS = [
    Experiment(
        name="counting",
        paper=PAPER,
        about=(
            f"Predict at each step all symbols that may follow, of S a^n b^n T and S a^n b^n c^n T. Trained on n = 1 "
            f"to {TRAINED}, all strings in each batch, for a fixed time with Adam and a falling rate; the paper "
            "trained after every string, drawn at random. The weights have noise in training, of a standard deviation "
            f"that grows to {NOISE}, and none when they are tested. The last weights count: nothing "
            f"is chosen by longer strings. Score: the greatest N up to {ASKED} such that all n = 1 to N are right at "
            "every step; solved: N at least 100. One cell, and two for three letters; the readout sees the input."
        ),
        score="greatest N",
        draw=("sequences", "greatest N"),
        conditions=[
            Condition("a^n b^n, peepholes", "", partial(counting, 2, "lstm-peephole", 100)),
            Condition("a^n b^n, no peepholes", "", partial(counting, 2, "lstm", 100)),
            Condition("a^n b^n c^n, peepholes", "", partial(counting, 3, "lstm-peephole", 100)),
            Condition("a^n b^n c^n, no peepholes", "", partial(counting, 3, "lstm", 100)),
        ],
    )
]
