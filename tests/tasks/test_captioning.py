"""From captions and photos to a captioner that names what it sees: a few coloured pictures, end to end."""

from __future__ import annotations

import copy
import json
import signal
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from coloured_photos import COLOURS, Data

from carousel.captioning import Captioner, CaptioningConfig, Decoding
from carousel.captioning.training import check_teacher
from carousel.data.vocabulary import Vocabulary
from carousel.errors import ConfigError, DataError, Interrupted, ModelFileError, PhotoError
from carousel.tasks.captioning import caption, evaluate
from carousel.training import Progress, RunFolder
from carousel.training.progress import LiveProgress


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Data]:
    folder = tmp_path_factory.mktemp("colours")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAROUSEL_CACHE", str(folder / "cache"))
        yield Data(folder)


@pytest.fixture(scope="module")
def trained(data: Data) -> Captioner:
    return data.train("run")


def log(data: Data, run: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (data.folder / run / "log.jsonl").read_text().splitlines()]


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_it_learns_to_name_colours(data: Data, trained: Captioner) -> None:
    losses = [record["loss"] for record in log(data, "run")]
    assert losses[-1] < losses[0] / 2
    for colour in COLOURS:
        [best] = caption(data.photos / f"{colour}3.png", model=trained)
        assert best.text == f"a {colour} picture" and not best.novel
        both = caption(data.photos / f"{colour}3.png", model=data.folder / "run" / "model.safetensors", n=2)
        assert len(both) == 2 and both[0].text == best.text


def test_everything_is_in_the_run_folder(data: Data, trained: Captioner) -> None:
    run = RunFolder(data.folder / "run")
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.toml",
        "last.ckpt.safetensors",
        "log.jsonl",
        "model.safetensors",
        "report.html",
    ]
    settings = tomllib.loads(run.config.read_text())
    assert CaptioningConfig(**settings).hidden_size == 32  # it can be given back with --config
    records = log(data, "run")
    assert [record["epoch"] for record in records] == list(range(1, 21))
    assert all({"loss", "perplexity", "cider", "seconds"} <= record.keys() for record in records)
    best = max(records, key=lambda record: record["cider"])
    assert trained.facts["validation"] == {name: best[name] for name in ("perplexity", "cider", "distinct")}
    assert records[-1]["perplexity"] < 2.0
    assert "<svg" in run.report.read_text() and "Training of run" in run.report.read_text()


def test_scores_of_the_test_photos(data: Data, trained: Captioner) -> None:
    found = evaluate(data.captions, data.photos, model=trained)
    assert found.captions.keys() == {f"{colour}3.png" for colour in COLOURS}
    assert found.scores.bleu_1.value == pytest.approx(1.0) and found.scores.rouge_l.value == pytest.approx(1.0)
    worse = evaluate(data.captions, data.photos, model=trained, decoding=Decoding(sample=True, temperature=50.0))
    assert worse.scores.bleu_1.value < 1.0
    assert found.seconds_reading > 0 and found.seconds_decoding > 0


def test_a_split_without_photos(data: Data, trained: Captioner, tmp_path: Path) -> None:
    lines = [line for line in data.captions.read_text().splitlines() if '"test"' not in line]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"no photos in the test split \(got 12 photos in all\)"):
        evaluate(tmp_path / "captions.jsonl", data.photos, model=trained)


def test_one_photo_that_cannot_be_read(data: Data, trained: Captioner, tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="no such file"):
        caption(tmp_path / "none.png", model=trained)


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_resumed_to_itself(data: Data, trained: Captioner) -> None:
    run = RunFolder(data.folder / "run")
    files = (run.model, run.log, run.config)
    before = [file.read_bytes() for file in files]
    again = data.train("run", resume=True)
    assert [file.read_bytes() for file in files] == before
    assert again.config == trained.config


def test_a_run_is_not_overwritten(data: Data, trained: Captioner) -> None:
    before = (data.folder / "run" / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="holds a run already"):
        data.train("run")
    with pytest.raises(ConfigError, match=r"cell is not what the run began with \(got 'gru', then 'lstm'\)"):
        data.train("run", resume=True, cell="gru")
    assert (data.folder / "run" / "model.safetensors").read_bytes() == before


class Stopping(LiveProgress):
    def stepped(self, progress: Progress) -> None:
        super().stepped(progress)
        if (progress.epoch, progress.step) == (2, 1):
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    "options",
    [
        {"finetune_from": 11, "dropout": 0.3, "word_dropout": 0.2, "scheduled_sampling": 0.5, "tied": True},
        {"loss": "self-critical", "image_at": "merge", "layers": 2, "samples": 2, "candidates": "samples"},
        {"loss": "self-critical", "decoder": "adaptive", "dropout": 0.3, "object_penalty": 1.0},
    ],
    ids=["finetuned", "self-critical", "adaptive"],
)
def test_stopped_and_resumed_is_the_same(data: Data, tmp_path: Path, options: Mapping[str, Any]) -> None:
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    options = {**options, "epochs": 2}
    data.train(whole, **options)
    with pytest.raises(Interrupted):
        data.train(parts, progress=Stopping(), **options)
    data.train(parts, resume=True, **options)
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "parts/model.safetensors").read_bytes()
    without = [[{**record, "seconds": 0} for record in log(data, run)] for run in (whole, parts)]
    assert without[0] == without[1]


