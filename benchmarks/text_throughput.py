"""Training steps of text models against the same models with `torch.nn.LSTM`: ``python benchmarks/text_throughput.py``.

A classifier (1 layer in both directions, hidden 128, vectors of 100, the greatest output of all steps) on batches of 32
made-up texts, lengths log-normal about 170 tokens and cut to 400, in length buckets as `carousel train` makes them;
torch's once over the padding and once with `pack_padded_sequence`, and both on the same buckets, and shuffled, as the
`DataLoader` of a program in plain PyTorch gives them. And language models: of words (2 layers of 200,
10,000 words, 20 streams of 35) and of characters (1 layer of 512, 65 characters, 32 streams of 64). A step is forward,
loss, backward, without an optimiser; once in float32, and once in mixed precision, ours "auto" as `carousel train` has
it, torch's in its autocast to bfloat16 and in float32. All sides take turns; printed are medians of tokens, without
padding, a second of processor time, and of the ratios within a turn with their quartiles.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from itertools import cycle

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from carousel.data.bucketing import Buckets
from carousel.tasks.language_network import LanguageConfig, LanguageNetwork
from carousel.tasks.text_classifier import ClassifyConfig, TextClassifier
from carousel.training import autocast, keep_freed_memory, recurrences_compiled

WORDS, TURNS = 10_000, 19

Step = Callable[[], int]  # what it returns is how many tokens it has read


class PlainLSTM(nn.Module):
    """`torch.nn.LSTM` where the models have a `Recurrent`."""

    def __init__(self, input_size: int, hidden: int, layers: int, both: bool, packed: bool) -> None:
        super().__init__()
        self.lstm, self.packed = nn.LSTM(input_size, hidden, layers, bidirectional=both), packed
        self.bidirectional, self.output_size = both, hidden * (1 + both)

    def forward(self, x: Tensor, state: object = None, lengths: Tensor | None = None) -> tuple[Tensor, object]:
        if not self.packed or lengths is None:
            return self.lstm(x, state)
        packed, state = self.lstm(pack_padded_sequence(x, lengths, enforce_sorted=False), state)
        return pad_packed_sequence(packed, total_length=len(x))[0], state


def mixed(model: nn.Module, run: Step) -> Step:
    """A step in mixed precision."""

    def step() -> int:
        with recurrences_compiled(model, "auto"), autocast("on"):
            return run()

    return step


def classifiers(*, narrow: bool) -> dict[str, Step]:
    config = ClassifyConfig(dropout=0.0, word_dropout=0.0)
    draw = torch.Generator().manual_seed(0)
    lengths = (170 * torch.randn(640, generator=draw).mul(0.6).exp()).long().clamp(5, 400)
    buckets = Buckets(lengths, 32)
    batches = {
        "": [buckets.rows(0, 0, batch) for batch in range(len(buckets))],
        ", shuffled": list(torch.randperm(len(lengths), generator=draw).split(32)),
    }

    def step(model: nn.Module, order: str) -> Callable[[], int]:
        rest = cycle(batches[order])

        def run() -> int:
            rows = next(rest)
            ids = torch.randint(4, WORDS, (int(lengths[rows].max()), len(rows)))
            F.cross_entropy(model(ids, lengths[rows]), torch.zeros(len(rows), dtype=torch.long)).backward()
            return int(lengths[rows].sum())

        return run

    ours = TextClassifier(config, WORDS, 2)
    sides = {"carousel": mixed(ours, step(ours, "")) if narrow else step(ours, "")}
    for how in ("padded", "packed"):
        for order in batches:
            model = TextClassifier(config, WORDS, 2)
            model.recurrent = PlainLSTM(config.embedding_size, config.hidden_size, 1, True, how == "packed")
            sides[f"torch, {how}{order}"] = step(model, order)
            if narrow:
                sides[f"torch, {how}{order}, autocast"] = mixed(model, step(model, order))
    return sides


def language_models(words: int, width: int, layers: int, streams: int, steps: int, *, narrow: bool) -> dict[str, Step]:
    config = LanguageConfig(layers=layers, hidden_size=width, embedding_size=min(width, 200), dropout=0.0)
    ids = torch.randint(0, words, (steps + 1, streams))

    def step(model: LanguageNetwork) -> Step:
        def run() -> int:
            model.surprise(model(ids[:-1])[0].flatten(0, 1), ids[1:].flatten()).mean().backward()
            return steps * streams

        return run

    ours, plain = LanguageNetwork(config, words), LanguageNetwork(config, words)
    plain.recurrent = PlainLSTM(config.embedding_size, width, layers, False, False)
    if not narrow:
        return {"carousel": step(ours), "torch": step(plain)}
    return {"carousel": mixed(ours, step(ours)), "torch": step(plain), "torch, autocast": mixed(plain, step(plain))}


def compare(name: str, sides: dict[str, Step]) -> None:
    for run in sides.values():
        run()
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(TURNS):
        for side, run in sides.items():
            began = time.process_time()
            tokens = run()
            rates[side].append(tokens / (time.process_time() - began))
    for side, found in rates.items():
        low, ratio, high = statistics.quantiles([a / b for a, b in zip(rates["carousel"], found, strict=True)], n=4)
        print(
            f"{name:12} {side:32} {statistics.median(found):9,.0f} tokens/s   x {ratio:.2f} ({low:.2f} .. {high:.2f})"
        )


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    keep_freed_memory()
    for narrow in (False, True):
        print("mixed precision" if narrow else "float32")
        compare("classifier", classifiers(narrow=narrow))
        compare("words", language_models(WORDS, 200, 2, 20, 35, narrow=narrow))
        compare("characters", language_models(65, 512, 1, 32, 64, narrow=narrow))
