"""What captioners say of a photo, what they looked at, and how they are asked."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from carousel.captioning.confidence import Grade


class Caption(NamedTuple):
    """A sentence about a photo. Probabilities are of each word given the photo and the words before it."""

    text: str
    logprob: float  # natural logarithm, the end of the sentence counted
    novel: bool  # no training caption reads the same
    words: list[tuple[str, float]]
    confidence: float | None = None  # the probability that it is right, where the model has learned to judge
    grade: Grade | None = None
    unsure_of: str | None = None  # the sentence that was not sure enough, where `text` is a hedge
    school: str | None = None  # who says it, where several do

    def __str__(self) -> str:
        return self.text

    @property
    def sentence(self) -> str:
        """What the model itself says, sure or not."""
        return self.text if self.unsure_of is None else self.unsure_of

    def as_json(self) -> dict[str, Any]:
        """As ``carousel caption --json`` prints it."""
        words = [[word, round(probability, 6)] for word, probability in self.words]
        found = {"text": self.text, "logprob": round(self.logprob, 6), "novel": self.novel, "words": words}
        if self.confidence is not None:
            found |= {"confidence": round(self.confidence, 4), "grade": self.grade}
        more = {"unsure_of": self.unsure_of, "school": self.school}
        return found | {name: value for name, value in more.items() if value is not None}


class Attention(NamedTuple):
    """Where a decoder looked for each word of a caption; the shares of a word sum to one, the sentinel's counted."""

    words: list[str]
    places: Tensor  # (words, 7, 7)
    sentinel: Tensor | None  # (words,), the share of no place at all; see `Adaptive`


class Maps(NamedTuple):
    """Where in a photo each of some words was seen."""

    what: str  # they are, in a few words
    words: list[str]
    places: Tensor  # (words, 7, 7), of any scale
    shares: list[float] | None  # to stand beside each word: a chance, or how much of the attention went to places


class Decoding(NamedTuple):
    """How to turn the model's probabilities into `n` sentences: by beam search, or by sampling."""

    n: int = 1
    beam: int | None = None  # None: the model's own width
    length_normalisation: float | None = None
    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    no_repeat: int = 0  # no n-gram of this size twice; 0 allows all
    max_length: int = 20
    seed: int = 0
    judged: bool = True  # ranked and with confidence, where the model has learned to judge
    hedge: bool = True  # say less in place of a best caption that is not sure enough
