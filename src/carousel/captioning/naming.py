"""Names in sentences: "a man in a suit" becomes "Ada Lovelace in a suit" where nobody can be taken for another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from carousel.metrics.chair import object_phrases, plural

MANY = 0  # the count of "a group of people", "men", "several children"
UNCLEAR = -1  # of a person phrase that is not understood: nobody is named beside it


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COUNTS = {"a": 1, "an": 1, "the": 1, "this": 1, "one": 1, "another": 1, "single": 1}
_COUNTS |= {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_NUMBERS = {n: word for word, n in _COUNTS.items() if n > 1}
_VAGUE = _words("several many some few these those other both")
_GROUPS = _words("group crowd bunch team couple line row pair number lot")
_PICTURES = _words("statue picture painting photo photograph poster drawing sculpture mural")
# Named after people and no person: "a baby stroller", "a boy scout", "a ladies room".
_THINGS = _words("stroller carriage seat doll statue bottle swing costume toy pool room bike bicycle scout")
_MORE_PEOPLE = _words(
    """
    toddler infant surfer cyclist climber hiker motorcyclist racer wrestler runner swimmer kayaker photographer catcher
    cheerleader rollerblader diver boxer dancer singer musician artist fireman firefighter fisherman footballer golfer
    teen youth human bystander onlooker spectator performer teammate brother daughter son
    """
)
# What stands between "a" and "man" in the captions of Flickr8k's training photos, the commonest by far.
_MODIFIERS = _words(
    """
    young little small older asian smiling old elderly blond blonde haired shirtless bald black teenage bearded lone
    dark white dressed younger red naked large middle african redheaded laughing homeless aged long brunette barefoot
    skinned hair topless brown indian helmeted happy uniformed american seated tall japanese sleeping wet oriental
    muscular fat skinny dirty cute tattooed overweight chubby balding masked well very light curly short
    football basketball soccer hockey baseball bike dirt tennis rugby mountain police bmx motorcycle motocross ice
    construction field ball softball school inline military race racing college cricket stunt volleyball rock business
    """
)
_PLACES = _words(
    """
    building skyscraper tower church cathedral chapel temple mosque castle palace bridge monument statue fountain arch
    museum ruin pagoda lighthouse windmill dome pyramid
    """
)
_PLACE_MODIFIERS = _words(
    """
    large big tall old ancient small white red brown yellow green blue gray grey black brick stone wooden glass colorful
    ornate city modern beautiful concrete marble famous
    """
)
_NEUTRAL = {"his": "their", "her": "their", "himself": "themself", "herself": "themself"}
_PRONOUNS = _words("he she him hers someone somebody everyone everybody others")


class Phrase(NamedTuple):
    """Words `start` to `end` of a sentence stand for so many people or things of a kind, such as "young man"."""

    start: int
    end: int
    number: int
    kind: str


def with_names(text: str, people: Sequence[str], faces: int, landmarks: Sequence[str] = ()) -> str:
    """`text` with the names of the people and landmarks that were recognised in its photo, which has `faces` faces.

    A person phrase gives way to names only where the sentence has no other, and where it speaks of at least as many
    people as there are faces. Of more people than are known the rest is kept; a group is said to include them. The one
    phrase for a building gives way to the one landmark. A name says nothing of gender, so that "his" and "her" become
    "their". Where anything does not fit, the sentence stands, and the names follow in brackets.

    >>> with_names("a man in a suit holds his hat", ["Ada"], 1)
    'Ada in a suit holds their hat'
    >>> with_names("two young men play soccer", ["Ada"], 2), with_names("a man and a woman sit", ["Ada", "Bo"], 2)
    ('Ada and a young man play soccer', 'Ada and Bo sit')
    >>> with_names("a group of people walk by a tall building", ["Ada"], 3, ["Big Ben"])
    'a group of people including Ada walk by Big Ben'
    >>> with_names("a dog runs", ["Ada"], 1), with_names("a man talks to a woman", ["Ada"], 1)
    ('a dog runs (in the photo: Ada)', 'a man talks to a woman (in the photo: Ada)')
    """
    aside: list[str] = []
    for rewrite, names in ((_with_people, people), (_with_landmarks, landmarks)):
        if names:
            rewritten = rewrite(text, names, faces)
            aside += [] if rewritten else names
            text = rewritten or text
    return f"{text} (in the photo: {_listed(aside)})" if aside else text


def _with_people(text: str, names: Sequence[str], faces: int) -> str | None:
    words = text.split()
    phrases = list(person_phrases(words))
    if _PRONOUNS & set(words) or not _joined(words, phrases):
        return None
    count, start, end = sum(phrase.number for phrase in phrases), phrases[0].start, phrases[-1].end
    spoken = list(names)
    if phrases[0].number == MANY:
        spoken = [*words[start:end], "including", _listed(names)]
    elif count < faces or (len(phrases) > 1 and count != len(names)):
        return None
    elif rest := count - len(names):
        spoken = [_listed([*names, _some(rest, phrases[0].kind)])]
    else:
        spoken = [_listed(names)]
    after = [_NEUTRAL.get(word, word) for word in words[end:]]
    return " ".join([*words[:start], *spoken, *after])


def _joined(words: Sequence[str], phrases: Sequence[Phrase]) -> bool:
    """Whether they are one, or counted ones with nothing but "and" between them: "a man and two women"."""
    between = [words[a.end : b.start] for a, b in pairwise(phrases)]
    counts = [phrase.number for phrase in phrases]
    return counts == [MANY] or (min(counts, default=UNCLEAR) > 0 and all(gap == ["and"] for gap in between))


def _with_landmarks(text: str, names: Sequence[str], faces: int) -> str | None:
    words = text.split()
    phrases = list(_phrases(words, {place: place for place in _PLACES}, _PLACE_MODIFIERS))
    if len(phrases) != 1 or len(names) != 1:
        return None
    return " ".join([*words[: phrases[0].start], *names, *words[phrases[0].end :]])


def person_phrases(words: Sequence[str]) -> Iterator[Phrase]:
    """The phrases that stand for people, pictures of people apart.

    >>> [phrase.number for phrase in person_phrases("two men watch a small child near a statue of a woman".split())]
    [2, 1]
    """
    for phrase in _phrases(words, _people(), _MODIFIERS):
        if not (words[phrase.start - 1 : phrase.start] == ["of"] and words[phrase.start - 2] in _PICTURES):
            yield phrase


def _phrases(words: Sequence[str], nouns: dict[str, str], modifiers: frozenset[str]) -> Iterator[Phrase]:
    """Determiner, modifiers, noun. `nouns` maps both forms of each to its singular."""
    end = 0
    for i, word in enumerate(words):
        if i < end or word not in nouns:
            continue
        last = i
        while last + 1 < len(words) and words[last + 1] in nouns:  # "male skier"
            last += 1
        if words[last + 1 : last + 2] and words[last + 1] in _THINGS:
            continue
        first = i
        while first > end and words[first - 1] in modifiers:
            first -= 1
        kind = " ".join([*words[first:last], nouns[words[last]]])
        several = words[last] != nouns[words[last]]
        determiner = words[first - 1] if first > end else ""
        count = _COUNTS.get(determiner, MANY)
        if determiner in _COUNTS or determiner in _VAGUE:
            first -= 1
        if several and count == 1:
            count = MANY  # "the men"
        elif several and count == MANY:
            first = _group(words, first, end)
        elif not several and (first == 0 or determiner == "and"):
            count = 1  # "man on a bike", "a boy and girl"
        elif not several and count != 1:
            count = UNCLEAR  # "a flamboyant woman", "two person tent"
        end = last + 1
        yield Phrase(first, end, count, kind)


def _group(words: Sequence[str], first: int, begin: int) -> int:
    """Where the phrase begins whose last words are "of people" before place `first`: "a large group of people"."""
    if first - begin < 2 or words[first - 1] != "of" or words[first - 2] not in _GROUPS:
        return first
    first -= 2
    while first > begin and (words[first - 1] in _MODIFIERS or words[first - 1] == "big"):
        first -= 1
    return first - 1 if first > begin and words[first - 1] in _COUNTS else first


@cache
def _people() -> dict[str, str]:
    """Both forms of every noun for people, with its singular."""
    known = [phrase for phrase, thing in object_phrases().items() if thing == "person" and " " not in phrase]
    singular = {*known, *_MORE_PEOPLE, "person"} - {plural(word) for word in known} - {"people"}
    return {form: word for word in singular for form in (plural(word), word)} | {"people": "person"}


def _some(count: int, kind: str) -> str:
    if count == 1:
        return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    return f"{_NUMBERS.get(count, str(count))} {'people' if kind == 'person' else plural(kind)}"


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
