"""What can be said of a photo when no caption is sure enough: the things that most of the candidates name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from carousel.metrics.chair import object_phrases
from carousel.metrics.words import normalise

SURE = 0.8  # the share of candidates that must name a thing
MOST = 3  # things in a sentence
NOBODY = "I am not sure what this photo shows"
# Places and stuff are no objects of COCO's; with their article, where they have one.
SCENERY = {
    **{word: word for word in ("grass", "snow", "water", "sand", "dirt", "ice", "mud", "waves", "rocks", "trees")},
    **{
        word: f"a {word}"
        for word in ("beach", "field", "street", "road", "pool", "lake", "river", "mountain", "hill", "park", "city",
                     "crowd", "wall", "fence", "building", "track", "trail", "path", "forest", "sidewalk", "stage")
    },
    "ocean": "the ocean",
}  # fmt: skip
PLURAL = ("people", "men", "women", "children", "boys", "girls", "kids")


def things_named(words: Sequence[str]) -> dict[str, str]:
    """Each object or place that a sentence names, by its class, and the words it does so with.

    >>> things_named("two dogs run on the grass".split())
    {'dog': 'dogs', 'grass': 'grass'}
    """
    found: dict[str, str] = {}
    phrases = object_phrases()
    start = 0
    while start < len(words):
        for size in (3, 2, 1):
            phrase = " ".join(words[start : start + size])
            thing = phrases.get(phrase) or (phrase if phrase in SCENERY else "")
            if thing or size == 1 or phrase in phrases:
                break
        if thing:
            found.setdefault(thing, phrase)
        start += min(size, len(words) - start)
    return found


def surely_seen(
    sentences: Iterable[Sequence[str]], sure: float = SURE, *, doubted: Collection[str] = (), named: bool = False
) -> list[str]:
    """What at least the share `sure` of sentences name, those named most often first, each as it is best said, or
    where `named` its class. What is `doubted` is left out.

    A thing is called by its class ("person") unless `sure` of the sentences use the same word for it ("boy").

    >>> surely_seen([["a", "boy", "on", "grass"], ["a", "man", "on", "grass"]])
    ['grass', 'a person']
    """
    lists = [things_named(words) for words in sentences]
    counts = Counter(thing for named in lists for thing in named)
    said = Counter(phrase for named in lists for phrase in named.values())
    found = []
    for thing, times in sorted(counts.items(), key=lambda item: (-item[1], item[0] == "person")):
        if times >= sure * len(lists) and thing not in doubted:
            phrase = next((p for p, n in said.most_common() if n >= sure * len(lists) and _names(p, thing)), thing)
            found.append(thing if named else _with_article(phrase))
    return found


def hedge(seen: Sequence[str]) -> str:
    """A sentence that says no more than what is seen.

    >>> hedge(["a dog", "grass"]), hedge([])
    ('I am not sure, but I see a dog and grass', 'I am not sure what this photo shows')
    """
    if not seen:
        return NOBODY
    *others, last = seen[:MOST]
    return f"I am not sure, but I see {' and '.join(filter(None, [', '.join(others), last]))}"


def is_hedge(text: str) -> bool:
    """Whether a caption is one of ours that refuses to say more."""
    return text.startswith("I am not sure")


def _names(phrase: str, thing: str) -> bool:
    return object_phrases().get(phrase) == thing or phrase == thing


def _with_article(phrase: str) -> str:
    if phrase in SCENERY:
        return SCENERY[phrase]
    thing = object_phrases().get(phrase, phrase)
    plural = phrase in PLURAL or (phrase.endswith("s") and phrase.removesuffix("s") in object_phrases() and thing)
    if plural or phrase.endswith("ies"):
        return normalise(phrase)
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
