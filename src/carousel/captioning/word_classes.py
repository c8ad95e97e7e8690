"""Which words of captions are nouns, verbs, adjectives or function words: enough to average a detector's scores by."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from carousel.metrics.chair import object_phrases

CLASSES = ("noun", "verb", "adjective", "function")


def word_class(word: str) -> str:
    """The class of a word, by lists made by hand and shipped, `word_classes.txt`.

    A name of an object of reference-CHAIR is a noun. Then the lists decide, by what the word mostly is in captions;
    then the endings: -ing a verb, -ly a function word. **All that is left is a noun**: this is for the common words of
    captions in English, not for text at large.

    >>> [word_class(word) for word in ("dog", "leaping", "brown", "through", "skateboarder")]
    ['noun', 'verb', 'adjective', 'function', 'noun']
    """
    if object_phrases().get(word):
        return "noun"
    if word in _listed():
        return _listed()[word]
    if word.endswith("ing") and len(word) > 5:
        return "verb"
    return "function" if word.endswith("ly") and len(word) > 4 else "noun"


@cache
def _listed() -> dict[str, str]:
    found: dict[str, str] = {}
    for line in files(__package__).joinpath("word_classes.txt").read_text(encoding="utf-8").splitlines():
        name, _, words = line.partition(": ")
        found |= {word: name for word in words.split() if word not in found}
    return found
