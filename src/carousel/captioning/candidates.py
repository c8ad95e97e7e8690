"""What one part of the pipeline hands to the next: the sentences that may be a photo's caption, best first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, Protocol, Self


class Written(Protocol):
    """What a decoder says: any object with these fields, such as `Caption`, can become a candidate."""

    @property
    def logprob(self) -> float:
        """Natural logarithm of the sentence's probability, its end counted."""

    @property
    def words(self) -> Iterable[tuple[str, float]]:
        """Each word with its probability given the words before it."""

    @property
    def novel(self) -> bool:
        """Whether no training caption reads the same."""


class Candidate(NamedTuple):
    """A sentence that may be a photo's caption, as its language model left it.

    >>> from carousel.captioning import Caption
    >>> caption = Caption("a dog runs", -3.0, True, [("a", 0.9), ("dog", 0.8), ("runs", 0.2)])
    >>> Candidate.of(caption, rank=0, concepts={"dog", "grass"}).covered
    1
    """

    text: str
    words: tuple[str, ...]
    logprob: float  # natural logarithm, the end of the sentence counted
    covered: int  # how many of the photo's detected concepts it says; 0 where none were detected
    rank: int  # its place in the language model's list, from 0
    probabilities: tuple[float, ...] = ()  # of each word given those before it, where they are known
    novel: bool = False  # no training caption reads the same

    @classmethod
    def of(cls, written: Written, rank: int, concepts: Collection[str] = ()) -> Self:
        """The candidate that a decoder's sentence is, on the place `rank` of its list."""
        words, probabilities = zip(*written.words, strict=True) if written.words else ((), ())
        return cls(
            " ".join(words), words, written.logprob, len(set(words) & set(concepts)), rank, probabilities, written.novel
        )


def candidates_of(written: Sequence[Written], concepts: Collection[str] = ()) -> list[Candidate]:
    """The candidates of one photo, from its sentences in the decoder's order."""
    return [Candidate.of(sentence, rank, concepts) for rank, sentence in enumerate(written)]
