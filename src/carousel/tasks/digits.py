"""Sequential digits: an image of MNIST read pixel by pixel, and its digit named when all have been seen."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.data.idx import read_idx
from carousel.tasks.problem import Examples, Held, Tally, cross_entropy, drawn, hits

VALIDATION = 2_000  # the last of the training images


class Digits:
    """MNIST's images, row by row, one pixel a step, as a `Problem` (Le et al. 2015, arXiv:1504.00941v2, section 4.2).

    Args:
        data: the folder of MNIST's four idx files, plain or gzip.
        side: 14, each pixel the mean of four, or 28, the images as they are.
        batch_size: of training.

    Raises:
        DataError: a file is missing or not idx.
    """

    name = "digits"
    input_size, output_size, every_step = 1, 10, False
    metric, higher_is_better = "accuracy in %", True
    parameters = 20_000

    def __init__(self, data: str | Path, side: int = 14, batch_size: int = 32) -> None:
        self.side, self.batch_size = side, batch_size
        images, labels = self._read(data, "train")
        self.images, self.labels = images[:, :-VALIDATION], labels[:-VALIDATION]
        self.held = {"val": (images[:, -VALIDATION:], labels[-VALIDATION:]), "test": self._read(data, "t10k")}
        self.about = f"MNIST at {side} x {side}, pixel by pixel, T = {side * side}; accuracy in percent, more is better"
        self.held_out = cache(self._held_out)

    def _read(self, data: str | Path, part: str) -> tuple[Tensor, Tensor]:
        """Pixels (T, N) from 0 to 1, and digits (N,)."""
        images = read_idx(data, f"{part}-images-idx3-ubyte").float() / 255
        small = F.avg_pool2d(images[:, None], images.shape[-1] // self.side)
        return small.flatten(1).t().contiguous(), read_idx(data, f"{part}-labels-idx1-ubyte").long()

    def batch(self, seed: int, step: int) -> Examples:
        chosen = torch.tensor(drawn(len(self.labels), self.batch_size, seed, step))
        return Examples(self.images[:, chosen, None], self.labels[chosen])

    def _held_out(self, split: Held) -> list[Examples]:
        pixels, digits = self.held[split]
        return [
            Examples(some[:, :, None], named)
            for some, named in zip(torch.split(pixels, 500, dim=1), torch.split(digits, 500), strict=True)
        ]

    def loss(self, outputs: Tensor, examples: Examples) -> Tensor:
        return cross_entropy(outputs, examples.targets)

    def measure(self, outputs: Tensor, examples: Examples) -> Tally:
        return hits(outputs, examples.targets)

    def baselines(self) -> dict[str, float]:
        commonest = int(self.labels.bincount().argmax())
        return {"the commonest digit": 100.0 * float((self.held["test"][1] == commonest).float().mean())}
