"""Reference-CHAIR: objects in a caption that none of the image's references mentions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.metrics.words import check_pairs, normalise

ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub")
VEHICLES = ("jet", "train")
# Phrases that read differently from their last word: a "baby elephant" is no person.
PHRASES = {
    **{f"{age} {animal}": animal for age in ("baby", "adult") for animal in ANIMALS},
    **{f"passenger {vehicle}": vehicle for vehicle in VEHICLES},
    "bow tie": "tie",
    "toilet seat": "toilet",
}
IRREGULAR = {"man": "men", "woman": "women", "child": "children", "person": "persons", "goose": "geese",
             "mouse": "mice", "ox": "oxen", "calf": "calves", "knife": "knives", "thief": "thieves"}  # fmt: skip
LONGEST_PHRASE = 3


class ReferenceChair(NamedTuple):
    """Shares, as fractions of 1, of captions and of object mentions that no reference supports."""

    chair_s: float
    chair_i: float


def reference_chair(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> ReferenceChair:
    """Object hallucination of one candidate per image, against the union of the image's references.

        CHAIR_s = captions with at least one object that no reference mentions / captions
        CHAIR_i = mentions of objects that no reference mentions / mentions of objects

    Objects are the 80 classes of COCO with their synonyms; see `objects_mentioned`. CHAIR_i is 0 where no candidate
    mentions any object.

    Rohrbach et al. 2018, arXiv:1809.02156v2. **Not comparable with published CHAIR**: there an object also counts as
    true when a segmentation of the image shows it; here only what people wrote about the image counts, and an object
    that all of them left out is called hallucinated. One human caption against four others gets 3-5 % of captions.

    >>> reference_chair(["a dog chases a cat", "a man"], [["two dogs run", "a puppy"], ["a woman"]])
    ReferenceChair(chair_s=0.5, chair_i=0.3333333333333333)
    """
    sums = chair_statistics(candidates, references).sum(axis=0)
    return ReferenceChair(*chair_from_statistics(sums).tolist())


def chair_statistics(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """What reference-CHAIR needs from every image, (images, 4); sums over images give the scores.

    Columns: 1 if the caption hallucinates, hallucinated mentions, mentions, 1.

    >>> chair_statistics(["a dog chases a cat"], [["two dogs run", "a puppy"]]).tolist()
    [[1.0, 1.0, 2.0, 1.0]]
    """
    check_pairs(candidates, references)
    rows = []
    for candidate, captions in zip(candidates, references, strict=True):
        wrong = len(hallucinated_objects(candidate, captions))
        rows.append((wrong > 0, wrong, len(objects_mentioned(candidate)), 1))
    return np.array(rows, dtype=np.float64)


def chair_from_statistics(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """CHAIR_s and CHAIR_i (..., 2) from summed statistics (..., 4).

    >>> chair_from_statistics(np.array([1.0, 1.0, 4.0, 2.0])).tolist()
    [0.5, 0.25]
    """
    captions, wrong, mentions, images = np.moveaxis(sums, -1, 0)
    return np.stack([captions / images, wrong / np.maximum(mentions, 1)], axis=-1)


def hallucinated_objects(candidate: str, references: Iterable[str]) -> list[str]:
    """The objects that the candidate mentions and no reference does, one entry per mention.

    >>> hallucinated_objects("a man on a bike by a car", ["a woman cycling", "a person on a bicycle"])
    ['car']
    """
    true = {thing for reference in references for thing in objects_mentioned(reference)}
    return [thing for thing in objects_mentioned(candidate) if thing not in true]


def objects_mentioned(text: str) -> list[str]:
    """The COCO objects that a caption mentions, in order, one entry per mention, by the name of their class.

    Singular and plural forms of every synonym count. The longest phrase wins, so that "hot dog" is no dog; "baby" and
    "adult" before an animal and "passenger" before a train or jet are part of that phrase; "seat" is no chair in a
    caption with a toilet.

    >>> objects_mentioned("Two women eat hot dogs beside a baby elephant, on a toilet with a blue seat")
    ['person', 'hot dog', 'elephant', 'toilet']
    """
    words = normalise(text).split()
    found = list(_mentions(words))
    if any(thing == "toilet" for _, thing in found):
        found = [(phrase, thing) for phrase, thing in found if phrase not in ("seat", "seats")]
    return [thing for _, thing in found if thing]


def _mentions(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    phrases = object_phrases()
    start = 0
    while start < len(words):
        for size in range(LONGEST_PHRASE, 0, -1):
            phrase = " ".join(words[start : start + size])
            if phrase in phrases:
                yield phrase, phrases[phrase]
                break
        start += size


@cache
def object_phrases() -> dict[str, str]:
    """Every known phrase, singular and plural, and the class that it names ("" for a phrase that names none).

    The synonyms are those of Rohrbach et al. 2018, in `coco_object_synonyms.txt` next to this module.

    >>> object_phrases()["puppies"], object_phrases()["passenger trains"], object_phrases()["baby animal"]
    ('dog', 'train', '')
    """
    text = files(__package__).joinpath("coco_object_synonyms.txt").read_text(encoding="utf-8")
    classes: dict[str, str] = {}
    for line in text.splitlines():
        names = [normalise(name) for name in line.split(",")]
        classes |= dict.fromkeys(names, names[0])
    singular = classes | {phrase: classes.get(head, "") for phrase, head in PHRASES.items()}
    return {plural(phrase): thing for phrase, thing in singular.items()} | singular


def plural(phrase: str) -> str:
    """The English plural of the last word of a phrase.

    >>> [plural(phrase) for phrase in ("hot dog", "fireman", "bus", "puppy", "knife", "toy", "couch")]
    ['hot dogs', 'firemen', 'buses', 'puppies', 'knives', 'toys', 'couches']
    """
    for one, many in IRREGULAR.items():
        if phrase.endswith(one):
            return phrase.removesuffix(one) + many
    if phrase.endswith(("s", "x", "z", "ch", "sh")):
        return phrase + "es"
    if phrase.endswith("y") and phrase[-2:-1] not in tuple("aeiou"):
        return phrase[:-1] + "ies"
    return phrase + "s"
