"""Text to ids and back: words, characters, bytes, or pieces of words that are learned from the data."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from carousel.data.vocabulary import SPECIALS, Vocabulary
from carousel.errors import DataError

Kind = Literal["words", "spaces", "characters", "bytes", "bpe"]
KINDS: Mapping[str, str] = {
    "words": "runs of letters and digits, and each other character; tags such as <br /> are left out",
    "spaces": "what stands between spaces: for text that is split into tokens already",
    "characters": "each character",
    "bytes": "each byte of the UTF-8: 256 tokens, none unknown",
    "bpe": "pieces of words, by byte pair encoding trained on the data; wants carousel-rnn[subwords]",
}

_WORD = re.compile(r"\w+(?:['’.]\w+)*|\S")
_TAG = re.compile(r"<[/!]?[a-zA-Z][^<>]{0,200}/?>")
_BYTE = re.compile(r"<0x(..)>")


def words(text: str) -> list[str]:
    """Words and punctuation.

    >>> words("I can't say: 3.5 stars!<br /><br />No, really <unk> ...")
    ['I', "can't", 'say', ':', '3.5', 'stars', '!', 'No', ',', 'really', '<unk>', '.', '.', '.']
    """
    return [token for part in _parts(text) for token in ([part] if part in SPECIALS else _WORD.findall(part))]


def _parts(text: str) -> list[str]:
    """The text between tags; the specials are none."""
    if "<" not in text:
        return [text]
    kept = _TAG.sub(lambda tag: tag[0] if tag[0] in SPECIALS else " ", text)
    return [part for part in re.split(f"({'|'.join(SPECIALS)})", kept) if part]


def _bytes(text: str) -> list[str]:
    return [f"<0x{byte:02x}>" for byte in text.encode()]


SPLITTERS: Mapping[str, Callable[[str], list[str]]] = {
    "words": words,
    "spaces": str.split,
    "characters": list,
    "bytes": _bytes,
}


class Tokenizer:
    """How a text becomes ids, with the vocabulary that numbers them.

    >>> tokenizer = Tokenizer.train("words", ["A dog runs.", "A cat."], lowercase=True)
    >>> tokenizer.tokens("A bird runs."), tokenizer.encode("A bird runs.")
    (['a', 'bird', 'runs', '.'], [5, 3, 8, 4])
    >>> Tokenizer.from_facts(tokenizer.facts()).decode([5, 8])
    'a runs'
    """

    def __init__(
        self, kind: Kind, vocabulary: Vocabulary, *, lowercase: bool = False, merges: Sequence[Sequence[str]] = ()
    ) -> None:
        self.kind, self.vocabulary, self.lowercase, self.merges = kind, vocabulary, lowercase, merges
        self._subwords = _subwords(vocabulary, merges) if kind == "bpe" else None

    @classmethod
    def train(
        cls,
        kind: Kind,
        texts: Iterable[str],
        *,
        lowercase: bool = False,
        min_count: int = 1,
        most: int | None = None,
    ) -> Tokenizer:
        """A tokenizer for these texts, which are read once and not kept.

        Args:
            min_count: tokens that occur fewer times are unknown.
            most: at most so many tokens; with "bpe" as many as there shall be, 8,000 by default.
        """
        texts = map(str.lower, texts) if lowercase else texts
        if kind == "bpe":
            vocabulary, merges = _trained_subwords(texts, most or 8000, min_count)
            return cls(kind, vocabulary, lowercase=lowercase, merges=merges)
        if kind == "bytes":
            return cls(kind, Vocabulary([*SPECIALS, *(f"<0x{byte:02x}>" for byte in range(256))]), lowercase=lowercase)
        split, counts = SPLITTERS[kind], Counter[str]()
        for text in texts:
            counts.update(split(text))
        return cls(kind, Vocabulary.of_counts(counts, min_count, most), lowercase=lowercase)

    def tokens(self, text: str) -> list[str]:
        """The tokens of a text, whether they are known or not."""
        text = text.lower() if self.lowercase else text
        if self._subwords is not None:
            tokens: list[str] = self._subwords.encode(text).tokens
            return tokens
        return SPLITTERS[self.kind](text)

    def encode(self, text: str) -> list[int]:
        """Their ids; of a token that is not known that of ``<unk>``."""
        return self.vocabulary.encode(self.tokens(text))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, up to ``<stop>``: with spaces between words, exactly as it was otherwise."""
        joined = self.vocabulary.decode(ids) if self.kind in ("words", "spaces") else None
        if joined is not None:
            return joined
        tokens = self._until_stop(ids)
        if self._subwords is not None:
            return str(self._subwords.decoder.decode(tokens))
        if self.kind == "bytes":
            return bytes(int(t[3:5], 16) for t in tokens if _BYTE.fullmatch(t)).decode("utf-8", "replace")
        return "".join(tokens)

    def _until_stop(self, ids: Iterable[int]) -> list[str]:
        found = []
        for token in map(self.vocabulary.word, ids):
            if token == "<stop>":
                break
            if token not in ("<pad>", "<start>"):
                found.append(token)
        return found

    def facts(self) -> dict[str, Any]:
        """Plain values, ready for JSON, that `from_facts` reads."""
        return {
            "kind": self.kind,
            "lowercase": self.lowercase,
            "vocabulary": self.vocabulary.to_list(),
            "merges": [list(pair) for pair in self.merges],
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Tokenizer:
        """Restore what `facts` gave."""
        vocabulary = Vocabulary.from_list(facts["vocabulary"])
        return cls(facts["kind"], vocabulary, lowercase=facts["lowercase"], merges=facts["merges"])

    def __len__(self) -> int:
        return len(self.vocabulary)

    def __repr__(self) -> str:
        return f"Tokenizer({self.kind}, {len(self)} tokens)"


# --- subwords: the `tokenizers` package, byte-level, so that nothing is unknown ---------------------------------------


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise DataError(
            "bpe: wants another package (got no tokenizers); words, characters and bytes go without; "
            "pip install 'carousel-rnn[subwords]'"
        ) from None
    return tokenizers


def _subwords(vocabulary: Vocabulary, merges: Sequence[Sequence[str]]) -> Any:
    library = _library()
    numbered = {token: i for i, token in enumerate(vocabulary.to_list())}
    found = library.Tokenizer(library.models.BPE(vocab=numbered, merges=[tuple(pair) for pair in merges]))
    found.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = library.decoders.ByteLevel()
    return found


def _trained_subwords(texts: Iterable[str], most: int, min_count: int) -> tuple[Vocabulary, list[list[str]]]:
    library = _library()
    found = library.Tokenizer(library.models.BPE())
    found.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = library.trainers.BpeTrainer(
        vocab_size=most,
        min_frequency=min_count,
        special_tokens=list(SPECIALS),
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    found.train_from_iterator(texts, trainer)
    model = json.loads(found.to_str())["model"]
    vocabulary = Vocabulary(sorted(model["vocab"], key=model["vocab"].__getitem__))
    return vocabulary, [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
