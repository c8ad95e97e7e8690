"""Polyphonic music: of each moment of a piece, which of the 88 keys sound in the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.data.rolls import KEYS, read_rolls
from carousel.tasks.problem import Examples, Held, Tally, drawn, padded


class Chorales:
    """J. S. Bach's chorales, or another set of piano rolls in the same file format, as a `Problem`.

    The score is the negative log-likelihood of a frame, in nats: the sum over the 88 keys, and the mean over all frames
    but each piece's first, which nothing precedes (Bai et al. 2018, arXiv:1803.01271v2, section 4; the splits are those
    of the file, Boulanger-Lewandowski et al. 2012, arXiv:1206.6392v1).

    Args:
        data: a .mat file, or the folder that holds JSB_Chorales.mat.
        batch_size: of training.
        longest: pieces are cut into parts that predict so many frames, for training; by default they are not.

    Raises:
        DataError: the file is missing or holds something else.
    """

    name = "chorales"
    input_size, output_size, every_step = KEYS, KEYS, True
    metric, higher_is_better = "nats a frame", False
    parameters = 60_000

    def __init__(self, data: str | Path, batch_size: int = 16, longest: int | None = None) -> None:
        path = Path(data) / "JSB_Chorales.mat" if Path(data).is_dir() else Path(data)
        self.pieces, self.batch_size = read_rolls(path), batch_size
        self.about = f"{path.stem.replace('_', ' ')}, the next frame; negative log-likelihood in nats, less is better"
        self.parts = [
            piece[k : k + length + 1]
            for piece in self.pieces["train"]
            for length in (longest or len(piece),)
            for k in range(0, len(piece) - 1, length)
        ]
        self.held_out = cache(self._held_out)

    def batch(self, seed: int, step: int) -> Examples:
        return _examples([self.parts[k] for k in drawn(len(self.parts), self.batch_size, seed, step)])

    def _held_out(self, split: Held) -> list[Examples]:
        return [_examples(self.pieces[split])]

    def loss(self, outputs: Tensor, examples: Examples) -> Tensor:
        return self._surprise(outputs, examples) / int(examples.real.sum())

    def measure(self, outputs: Tensor, examples: Examples) -> Tally:
        return Tally(float(self._surprise(outputs, examples)), int(examples.real.sum()))

    def _surprise(self, outputs: Tensor, examples: Examples) -> Tensor:
        """The sum over all keys and frames."""
        real = examples.real
        return F.binary_cross_entropy_with_logits(outputs[real], examples.targets[real], reduction="sum")

    def baselines(self) -> dict[str, float]:
        """Each key as often as it sounds in training; and each as often as it sounds, or not, after having done so."""
        [test] = self.held_out("test")
        tallies = {
            name: self.measure(guess(test.inputs).logit(), test)
            for name, guess in guesses(self.pieces["train"]).items()
        }
        return {name: tally.total / tally.items for name, tally in tallies.items()}


def guesses(train: Sequence[Tensor]) -> dict[str, Callable[[Tensor], Tensor]]:
    """Functions from frames (..., 88) to the probabilities of the keys that follow, counted in pieces (T, 88)."""
    before, after = (torch.cat([piece[k : len(piece) - 1 + k] for piece in train]) for k in (0, 1))
    often = _probability(after.sum(0), len(after))
    held = _probability((before * after).sum(0), before.sum(0))
    struck = _probability(((1 - before) * after).sum(0), (1 - before).sum(0))
    return {
        "each key's frequency": often.expand_as,
        "the frame before": lambda frames: frames * held + (1 - frames) * struck,
    }


def _examples(pieces: Sequence[Tensor]) -> Examples:
    return padded([piece[:-1] for piece in pieces], [piece[1:] for piece in pieces])


def _probability(times: Tensor, of: Tensor | int) -> Tensor:
    """Laplace's rule: never 0 or 1."""
    return (times + 1) / (of + 2)
