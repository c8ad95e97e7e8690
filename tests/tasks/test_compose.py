"""Captions by concepts, candidates and ranking: from a few coloured pictures to sentences, end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coloured_photos import COLOURS, Data

from carousel.captioning import Captioner, Decoding, caption_photos
from carousel.captioning.compose_config import ComposeConfig
from carousel.captioning.compose_training import borrowed
from carousel.captioning.confidence import Confidence, Known
from carousel.captioning.judge import Judge
from carousel.captioning.pipeline import Pipeline
from carousel.captioning.ranking import FEATURES
from carousel.captioning.schools import SCHOOLS, load_captioner, weights_of
from carousel.cli import main
from carousel.errors import ConfigError, DataError, Interrupted, ModelFileError
from carousel.tasks import compose
from carousel.tasks.calibration import calibrate
from carousel.tasks.captioning import caption, evaluate
from carousel.tasks.compose import train
from carousel.tasks.task import Source
from carousel.training import RunFolder, read_model_file, write_model_file
from carousel.training.progress import LiveProgress

SMALL: dict[str, Any] = {
    "concepts": 20,
    "detector_epochs": 20,
    "detector_learning_rate": 0.01,
    "detector_dropout": 0.0,
    "batch_photos": 4,
    "folds": 2,
    "precision": 0.3,
    "min_count": 1,
    "min_ngrams": 1,
    "triggers": 3,
    "language_epochs": 20,
    "batch_words": 20,
    "similarity_epochs": 1,
    "similarity_size": 8,
    "averaging": 0.5,
    "patience": 20,
    "beam": 8,
    "candidates": 6,
    "cover": 1,
    "mixed_precision": "off",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Data]:
    folder = tmp_path_factory.mktemp("compose")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAROUSEL_CACHE", str(folder / "cache"))
        yield Data(folder)


def run(data: Data, name: str, *, resume: bool = False, **options: Any) -> Pipeline:
    source = Source(data.captions, images=data.photos)
    with LiveProgress() as live:
        return train(source, ComposeConfig(**{**SMALL, **options}), RunFolder(data.folder / name), live, resume=resume)


@pytest.fixture(scope="module")
def trained(data: Data) -> Pipeline:
    return run(data, "run")


def file(data: Data) -> Path:
    return data.folder / "run" / "model.safetensors"


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_it_learns_to_name_colours(data: Data, trained: Pipeline) -> None:
    for colour in COLOURS:
        [best] = caption(data.photos / f"{colour}3.png", model=trained)
        assert colour in best.text.split() and best.novel == (best.text != f"a {colour} picture")
        assert best.logprob < 0 and all(0 < chance <= 1 for _, chance in best.words)
        several = caption(data.photos / f"{colour}3.png", model=file(data), n=3)
        assert len(several) == 3 and several[0].text == best.text


def test_its_candidates_say_what_was_detected(data: Data, trained: Pipeline) -> None:
    there = torch.full((1, len(trained.concepts.words)), -6.0)
    there[0, trained.concepts.words.index("green")] = 0.0
    [found] = trained.candidates(there)
    assert "green" in found[0].words and found[0].covered >= 1
    assert [one.rank for one in found] == list(range(len(found)))
    assert trained.rows(found, torch.zeros(1712), there[0]).shape == (len(found), len(trained.weights))


def test_scores_of_the_test_photos(data: Data, trained: Pipeline) -> None:
    found = evaluate(data.captions, data.photos, model=file(data))
    assert all(colour in found.captions[f"{colour}3.png"].split() for colour in COLOURS)
    assert found.scores.novel is not None and found.scores.novel.value == 0.0


def test_sentences_without_photos_teach_words(data: Data, trained: Pipeline, tmp_path: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text("A red barn.\n\na yellow barn\n")
    options = {"sentences": str(more), "language_epochs": 2, "detector_epochs": 1}
    model = run(data, "more", **options)
    assert "barn" in model.vocabulary and "barn" not in trained.vocabulary
    assert "barn" not in model.concepts.words and model.facts["sentences_alone"] == 2
    more.write_text("a red barn")
    with pytest.raises(ConfigError, match="data is not what the run began with"):
        run(data, "more", resume=True, **options)


def test_what_a_sentence_without_a_photo_borrows() -> None:
    words, captions = ["dog", "cat", "grass"], [[["dog", "grass"]], [["cat"]]]
    there = torch.tensor([[-0.1, -3.0, -0.2], [-4.0, -0.3, -5.0]])
    found = borrowed([["dog", "grass"], ["cat", "grass"]], captions, there, words, torch.Generator().manual_seed(0))
    assert torch.allclose(found, torch.tensor([[-0.1, -3.0, -0.2], [-4.0, -0.3, -0.2]]))


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_between_its_parts(data: Data, trained: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: Any) -> Any:
        raise Interrupted("stopped")

    whole = compose._language
    monkeypatch.setattr(compose, "_language", stopped)
    with pytest.raises(Interrupted):
        run(data, "parts")
    part = data.folder / "parts" / "parts" / "concepts" / "model.safetensors"
    before = part.stat().st_mtime_ns
    assert not (data.folder / "parts" / "model.safetensors").exists()
    monkeypatch.setattr(compose, "_language", whole)
    run(data, "parts", resume=True)
    assert part.stat().st_mtime_ns == before
    assert (data.folder / "parts" / "model.safetensors").read_bytes() == file(data).read_bytes()


def test_a_run_is_not_overwritten(data: Data, trained: Pipeline) -> None:
    with pytest.raises(ConfigError, match="holds a run already"):
        run(data, "run")
    with pytest.raises(ConfigError, match="nothing to resume"):
        run(data, "none", resume=True)
    with pytest.raises(ConfigError, match=r"is not what the run began with"):
        run(data, "run", resume=True, ridge=0.2)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_it_comes_back_from_its_file(data: Data, trained: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "model"
    trained.save(path)
    again = load_captioner(path)
    assert isinstance(again, Pipeline) and again.config == trained.config
    photos = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert again.caption(photos, Decoding(n=3)) == trained.caption(photos, Decoding(n=3))
    again.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def sceptic(threshold: float) -> Judge:
    """Sure of captions whose words were seen, whatever their likelihood."""
    weights, size = np.eye(len(FEATURES))[FEATURES.index("mean_chance")], len(Known._fields)
    sure = Confidence(np.zeros(size), np.ones(size), np.eye(size)[Known._fields.index("mean_chance")], np.arange(3.0))
    return Judge(None, weights, sure, threshold, beam=8)


def test_it_can_learn_to_judge(data: Data, trained: Pipeline, tmp_path: Path) -> None:
    photo = data.photos / "red3.png"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained, "judge", sceptic(0.0))
        found = caption(photo, model=trained, n=3)
        trained.save(tmp_path / "judged")
        patch.setattr(trained, "judge", sceptic(1.0))
        hedged = caption(photo, model=trained)
        plain = caption(photo, model=trained, judged=False)
    sure = [one.confidence for one in found]
    assert None not in sure and sure == sorted(sure, reverse=True) and found[0].unsure_of is None
    assert hedged[0].unsure_of == found[0].text and hedged[0].text.startswith("I am not sure")
    assert plain[0].confidence is None
    assert caption(photo, model=tmp_path / "judged", n=3) == found


def test_it_is_calibrated_on_the_photos_for_validation(data: Data, trained: Pipeline) -> None:
    with pytest.raises(DataError, match="confidence: too few captions to learn from"):
        calibrate(file(data), data.captions, data.photos)


def test_a_damaged_file_is_refused_in_a_line(data: Data, trained: Pipeline, tmp_path: Path) -> None:
    whole, path = file(data).read_bytes(), tmp_path / "model"
    for damaged in (whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError) as caught:
            Pipeline.load(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    tensors, facts = read_model_file(file(data), "compose")
    for other_tensors, other_facts in (
        ({n: t for n, t in tensors.items() if n != "thresholds"}, {}),
        ({**tensors, "weights": torch.zeros(3)}, {}),
        ({n: t for n, t in tensors.items() if n != "ngrams.0"}, {}),
        (tensors, {"words": ["a"]}),
        (tensors, {"vocabulary": facts["vocabulary"][:-1]}),
        (tensors, {"config": {**facts["config"], "triggers": 2}}),
    ):
        write_model_file(path, other_tensors, {**facts, **other_facts})
        with pytest.raises(ModelFileError, match="its parts do not fit together"):
            Pipeline.load(path)


# --- as a user types it -----------------------------------------------------------------------------------------------


def test_trained_and_used_from_the_command_line(data: Data, capsys: pytest.CaptureFixture[str]) -> None:
    folder = data.folder / "typed"
    settings = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    arguments = ["train", str(data.captions), "--images", str(data.photos), "--task", "compose", "--run", str(folder)]
    assert main([*arguments, *settings, "--set", "language_epochs=5"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{folder}/model.safetensors", f"{folder}/report.html"]
    model, photo = str(folder / "model.safetensors"), str(data.photos / "red3.png")
    assert main(["caption", photo, "--model", model, "--n", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == photo and len(found["captions"]) == 2
    page = data.folder / "page.html"
    assert main(["caption", photo, "--model", model, "--report", str(page)]) == 0
    assert "Concepts, candidates" in page.read_text()
    capsys.readouterr()
    assert main(["caption", photo, "--model", model, "--sample"]) == 2
    assert "does not sample" in capsys.readouterr().err
    assert main(["evaluate", str(data.captions), "--images", str(data.photos), "--model", model, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == len(COLOURS)
    assert main([*arguments, "--from", model]) == 2
    assert "--from: not of a model made of parts" in capsys.readouterr().err


def test_a_photo_among_others_that_cannot_be_read(data: Data, trained: Pipeline, tmp_path: Path) -> None:
    broken, good = tmp_path / "broken.jpg", data.photos / "blue3.png"
    broken.write_text("not a photo")
    first, second = caption_photos(trained, [broken, good])
    assert first.error is not None and "blue" in second.captions[0].text


def test_schools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(load_captioner(weights_of("nic")), Captioner) and weights_of("best").exists()
    monkeypatch.setitem(SCHOOLS, "attend", tmp_path / "none")
    with pytest.raises(ConfigError, match=r"school: no weights of it ship \(got attend\); nic"):
        weights_of("attend")
    assert main(["caption", "photo.jpg", "--school", "attned"]) == 2
    assert "did you mean 'attend'?" in capsys.readouterr().err
    assert main(["caption", "photo.jpg", "--school", "nic", "--model", "m"]) == 2
    assert "--school: has no meaning with --model" in capsys.readouterr().err
