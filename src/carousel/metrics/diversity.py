"""Whether a captioner invents sentences or repeats them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from carousel.metrics.words import normalise


def sentence_hash(text: str) -> int:
    """A signed 64-bit number for the normalised sentence, the same on every machine and in every version.

    Case, punctuation and spacing do not matter: without that, a full stop alone would make every caption "novel". Two
    different sentences share a number with a chance of 5e-20; the number fits an int64 tensor.

    >>> sentence_hash("A dog runs .") == sentence_hash("a  dog runs")
    True
    >>> sentence_hash("a dog runs")
    -5957876977829557608
    """
    digest = blake2b(normalise(text).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def sentence_hashes(texts: Iterable[str]) -> frozenset[int]:
    """The hashes of many sentences: all a model file has to keep of its training captions to tell novel ones.

    >>> len(sentence_hashes(["A dog.", "a dog", "two dogs"]))
    2
    """
    return frozenset(map(sentence_hash, texts))


def are_novel(candidates: Sequence[str], training: Collection[int]) -> NDArray[np.bool_]:
    """Which candidates, (candidates,), are in no training caption's `sentence_hash`.

    >>> are_novel(["A dog runs.", "a cat runs"], sentence_hashes(["a dog runs"])).tolist()
    [False, True]
    """
    known = frozenset(map(int, training))
    return np.array([sentence_hash(candidate) not in known for candidate in candidates], dtype=np.bool_)


def distinct_captions(candidates: Iterable[str]) -> int:
    """How many different captions there are, after `normalise`.

    >>> distinct_captions(["A dog.", "a dog", "two dogs"])
    2
    """
    return len({normalise(candidate) for candidate in candidates})


def vocabulary_used(candidates: Iterable[str]) -> int:
    """How many different words the captions use, after `normalise`.

    >>> vocabulary_used(["A dog.", "a cat"])
    3
    """
    return len({word for candidate in candidates for word in normalise(candidate).split()})
