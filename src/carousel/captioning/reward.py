"""What a sentence that a captioner wrote itself is worth, for self-critical training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carousel.metrics import CiderD
from carousel.metrics.chair import objects_mentioned
from carousel.metrics.words import normalise

END = "endofsentence"  # a word that no caption has


class Reward:
    """CIDEr-D against the photo's own captions, less a penalty for every object that none of them names.

        r(S) = CIDEr-D(S </s>) − λ · |objects named in S and in no caption of its photo|

    The end counts as a word, in sentences that reached it and in the captions: without it a sentence that breaks off
    ("a dog runs through the") costs nothing. Document frequencies are those of the captions given.

    >>> reward = Reward([["a dog runs", "the dog runs"], ["a cat sits"]], penalty=1.0)
    >>> reward.scores(["a dog runs", "a dog runs", "a dog runs with a man"], [True, False, True], [0, 0, 0]).round(2)
    array([7.48, 4.62, 1.55])
    """

    def __init__(self, captions: Sequence[Sequence[str]], penalty: float = 0.0) -> None:
        self.penalty = penalty
        texts = [[normalise(caption) for caption in photo] for photo in captions]
        self.consensus = CiderD([[f"{text} {END}" for text in photo] for photo in texts])
        self.named = [{thing for text in photo for thing in objects_mentioned(text)} for photo in texts]

    def scores(self, texts: Sequence[str], finished: Sequence[bool], photos: Sequence[int]) -> NDArray[np.float64]:
        """The reward of each text, by the position of its photo."""
        ended = [f"{text} {END}" if end else text for text, end in zip(texts, finished, strict=True)]
        scores = self.consensus.scores(ended, photos)
        if self.penalty:
            pairs = zip(texts, photos, strict=True)
            wrong = [sum(thing not in self.named[k] for thing in objects_mentioned(text)) for text, k in pairs]
            scores = scores - self.penalty * np.array(wrong)
        return scores


def advantages(rewards: Tensor, counts: Tensor) -> Tensor:
    """How much better each sentence is than the mean of the others of its photo, (Σ counts,); 0 where it is alone.

    >>> advantages(torch.tensor([1.0, 2.0, 6.0, 5.0]), torch.tensor([3, 1])).tolist()
    [-3.0, -1.5, 4.5, 0.0]
    """
    group = torch.arange(len(counts)).repeat_interleave(counts)
    sums = torch.zeros(len(counts)).index_add(0, group, rewards)[group]
    others = (counts - 1)[group]
    return torch.where(others > 0, rewards - (sums - rewards) / others.clamp(min=1), 0.0)
