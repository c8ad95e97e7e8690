from __future__ import annotations

import math
import time
from collections import Counter

import pytest
from hypothesis import given

from carousel.errors import DataError
from carousel.metrics import CiderD, cider_d, normalise
from carousel.metrics.bleu import ngram_counts

from .conftest import Scored
from .sentences import corpora

REFERENCES = [["a dog runs on grass", "the dog runs"], ["a cat sits there now"], ["two birds fly over the sea"]]


def plain_cider_d(candidate: str, image: int, references: list[list[str]]) -> float:
    """The definition, sentence by sentence."""
    frequency = Counter(g for captions in references for g in set().union(*map(grams, captions)))

    def vector(text: str, n: int) -> dict[tuple[str, ...], float]:
        counts = grams(text).items()
        return {g: c * math.log(len(references) / max(1, frequency[g])) for g, c in counts if len(g) == n}

    def similarity(reference: str, n: int) -> float:
        mine, theirs = vector(candidate, n), vector(reference, n)
        dot = sum(min(weight, theirs.get(g, 0)) * theirs.get(g, 0) for g, weight in mine.items())
        norms = math.sqrt(sum(w * w for w in mine.values()) * sum(w * w for w in theirs.values()))
        gap = len(candidate.split()) - len(reference.split())
        return dot / norms * math.exp(-(gap**2) / 72) if norms else 0.0

    parts = [similarity(reference, n) for reference in references[image] for n in (1, 2, 3, 4)]
    return 10 * sum(parts) / len(parts)


def grams(text: str) -> Counter[tuple[str, ...]]:
    return ngram_counts(text.split())


def test_a_caption_equal_to_all_references_scores_ten() -> None:
    assert cider_d(["a b c d", "e f g h"], [["a b c d"] * 3, ["e f g h"]]) == pytest.approx(10)


def test_too_short_for_four_grams_scores_less() -> None:
    assert cider_d(["a b", "e f g h"], [["a b"], ["e f g h"]]) == pytest.approx((5 + 10) / 2)


def test_one_image_has_no_consensus() -> None:
    assert cider_d(["a b c d"], [["a b c d"]]) == 0  # every n-gram is in all images: idf 0


def test_by_hand() -> None:
    # "a" is in both images: idf 0. Unigrams: only dog, min(2, 1) · 1 / (2 · 1). Lengths 3 and 2: gap 1.
    scores = CiderD([["a dog"], ["a cat"]]).scores(["a dog dog"], [0])
    bigrams = 1 / math.sqrt(2)
    assert scores[0] == pytest.approx(10 * (1 / 2 + bigrams) / 4 * math.exp(-1 / 72))


def test_repeating_a_word_does_not_pay() -> None:
    once, often = CiderD(REFERENCES).scores(["the dog runs", "dog dog dog"], [0, 0])
    assert once > 2 * often


def test_candidates_in_any_number_and_order() -> None:
    reward = CiderD(REFERENCES)
    candidates = ["a cat", "birds fly", "a dog", "", "an unseen unseen word"]
    images = [1, 2, 0, 0, 2]
    together = reward.scores(candidates, images)
    assert together.tolist() == [reward.scores([c], [i])[0] for c, i in zip(candidates, images, strict=True)]
    plain = [plain_cider_d(candidate, image, REFERENCES) for candidate, image in zip(candidates, images, strict=True)]
    assert together == pytest.approx(plain)
    assert together[3] == together[4] == 0
    assert reward.scores([], []).shape == (0,)


def test_reliable_from_a_hundred_images_on() -> None:
    assert not CiderD([["a dog"]] * 99).reliable
    assert CiderD([["a dog"]] * 100).reliable


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([0], "images: 1 positions for 2 candidates; one for each is needed"),
        ([0, 3], "images: a position outside the references (got 0..3); 0..2 is allowed"),
        ([-1, 0], "images: a position outside the references (got -1..0); 0..2 is allowed"),
    ],
)
def test_images_that_are_not_there(images: list[int], message: str) -> None:
    with pytest.raises(DataError) as caught:
        CiderD(REFERENCES).scores(["a", "b"], images)
    assert str(caught.value) == message


@given(corpora)
def test_equal_to_the_definition(corpus: list[tuple[str, list[str]]]) -> None:
    candidates, references = map(list, zip(*corpus, strict=True))
    scores = CiderD(references).scores(candidates, range(len(candidates)))
    plain = [plain_cider_d(candidate, image, references) for image, candidate in enumerate(candidates)]
    assert scores == pytest.approx(plain, abs=1e-9)
    backwards = CiderD([image[::-1] for image in references]).scores(candidates, range(len(candidates)))
    assert scores == pytest.approx(backwards, abs=1e-9)


@pytest.mark.data
def test_equal_to_the_official_score(oracle: Scored) -> None:
    assert cider_d(oracle.candidates, oracle.references) == pytest.approx(oracle.scores["CIDEr"], abs=1e-9)


@pytest.mark.data
def test_equal_to_published_scores(published: Scored) -> None:
    texts = [normalise(candidate) for candidate in published.candidates]
    truths = [[normalise(caption) for caption in image] for image in published.references]
    assert cider_d(texts, truths) == pytest.approx(published.scores["CIDEr"], abs=2e-3)


@pytest.mark.data
def test_fast_enough_for_a_training_reward(flickr8k: dict[str, dict[str, list[str]]]) -> None:
    references = [[normalise(caption) for caption in image] for image in flickr8k["dev"].values()]
    reward = CiderD(references)
    start = time.process_time()
    reward.scores([image[0] for image in references], range(len(references)))
    assert time.process_time() - start < 0.2
