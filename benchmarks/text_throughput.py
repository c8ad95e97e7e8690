"""Training steps of text models against the same models with `torch.nn.LSTM`: ``python benchmarks/text_throughput.py``.

A classifier (1 layer in both directions, hidden 128, vectors of 100, the greatest output of all steps) on batches of 32
made-up texts, lengths log-normal about 170 tokens and cut to 400, in length buckets as `carousel train` makes them;
torch's once over the padding and once with `pack_padded_sequence`. And language models: of words (2 layers of 200,
10,000 words, 20 streams of 35) and of characters (1 layer of 512, 65 characters, 32 streams of 64). A step is forward,
loss, backward, without an optimiser; once in float32, and once in mixed precision, ours "auto" as `carousel train` has
it, torch's in its autocast to bfloat16 and in float32. All sides take turns on the same batches; printed are medians of
tokens a second of processor time, and of the ratios within a turn with their quartiles.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from carousel.data.bucketing import Buckets
from carousel.tasks.language_network import LanguageConfig, LanguageNetwork
from carousel.tasks.text_classifier import ClassifyConfig, TextClassifier
from carousel.training import autocast, recurrences_compiled
from carousel.training.memory import keep_freed_memory

WORDS, TURNS = 10_000, 9


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


def mixed(model: nn.Module, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A step in mixed precision."""

    def step() -> Tensor:
        with recurrences_compiled(model, "auto"), autocast("on"):
            return run()

    return step


def classifiers(*, narrow: bool) -> tuple[dict[str, Callable[[], Tensor]], Callable[[], int]]:
    config = ClassifyConfig(dropout=0.0, word_dropout=0.0)
    draw = torch.Generator().manual_seed(0)
    lengths = (170 * torch.randn(640, generator=draw).mul(0.6).exp()).long().clamp(5, 400)
    buckets = Buckets(lengths, 32)
    turn = [0]

    def step(model: nn.Module) -> Callable[[], Tensor]:
        def run() -> Tensor:
            rows = buckets.rows(0, 0, turn[0] % len(buckets))
            ids = torch.randint(4, WORDS, (int(lengths[rows].max()), len(rows)), generator=draw)
            loss = F.cross_entropy(model(ids, lengths[rows]), torch.zeros(len(rows), dtype=torch.long))
            loss.backward()
            return loss

        return run

    sides = {}
    for name in ("carousel", "torch, padded", "torch, packed"):
        model = TextClassifier(config, WORDS, 2)
        if name != "carousel":
            model.recurrent = PlainLSTM(config.embedding_size, config.hidden_size, 1, True, "packed" in name)
        sides[name] = mixed(model, step(model)) if narrow else step(model)
        if narrow and name != "carousel":
            sides[f"{name}, float32"] = step(model)

    def tokens() -> int:
        turn[0] += 1
        return int(lengths[buckets.rows(0, 0, (turn[0] - 1) % len(buckets))].sum())

    return sides, tokens


def language_models(
    words: int, width: int, layers: int, streams: int, steps: int, *, narrow: bool
) -> tuple[dict[str, Callable[[], Tensor]], Callable[[], int]]:
    config = LanguageConfig(layers=layers, hidden_size=width, embedding_size=min(width, 200), dropout=0.0)
    ids = torch.randint(0, words, (steps + 1, streams))

    def step(model: LanguageNetwork) -> Callable[[], Tensor]:
        def run() -> Tensor:
            loss = model.surprise(model(ids[:-1])[0].flatten(0, 1), ids[1:].flatten()).mean()
            loss.backward()
            return loss

        return run

    ours, plain = LanguageNetwork(config, words), LanguageNetwork(config, words)
    plain.recurrent = PlainLSTM(config.embedding_size, width, layers, False, False)
    if narrow:
        sides = {"carousel": mixed(ours, step(ours)), "torch": mixed(plain, step(plain)), "torch, float32": step(plain)}
    else:
        sides = {"carousel": step(ours), "torch": step(plain)}
    return sides, lambda: steps * streams


def compare(name: str, sides: dict[str, Callable[[], Tensor]], tokens: Callable[[], int]) -> None:
    for run in sides.values():
        run()
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(TURNS):
        seconds = {}
        for side, run in sides.items():
            began = time.process_time()
            run()
            seconds[side] = time.process_time() - began
        count = tokens()
        for side, taken in seconds.items():
            rates[side].append(count / taken)
    for side, found in rates.items():
        low, ratio, high = statistics.quantiles([a / b for a, b in zip(rates["carousel"], found, strict=True)], n=4)
        print(
            f"{name:12} {side:24} {statistics.median(found):9,.0f} tokens/s   x {ratio:.2f} ({low:.2f} .. {high:.2f})"
        )


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    keep_freed_memory()
    for narrow in (False, True):
        print("mixed precision" if narrow else "float32")
        compare("classifier", *classifiers(narrow=narrow))
        compare("words", *language_models(WORDS, 200, 2, 20, 35, narrow=narrow))
        compare("characters", *language_models(65, 512, 1, 32, 64, narrow=narrow))
