"""Words to numbers and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from carousel.errors import DataError
from carousel.metrics.words import normalise

PAD, START, STOP, UNKNOWN = range(4)
SPECIALS = ("<pad>", "<start>", "<stop>", "<unk>")


def caption_words(text: str) -> list[str]:
    """Split a caption into the words that are learned, which are the words that scores count.

    >>> caption_words("A man's  T-shirt, No. 7 .")
    ['a', 'mans', 'tshirt', 'no', '7']
    """
    return normalise(text).split()


class Vocabulary:
    """A fixed list of words; the id of a word is its place. Ids 0..3 are ``<pad>``, ``<start>``, ``<stop>``, ``<unk>``.

    Example:
        >>> vocabulary = Vocabulary.build([["a", "dog", "runs"], ["a", "dog"], ["a", "cat"]], min_count=2)
        >>> vocabulary.to_list()
        ['<pad>', '<start>', '<stop>', '<unk>', 'a', 'dog']
        >>> vocabulary.encode(["a", "cat"])
        [4, 3]
        >>> vocabulary.decode([START, 4, 5, STOP, PAD, PAD])
        'a dog'
    """

    def __init__(self, words: Sequence[str]) -> None:
        """Number ``words``, which begin with the four specials. Raises `DataError` where they do not, or repeat."""
        if strange := [word for word in words if not isinstance(word, str)]:
            raise DataError(f"vocabulary: not a word (got {strange[0]!r}); strings; build it with Vocabulary.build")
        if tuple(words[: len(SPECIALS)]) != SPECIALS:
            raise DataError(
                f"vocabulary: wrong first words (got {list(words[: len(SPECIALS)])!r}); the first four must be "
                f"{', '.join(SPECIALS)}; build it with Vocabulary.build"
            )
        self._words = list(words)
        self._ids = {word: i for i, word in enumerate(words)}
        if len(self._ids) != len(words):
            repeated = next(word for i, word in enumerate(words) if self._ids[word] != i)
            raise DataError(f"vocabulary: a word twice (got {repeated!r}); every word has one id; drop the second")

    @classmethod
    def build(cls, sentences: Iterable[Sequence[str]], min_count: int = 5) -> Vocabulary:
        """Keep the words that occur at least ``min_count`` times, the most frequent first, equals by alphabet."""
        return cls.of_counts(Counter(word for sentence in sentences for word in sentence), min_count)

    @classmethod
    def of_counts(cls, counts: Mapping[str, int], min_count: int = 1, most: int | None = None) -> Vocabulary:
        """As `build`, of words that were counted already; `most` is how many words to keep, besides the specials."""
        kept = [word for word, count in counts.items() if count >= min_count and word not in SPECIALS]
        return cls([*SPECIALS, *sorted(kept, key=lambda word: (-counts[word], word))[:most]])

    @classmethod
    def from_list(cls, words: Sequence[str]) -> Vocabulary:
        """Restore what `to_list` gave."""
        return cls(words)

    def to_list(self) -> list[str]:
        """All words in the order of their ids, specials included: plain strings, ready for JSON."""
        return list(self._words)

    def encode(self, words: Iterable[str]) -> list[int]:
        """One id for every word, ``<unk>`` for those unknown; no ``<start>`` or ``<stop>`` is added."""
        return [self._ids.get(word, UNKNOWN) for word in words]

    def word(self, i: int) -> str:
        """The word of an id."""
        return self._words[i]

    def decode(self, ids: Iterable[int]) -> str:
        """The words up to the first ``<stop>``, with single spaces; ``<pad>`` and ``<start>`` are left out."""
        words = []
        for i in ids:
            if i == STOP:
                break
            if i not in (PAD, START):
                words.append(self._words[i])
        return " ".join(words)

    def __len__(self) -> int:
        return len(self._words)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} words)"
