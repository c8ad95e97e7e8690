"""The judge: ranking and confidence together, hedges, and its place in a captioner's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from carousel.captioning import NIC, Captioner, CaptioningConfig, Decoding, PhotoEncoder
from carousel.captioning.candidates import Candidate
from carousel.captioning.confidence import GRADES, Confidence, Known
from carousel.captioning.dmsm import DMSM, SimilarityConfig, Trigrams
from carousel.captioning.hedge import NOBODY, hedge, surely_seen, things_named
from carousel.captioning.judge import Judge, doubted, features_of
from carousel.captioning.ranking import Ranked
from carousel.data.vocabulary import Vocabulary
from carousel.errors import ModelFileError
from carousel.training import read_model_file, write_model_file

WORDS = ["a", "dog", "cat", "runs", "on", "grass"]


def confidence(weight: float = 1.0, of: str = "score") -> Confidence:
    size = len(Known._fields)
    weights = weight * np.eye(size)[Known._fields.index(of)]
    return Confidence(np.zeros(size), np.ones(size), weights, np.array([-1.0, 0.0, 1.0]))


def judge(similarity: DMSM | None = None, of: str = "logprob", **more: Any) -> Judge:
    weights = np.eye(len(Ranked._fields))[Ranked._fields.index(of)]
    return Judge(similarity, weights, confidence(), **{"threshold": 0.2, "beam": 4, **more})


def said(text: str, logprob: float, rank: int = 0) -> Candidate:
    return Candidate(text, tuple(text.split()), logprob, 0, rank, (0.5,) * len(text.split()))


def captioner(judging: Judge | None = None) -> Captioner:
    torch.manual_seed(0)
    config = CaptioningConfig(hidden_size=8, embedding_size=8, beam=2)
    vocabulary = Vocabulary(["<pad>", "<start>", "<stop>", "<unk>", *WORDS])
    encoder = PhotoEncoder()
    member = NIC(config, encoder.features, len(vocabulary)).eval()
    hashes = torch.zeros(0, dtype=torch.int64)
    return Captioner(config, vocabulary, encoder, [member], hashes, judge=judging)


def similarity() -> DMSM:
    torch.manual_seed(1)
    config = SimilarityConfig(trigram_size=4, maps=4, size=4)
    return DMSM(config, PhotoEncoder.features, Trigrams.build(WORDS)).eval()


def test_the_best_comes_first_with_a_confidence_that_follows_its_score() -> None:
    candidates = [said("a cat", -3.0), said("a dog", -1.0, 1), said("a dog runs", -2.0, 2)]
    found = judge()(torch.zeros(1, 3), [candidates])[0]
    assert [verdict.place for verdict in found] == [1, 2, 0]
    assert [verdict.confidence for verdict in found] == pytest.approx([1 / (1 + np.exp(k)) for k in (1, 2, 3)])
    assert [verdict.hedge is None for verdict in found] == [True, False, False]  # the threshold is .2
    assert found[0].grade == "unrelated" and all(verdict.grade in GRADES for verdict in found)
    assert judge()(torch.zeros(1, 3), [[]]) == [[]]


def test_the_similarity_ranks_by_the_photo() -> None:
    model, photos = similarity(), torch.randn(2, PhotoEncoder.features)
    lists = [[said("a dog", -1.0), said("a cat runs", -1.0, 1), said("grass", -1.0, 2)]] * 2
    found = judge(model, "similarity")(photos, lists)
    cosines = model(photos, [candidate.words for candidate in lists[0]])
    assert [verdicts[0].place for verdicts in found] == cosines.argmax(1).tolist()


def planted(n: int) -> tuple[list[list[Candidate]], list[list[str]]]:
    """Likely sentences are true, and unlikely photos have none that is."""
    lists, references = [], []
    for i in range(n):
        thing, other = ("dog", "cat") if i % 2 else ("cat", "dog")
        sure = i % 3 > 0
        first = said(f"a {other} runs on grass", -9.0 if not sure else -4.0)
        second = said(f"a {thing if sure else 'horse'} runs", -2.0 if sure else -8.0, 1)
        lists.append([first, second])
        references.append([f"a {thing} runs", f"the {thing} is quick number {i}"])
    return lists, references


def test_a_judge_learns_from_validation_photos() -> None:
    lists, references = planted(60)
    found, sure, grade = Judge.fit(None, features_of(None, torch.zeros(60, 3), lists), lists, references, beam=2)
    verdicts = found(torch.zeros(60, 3), lists)
    assert all(best[0].place == 1 for best in verdicts)
    likely = np.array([best[0].confidence for best in verdicts])
    truth = np.array([i % 3 > 0 for i in range(60)])
    assert likely[truth].min() > likely[~truth].max() and ((grade <= 1) == truth).all()
    assert sure[truth].mean() > sure[~truth].mean() + 0.5
    assert found.threshold == pytest.approx(np.quantile(sure, 0.2))


def test_a_judge_learns_what_detected_concepts_say() -> None:
    """The sentences alone tell nothing; the chance of the least likely of their words tells all."""
    lists, references, rows = [], [], []
    for i in range(60):
        right = i % 3 > 0
        lists.append([said("a dog runs", -3.0), said("a cat runs", -3.0, 1)])
        references.append([f"a {'dog' if right else 'horse'} runs", f"it is quick number {i}"])
        grounded = np.array([[-1.0, -1.0 if right else -4.0, -2.0], [-5.0, -9.0, -1.0]])
        rows.append(np.hstack([features_of(None, torch.zeros(1, 3), [lists[-1]])[0], grounded]))
    found, _, grade = Judge.fit(None, rows, lists, references, beam=2)
    verdicts = [found.verdicts(some, known) for some, known in zip(lists, rows, strict=True)]
    truth = np.array([i % 3 > 0 for i in range(60)])
    likely = np.array([best[0].confidence for best in verdicts])
    assert all(best[0].place == 0 for best in verdicts) and ((grade <= 1) == truth).all()
    assert likely[truth].min() > likely[~truth].max() + 0.5
    again = Judge.from_parts({}, json.loads(json.dumps(found.parts()[1])))
    assert again.verdicts(lists[0], rows[0]) == verdicts[0]


def test_naming_what_is_not_there_can_cost_more_than_cider_gives() -> None:
    lists = [[said(f"a dog runs by number {i} with a cat", -1.0), said(f"a dog by {i}", -2.0, 1)] for i in range(60)]
    references = [[f"a dog runs by number {i} with a {'hat' if i % 3 else 'cat'}"] for i in range(60)]
    references[1:60:6] = [["a horse"]] * 10
    rows = features_of(None, torch.zeros(60, 3), lists)
    for cost, chosen in ((0.0, 0), (100.0, 1)):
        found = Judge.fit(None, rows, lists, references, beam=2, cost=cost)[0]
        assert {found.verdicts(some, known)[0].place for some, known in zip(lists, rows, strict=True)} == {chosen}


def test_hedges_name_what_most_candidates_name_and_nothing_doubted() -> None:
    sentences = [text.split() for text in ("a boy and two dogs on grass", "a boy with dogs on grass", "a man and dogs")]
    assert surely_seen(sentences, 0.6) == ["dogs", "a boy", "grass"]
    assert surely_seen(sentences, 1.0) == ["dogs", "a person"]
    assert surely_seen(sentences, 0.6, doubted=["grass"]) == ["dogs", "a boy"]
    assert surely_seen([["an", "elephant"]]) == ["an elephant"] and surely_seen([]) == []
    assert hedge(["a dog", "grass", "a ball", "a cat"]) == "I am not sure, but I see a dog, grass and a ball"
    assert hedge([]) == NOBODY
    assert things_named(["a", "hot", "dog"]) == {"hot dog": "hot dog"}


def test_what_is_often_named_and_seldom_true_is_doubted() -> None:
    lists = [[said("a dog on a bench", -1.0)]] * 10
    assert doubted(lists, [["a dog runs"]] * 10) == ["bench"]
    assert doubted(lists, [["a dog on a bench"]] * 9 + [["a dog"]]) == []


def test_a_captioner_with_a_judge_looks_at_more_and_ranks_them() -> None:
    features = torch.randn(3, PhotoEncoder.features)
    plain = captioner().describe(features, Decoding(n=4, beam=4))
    judged = captioner(judge(of="length")).describe(features, Decoding(hedge=False))
    for list_, (best,) in zip(plain, judged, strict=True):
        assert best.text == max(list_, key=lambda caption: len(caption.words)).text
        assert best.confidence is not None and best.unsure_of is None
        assert best.as_json()["confidence"] == round(best.confidence, 4)
    unjudged = captioner(judge(of="length")).describe(features, Decoding(judged=False))
    assert unjudged == captioner().describe(features)
    drawn = captioner(judge()).describe(features, Decoding(sample=True, n=2))
    assert all(caption.confidence is None for captions in drawn for caption in captions)


def test_an_unsure_caption_becomes_a_hedge_and_keeps_what_it_was() -> None:
    features = torch.randn(1, PhotoEncoder.features)
    first, second = captioner(judge(threshold=1.0)).describe(features, Decoding(n=2))[0]
    assert first.text.startswith("I am not sure") and first.unsure_of == " ".join(word for word, _ in first.words)
    assert first.sentence == first.unsure_of == first.as_json()["unsure_of"]
    assert second.unsure_of is None and second.sentence == second.text


@pytest.mark.parametrize("with_similarity", [False, True])
def test_the_file_gives_the_same_captions_again(tmp_path: Path, with_similarity: bool) -> None:
    features = torch.randn(2, PhotoEncoder.features)
    whole = captioner(judge(similarity() if with_similarity else None, "similarity", doubted=["cat"]))
    whole.save(tmp_path / "m.safetensors")
    again = Captioner.load(tmp_path / "m.safetensors")
    assert again.judge is not None and again.judge.doubted == {"cat"} and again.judge.beam == 4
    for one, two in zip(whole.describe(features), again.describe(features), strict=True):
        assert one[0].text == two[0].text and one[0].confidence == pytest.approx(two[0].confidence, abs=0.01)
    again.save(tmp_path / "n.safetensors")
    assert Captioner.load(tmp_path / "n.safetensors").judge is not None


def test_an_old_file_has_no_confidence(tmp_path: Path) -> None:
    captioner().save(tmp_path / "m.safetensors")
    assert "judge" not in read_model_file(tmp_path / "m.safetensors", "captioning")[1]
    best = Captioner.load(tmp_path / "m.safetensors").describe(torch.randn(1, PhotoEncoder.features))[0][0]
    assert best.confidence is None and best.as_json().keys() == {"text", "logprob", "novel", "words"}


def damage(facts: dict[str, Any], path: str, value: Any) -> None:
    *folders, name = path.split("/")
    for folder in folders:
        facts = facts[folder]
    if value is None:
        del facts[name]
    else:
        facts[name] = value


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("ranking/similarity", None, "ranking feature similarity"),
        ("ranking/logprob", "much", "could not convert"),
        ("confidence/boundaries", [1.0, 0.0, 2.0], "numbers that cannot be"),
        ("confidence/boundaries", [0.0], "not as many numbers"),
        ("confidence/features", {"mood": [0, 1, 1]}, "feature mood"),
        ("threshold", 7, "numbers that cannot be"),
        ("beam", 0, "numbers that cannot be"),
        ("confidence", None, "confidence"),
    ],
)
def test_a_damaged_judge_is_refused_in_one_line(tmp_path: Path, path: str, value: Any, reason: str) -> None:
    file = tmp_path / "m.safetensors"
    captioner(judge()).save(file)
    tensors, facts = read_model_file(file, "captioning")
    damage(facts["judge"], path, value)
    write_model_file(file, tensors, facts)
    with pytest.raises(ModelFileError) as refused:
        Captioner.load(file)
    message = str(refused.value)
    assert "\n" not in message and "its parts do not fit together" in message and reason in message
