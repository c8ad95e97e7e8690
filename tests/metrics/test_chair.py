from __future__ import annotations

import random

import pytest

from carousel.metrics import chair_statistics, hallucinated_objects, objects_mentioned, reference_chair

from .conftest import Scored


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ("Two women and a man walk their puppies.", ["person", "person", "dog"]),
        ("a hot dog", ["hot dog"]),
        ("hot dogs near dogs", ["hot dog", "dog"]),
        ("a baby elephant", ["elephant"]),
        ("a baby with an elephant", ["person", "elephant"]),
        ("adult zebras and a baby animal", ["zebra"]),
        ("a passenger train", ["train"]),
        ("a passenger in a train", ["person", "train"]),
        ("a bow tie", ["tie"]),
        ("a toilet seat", ["toilet"]),
        ("the seat of the toilet", ["toilet"]),
        ("two seats", ["chair"]),
        ("a player with baseball bats", ["person", "baseball bat"]),
        ("wine glasses, knives and oxen", ["wine glass", "knife", "cow"]),
        ("a stove top oven", ["oven"]),
        ("the iPhone", ["cell phone"]),
        ("a manhole, a catalog and a doghouse", []),
        ("", []),
    ],
)
def test_objects_mentioned(text: str, objects: list[str]) -> None:
    assert objects_mentioned(text) == objects


def test_a_synonym_in_any_reference_makes_it_true() -> None:
    assert hallucinated_objects("a dog on a bike", ["a bicycle", "puppies"]) == []
    assert hallucinated_objects("a dog and a dog", ["a cat"]) == ["dog", "dog"]


def test_by_hand() -> None:
    candidates = ["a dog and a cat by a car", "a man", "grass"]
    references = [["a dog"], ["a boy", "a horse"], ["a horse"]]
    assert chair_statistics(candidates, references).tolist() == [[1, 2, 3, 1], [0, 0, 1, 1], [0, 0, 0, 1]]
    assert reference_chair(candidates, references) == (1 / 3, 2 / 4)


def test_captions_without_objects_hallucinate_nothing() -> None:
    assert reference_chair(["grass"], [["a dog"]]) == (0, 0)


@pytest.mark.data
def test_published_captions(published: Scored) -> None:
    scores = reference_chair(published.candidates, published.references)
    assert 0.13 < scores.chair_s < 0.175
    assert 0.105 < scores.chair_i < 0.145


@pytest.mark.data
@pytest.mark.parametrize("writer", range(5))
def test_people_hallucinate_little(flickr8k: dict[str, dict[str, list[str]]], writer: int) -> None:
    images = list(flickr8k["test"].values())
    scores = reference_chair(
        [image[writer] for image in images], [image[:writer] + image[writer + 1 :] for image in images]
    )
    assert 0.034 < scores.chair_s < 0.048
    assert 0.027 < scores.chair_i < 0.037


@pytest.mark.data
def test_captions_of_other_images_hallucinate_every_second_time(flickr8k: dict[str, dict[str, list[str]]]) -> None:
    captions = sorted(caption for image in flickr8k["train"].values() for caption in image)
    strangers = random.Random(0).sample(captions, 1000)
    assert reference_chair(strangers, list(flickr8k["test"].values())).chair_s == pytest.approx(0.53, abs=0.03)
