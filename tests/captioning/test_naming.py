"""Names go only where nobody can be taken for another; everywhere else the sentence stands."""

import pytest

from carousel.captioning.naming import person_phrases, with_names


@pytest.mark.parametrize(
    ("text", "people", "faces", "expected"),
    [
        ("a man in a suit", ["Ada Lovelace"], 1, "Ada Lovelace in a suit"),
        ("man in a hat", ["Ada"], 1, "Ada in a hat"),
        ("a dog runs after a small child", ["Ada"], 1, "a dog runs after Ada"),
        ("an older man with a baby stroller", ["Ada"], 1, "Ada with a baby stroller"),
        ("a man stands near a statue of a woman", ["Ada"], 1, "Ada stands near a statue of a woman"),
        ("two men are smiling", ["Ada"], 2, "Ada and a man are smiling"),
        ("two men are smiling", ["Ada"], 1, "Ada and a man are smiling"),
        ("two old men are smiling", ["Ada"], 2, "Ada and an old man are smiling"),
        ("two men are smiling", ["Ada", "Bo"], 2, "Ada and Bo are smiling"),
        ("three people sit", ["Ada"], 3, "Ada and two people sit"),
        ("four people sit", ["Ada", "Bo"], 3, "Ada, Bo and two people sit"),
        ("three children sit", ["Ada", "Bo"], 3, "Ada, Bo and a child sit"),
        ("a man and a woman sit", ["Ada", "Bo"], 2, "Ada and Bo sit"),
        ("a boy and girl sit", ["Ada", "Bo"], 2, "Ada and Bo sit"),
        ("a man and two women sit", ["Ada", "Bo", "Cy"], 3, "Ada, Bo and Cy sit"),
        ("a large group of people walk", ["Ada"], 9, "a large group of people including Ada walk"),
        ("the men walk", ["Ada", "Bo"], 2, "the men including Ada and Bo walk"),
        ("a couple of men walk", ["Ada"], 2, "a couple of men including Ada walk"),
        ("a woman brushes her hair by herself", ["Ada"], 1, "Ada brushes their hair by themself"),
    ],
)
def test_a_person_phrase_gives_way(text: str, people: list[str], faces: int, expected: str) -> None:
    assert with_names(text, people, faces) == expected


@pytest.mark.parametrize(
    ("text", "people", "faces"),
    [
        ("a dog runs", ["Ada"], 1),  # nobody is spoken of
        ("a man smiles", ["Ada"], 2),  # which of the two?
        ("a man smiles", ["Ada", "Bo"], 2),
        ("two men smile", ["Ada"], 3),
        ("a man and a woman sit", ["Ada"], 2),  # a name has no gender
        ("a man and a woman sit", ["Ada"], 1),
        ("a man talks to a woman", ["Ada", "Bo"], 2),  # who to whom?
        ("a man talks to a flamboyant woman", ["Ada"], 1),  # a phrase that is not understood is one all the same
        ("a man and a group of people walk", ["Ada"], 3),
        ("a man smiles as he runs", ["Ada"], 1),
        ("a man is tackled by others", ["Ada"], 1),
        ("a baby stroller in the park", ["Ada"], 1),
        ("a two person tent", ["Ada"], 1),
        ("a statue of a woman", ["Ada"], 1),
        ("", ["Ada"], 1),
    ],
)
def test_a_sentence_that_does_not_fit_stands(text: str, people: list[str], faces: int) -> None:
    assert with_names(text, people, faces) == f"{text} (in the photo: {' and '.join(people)})"


@pytest.mark.parametrize(
    ("text", "people", "landmarks", "expected"),
    [
        ("a man in front of a large white building", [], ["Big Ben"], "a man in front of Big Ben"),
        ("a man in front of a building", ["Ada"], ["Big Ben"], "Ada in front of Big Ben"),
        ("a man in front of a building", [], ["Big Ben", "The Shard"],
         "a man in front of a building (in the photo: Big Ben and The Shard)"),
        ("a church and a bridge", [], ["Big Ben"], "a church and a bridge (in the photo: Big Ben)"),
        ("two buildings", [], ["Big Ben"], "two buildings (in the photo: Big Ben)"),
        ("a dog runs", ["Ada"], ["Big Ben"], "a dog runs (in the photo: Ada and Big Ben)"),
        ("a dog runs by a tower", ["Ada"], ["Big Ben"], "a dog runs by Big Ben (in the photo: Ada)"),
        ("a man in a suit", [], [], "a man in a suit"),
    ],
)  # fmt: skip
def test_landmarks(text: str, people: list[str], landmarks: list[str], expected: str) -> None:
    assert with_names(text, people, len(people), landmarks) == expected


def test_names_with_words_for_people_are_not_read_again() -> None:
    assert with_names("a man by a building", ["The Little Boy Tower"], 1, ["Man House"]) == (
        "The Little Boy Tower by Man House"
    )


def test_phrases_know_their_number() -> None:
    text = "a red haired man and two tennis players watch several kids from a tiny boat full of women"
    words = text.split()
    found = [(" ".join(words[p.start : p.end]), p.number, p.kind) for p in person_phrases(words)]
    assert found == [
        ("a red haired man", 1, "red haired man"),
        ("two tennis players", 2, "tennis player"),
        ("several kids", 0, "kid"),
        ("women", 0, "woman"),
    ]