def test_changed_data_is_not_resumed(data: Data, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    data.train(run, epochs=1)
    text = data.captions.read_text()
    try:
        data.captions.write_text(text.replace("A red picture.", "A red red picture."))
        with pytest.raises(ConfigError, match="data is not what the run began with"):
            data.train(run, epochs=1, resume=True)
    finally:
        data.captions.write_text(text)


def test_words_that_are_all_rare(data: Data, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no word occurs 99 times .*min_count"):
        data.train(str(tmp_path / "run"), min_count=99)


def test_going_on_with_a_trained_model(data: Data, trained: Captioner, tmp_path: Path) -> None:
    start = data.folder / "run" / "model.safetensors"
    options: dict[str, Any] = {"start_from": start, "loss": "self-critical", "epochs": 1, "learning_rate": 1e-6}
    better = data.train(str(tmp_path / "better"), **options)
    assert caption(data.photos / "red3.png", model=better)[0].text == "a red picture"
    with pytest.raises(ConfigError, match="start_from: a model of another shape"):
        data.train(str(tmp_path / "other"), **options, hidden_size=31)


@pytest.mark.parametrize("decoder", ["adaptive", "attend"])
def test_a_decoder_that_looks_learns_colours_and_can_start_from_one_that_does_not(
    data: Data, trained: Captioner, tmp_path: Path, decoder: str
) -> None:
    run = data.folder / "run" / "model.safetensors"
    start = {"start_from": run, "epochs": 2, "learning_rate": 1e-3} if decoder == "adaptive" else {}
    looks = data.train(str(tmp_path / "looks"), decoder=decoder, attention_size=8, **start)
    losses = [record["loss"] for record in log(data, str(tmp_path / "looks"))]
    assert losses[0] < 0.5 if start else losses[-1] < losses[0] / 2
    for colour in COLOURS:
        assert caption(data.photos / f"{colour}3.png", model=looks)[0].text == f"a {colour} picture"
    found = evaluate(data.captions, data.photos, model=tmp_path / "looks" / "model.safetensors")
    assert found.scores.bleu_1.value == pytest.approx(1.0)


def test_a_trained_encoder_is_not_taken_for_a_frozen_one(data: Data, tmp_path: Path) -> None:
    data.train(str(tmp_path / "tuned"), finetune_from=11, epochs=1)
    with pytest.raises(ConfigError, match=r"start_from: its photo encoder was trained from block 11 on"):
        data.train(str(tmp_path / "frozen"), start_from=tmp_path / "tuned" / "model.safetensors", epochs=1)


def test_a_small_one_learns_from_a_large_one(data: Data, trained: Captioner, tmp_path: Path) -> None:
    large = str(data.folder / "run" / "model.safetensors")
    options: dict[str, Any] = {"teacher": large, "teacher_share": 1.0, "hidden_size": 24}
    small = data.train(str(tmp_path / "small"), **options)
    for colour in COLOURS:
        assert caption(data.photos / f"{colour}3.png", model=small)[0].text == f"a {colour} picture"
    assert small.vocabulary.to_list() == trained.vocabulary.to_list()
    assert Captioner.load(tmp_path / "small" / "model.safetensors").config.hidden_size == 24  # without its teacher


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"finetune_from": 11}, r"teacher: another finetune_from \(got 16\); 11, this one's; the same for both"),
        ({"predict_start": True}, r"teacher: another predict_start \(got False\); True"),
        ({"loss": "self-critical"}, "none with loss = self-critical"),
    ],
)
def test_a_teacher_that_does_not_fit(
    data: Data, trained: Captioner, tmp_path: Path, options: dict[str, Any], what: str
) -> None:
    with pytest.raises((ConfigError, ValueError), match=what):
        data.train(str(tmp_path / "run"), teacher=str(data.folder / "run" / "model.safetensors"), **options)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_teacher_that_is_not_there(data: Data, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"nobody\.safetensors"):
        data.train(str(tmp_path / "run"), teacher=str(tmp_path / "nobody.safetensors"))


def test_a_teacher_of_other_words(data: Data, trained: Captioner) -> None:
    other = copy.copy(trained)
    other.vocabulary = Vocabulary.build([["another", "word"]], 1)
    with pytest.raises(ConfigError, match="teacher: another vocabulary than that of the model to begin with"):
        check_teacher(other, trained.config, trained)
