"""Sentences with tags, made by rule: what each word is takes its neighbours, and names that are new their letters."""

from __future__ import annotations

import random
from collections.abc import Iterator

SYLLABLES = ("ba", "do", "ki", "lu", "mer", "nor", "pa", "ri", "sto", "ta", "ven", "zu")
ENDINGS = {"PER": ("son", "ova", "ez"), "LOC": ("burg", "ville", "stan"), "ORG": ("corp", "soft", "tech")}
FRAMES = (
    "PER met PER in LOC .",
    "ORG opened an office in LOC yesterday .",
    "the mayor of LOC thanked ORG and PER .",
    "PER works for ORG .",
    "no one knows why .",
    "shares of ORG fell after PER left LOC .",
)
POS = {
    "met": "VERB", "opened": "VERB", "thanked": "VERB", "works": "VERB", "knows": "VERB", "fell": "VERB",
    "left": "VERB", "in": "ADP", "of": "ADP", "for": "ADP", "after": "ADP", "an": "DET", "the": "DET", "no": "DET",
    "and": "CCONJ", "office": "NOUN", "mayor": "NOUN", "one": "NOUN", "shares": "NOUN", "yesterday": "ADV",
    "why": "ADV", ".": "PUNCT",
}  # fmt: skip
Token = tuple[str, str, str]  # word, part of speech, entity in BIO


def name(draw: random.Random, kind: str) -> list[str]:
    """One to three new words; the last one's ending says which kind it is."""
    words = ["".join(draw.choices(SYLLABLES, k=2)).capitalize() for _ in range(draw.choice((1, 1, 2, 3)))]
    words[-1] += draw.choice(ENDINGS[kind])
    return words


def corpus(count: int, seed: int = 0) -> Iterator[list[Token]]:
    """So many sentences."""
    draw = random.Random(seed)
    for _ in range(count):
        sentence: list[Token] = []
        for word in draw.choice(FRAMES).split():
            if word in ENDINGS:
                for k, part in enumerate(name(draw, word)):
                    sentence.append((part, "PROPN", f"{'I' if k else 'B'}-{word}"))
            else:
                sentence.append((word, POS[word], "O"))
        yield sentence


def conll(sentences: Iterator[list[Token]], separator: str = " ") -> str:
    """As CoNLL columns."""
    return "\n".join("".join(separator.join(token) + "\n" for token in sentence) for sentence in sentences)


if __name__ == "__main__":
    print(conll(corpus(400)), end="")
