from __future__ import annotations

import pytest

from carousel.metrics import bleu, score_captions, sentence_hashes

from .conftest import Scored

CANDIDATES = ["A dog runs.", "Two cats!", "a man on a bike"]
REFERENCES = [["a dog runs fast", "Dogs."], ["a cat", "two cats"], ["a woman on a bicycle"]]


@pytest.fixture(autouse=True)
def no_meteor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAROUSEL_METEOR_JAR", raising=False)


def test_every_score() -> None:
    scores = score_captions(CANDIDATES, REFERENCES, training_hashes=sentence_hashes(["two cats"]), resamples=200)
    assert scores.bleu_2.value == bleu(["a dog runs", "two cats", "a man on a bike"],
                                       [["a dog runs fast", "dogs"], *REFERENCES[1:]]).bleu_2  # fmt: skip
    assert (scores.images, scores.distinct, scores.vocabulary) == (3, 3, 8)
    assert scores.novel is not None
    assert scores.novel.value == pytest.approx(2 / 3)
    assert scores.chair_s.value == 0
    assert scores.meteor is None
    for estimate in (scores.bleu_1, scores.bleu_4, scores.rouge_l, scores.cider_d, scores.chair_i, scores.novel):
        assert estimate.low <= estimate.value <= estimate.high


def test_what_is_missing_is_said() -> None:
    scores = score_captions(CANDIDATES, REFERENCES, resamples=10)
    assert scores.novel is None
    few, no_meteor = scores.warnings
    assert few == "CIDEr-D is unreliable: 3 images; document frequencies need about 100"
    assert no_meteor.startswith("METEOR 1.5 not available: ")


def test_the_seed_decides() -> None:
    first, same, other = (score_captions(CANDIDATES, REFERENCES, resamples=20, seed=seed) for seed in (0, 0, 1))
    assert first == same != other


@pytest.mark.data
def test_equal_to_published_scores(published: Scored) -> None:
    scores = score_captions(published.candidates, published.references, resamples=100)
    measured = {
        "Bleu_1": scores.bleu_1, "Bleu_4": scores.bleu_4, "ROUGE_L": scores.rouge_l, "CIDEr": scores.cider_d,
    }  # fmt: skip
    for name, estimate in measured.items():
        assert estimate.value == pytest.approx(published.scores[name], abs=2e-3)
        assert estimate.low < estimate.value < estimate.high
    assert 0.02 < scores.cider_d.high - scores.cider_d.low < 0.1
