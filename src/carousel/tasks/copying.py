"""The copy memory problem: ten symbols are shown, a long blank follows, and then the ten are asked for."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.errors import ConfigError
from carousel.tasks.problem import Examples, Held, Tally, cross_entropy
from carousel.training.seeding import generator

SHOWN, SYMBOLS, BLANK, DELIMITER, CATEGORIES = 10, 8, 8, 9, 10


def copying(size: int, delay: int, generator: torch.Generator) -> Examples:
    """`size` sequences of the copy memory problem with a delay of T: T + 20 elements, categories 0 to 9 as one-hot.

    Ten symbols, uniform in 0 to 7, are followed by T - 1 blanks (8), the delimiter (9) and ten more blanks. The target
    of the last ten steps are the ten symbols, in order, and of all steps before them the blank. Without a memory the
    best cross-entropy is 10 ln 8 / (T + 20) a step.

    Arjovsky et al. 2016, arXiv:1511.06464v4, section 5.1.

    >>> inputs, targets, _ = copying(5, 30, torch.Generator().manual_seed(0))
    >>> inputs.shape, torch.equal(inputs[:10].argmax(-1), targets[-10:])
    (torch.Size([50, 5, 10]), True)
    """
    symbols = torch.randint(SYMBOLS, (SHOWN, size), generator=generator)
    seen = torch.full((delay + 2 * SHOWN, size), BLANK)
    wanted = seen.clone()
    seen[:SHOWN], seen[delay + SHOWN - 1] = symbols, DELIMITER
    wanted[-SHOWN:] = symbols
    return Examples(F.one_hot(seen, CATEGORIES).float(), wanted)


class Copying:
    """The copy memory problem as a `Problem`; new sequences at every step.

    >>> Copying(delay=30).batch(seed=0, step=0).inputs.shape
    torch.Size([50, 32, 10])
    """

    name = "copy"
    input_size, output_size, every_step = CATEGORIES, CATEGORIES, True
    metric, higher_is_better = "cross-entropy", False
    parameters = 20_000

    def __init__(self, delay: int = 100, batch_size: int = 32) -> None:
        if delay < 1:
            raise ConfigError(f"length: not a delay (got {delay}); 1 or more; 100 is usual")
        self.delay, self.batch_size = delay, batch_size
        self.about = f"copy memory (Arjovsky et al. 2016), T = {delay}; cross-entropy a step in nats, less is better"
        self.held_out = cache(self._held_out)

    def batch(self, seed: int, step: int) -> Examples:
        return copying(self.batch_size, self.delay, generator("copy", seed, step))

    def _held_out(self, split: Held) -> list[Examples]:
        return [copying(256, self.delay, generator("copy", split, k)) for k in range(2 if split == "val" else 4)]

    def loss(self, outputs: Tensor, examples: Examples) -> Tensor:
        return cross_entropy(outputs, examples.targets)

    def measure(self, outputs: Tensor, examples: Examples) -> Tally:
        count = examples.targets.numel()
        return Tally(float(cross_entropy(outputs, examples.targets)) * count, count)

    def baselines(self) -> dict[str, float]:
        return {"no memory": SHOWN * math.log(SYMBOLS) / (self.delay + 2 * SHOWN)}
