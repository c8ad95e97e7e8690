"""What a sentence is worth: consensus with the photo's captions, the end counted, invented objects charged for."""

from __future__ import annotations

import pytest
import torch

from carousel.captioning.reward import Reward, advantages
from carousel.metrics import CiderD

CAPTIONS = [["A dog runs through the grass .", "a dog on grass"], ["two women sit on a bench"], ["a red car"]]


def test_the_end_is_a_word_like_any_other() -> None:
    texts, photos = ["a dog on grass", "two women sit", "a red car"], [0, 1, 2]
    ended = [["a dog runs through the grass z", "a dog on grass z"], ["two women sit on a bench z"], ["a red car z"]]
    plain = CiderD(ended)
    found = Reward(CAPTIONS).scores(texts, [True, False, True], photos)
    assert found.tolist() == plain.scores(["a dog on grass z", "two women sit", "a red car z"], photos).tolist()


def test_breaking_off_costs() -> None:
    whole, broken = Reward(CAPTIONS).scores(["a dog on grass"] * 2, [True, False], [0, 0])
    assert whole > broken > 0


@pytest.mark.parametrize(
    ("text", "photo", "wrong"),
    [
        ("a dog on grass", 0, 0),
        ("a puppy with a man", 0, 1),
        ("a man and a woman in a car", 0, 3),
        ("a man sits on a bench", 1, 0),
        ("a red car", 1, 1),
    ],
)
def test_every_object_that_no_caption_names_is_charged_for(text: str, photo: int, wrong: int) -> None:
    free, charged = (Reward(CAPTIONS, penalty).scores([text], [True], [photo])[0] for penalty in (0.0, 0.7))
    assert free - charged == pytest.approx(0.7 * wrong)


def test_advantages_are_against_the_photos_other_sentences() -> None:
    rewards, counts = torch.tensor([1.0, 3.0, 5.0, 2.0, 7.0, 7.0]), torch.tensor([3, 1, 2])
    assert advantages(rewards, counts).tolist() == [-3.0, 0.0, 3.0, 0.0, 0.0, 0.0]
    shifted = advantages(rewards + torch.tensor([9.0, 9, 9, 5, 1, 1]), counts)
    torch.testing.assert_close(shifted, advantages(rewards, counts))  # an easy photo is no better
