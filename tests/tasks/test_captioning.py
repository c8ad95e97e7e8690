"""From captions and photos to a captioner that names what it sees: a few coloured pictures, end to end."""

from __future__ import annotations

import json
import signal
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from carousel.captioning import Captioner, CaptioningConfig, Decoding, PhotoEncoder
from carousel.captioning.pictures import load_pictures, training_set
from carousel.captioning.training import CaptioningTask
from carousel.data.vocabulary import START, STOP
from carousel.errors import ConfigError, DataError, Interrupted, PhotoError
from carousel.tasks.captioning import caption, evaluate, train
from carousel.training import Progress, RunFolder, epoch_order
from carousel.training.progress import LiveProgress

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (30, 40, 220), "yellow": (240, 230, 40)}
SPLITS = ("train", "train", "val", "test")
CONFIG: dict[str, Any] = {
    "min_count": 1,
    "hidden_size": 32,
    "embedding_size": 32,
    "dropout": 0.0,
    "feature_dropout": 0.0,
    "label_smoothing": 0.0,
    "learning_rate": 0.05,
    "averaging": 0.5,
    "epochs": 20,
    "patience": 20,
    "batch_photos": 4,
    "max_length": 6,
    "mixed_precision": "off",
}


class Data:
    def __init__(self, folder: Path) -> None:
        self.folder, self.photos, self.captions = folder, folder / "photos", folder / "captions.jsonl"
        self.photos.mkdir()
        lines = []
        for colour, rgb in COLOURS.items():
            for i, split in enumerate(SPLITS):
                file = f"{colour}{i}.png"
                Image.new("RGB", (40, 30), tuple(max(0, value - 8 * i) for value in rgb)).save(self.photos / file)
                captions = [f"A {colour} picture.", f"a {colour} picture"]
                lines.append(json.dumps({"file": file, "captions": captions, "split": split}))
        self.captions.write_text("\n".join(lines))

    def train(
        self, run: str, *, resume: bool = False, progress: LiveProgress | None = None, **options: Any
    ) -> Captioner:
        start_from = options.pop("start_from", None)
        config = CaptioningConfig(**{**CONFIG, **options})
        return train(
            self.captions,
            self.photos,
            run=self.folder / run,
            resume=resume,
            start_from=start_from,
            config=config,
            progress=progress,
        )

    def task(self, **options: Any) -> CaptioningTask:
        config = CaptioningConfig(**{**CONFIG, **options})
        encoder = PhotoEncoder(config.finetune_from)
        with LiveProgress() as live:
            found = training_set(self.captions, self.photos, lists=None, seed=0, tell=live.tell)
            seen, held = (
                load_pictures(found.part(split), self.photos, encoder, mirror=config.flips, live=live)
                for split in ("train", "val")
            )
        return CaptioningTask(config, encoder, seen, held, self.folder / "unused")


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
        {"loss": "self-critical", "image_at": "merge", "layers": 2, "dropout": 0.3, "samples": 2},
    ],
    ids=["finetuned", "self-critical"],
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


def test_a_trained_encoder_is_not_taken_for_a_frozen_one(data: Data, tmp_path: Path) -> None:
    data.train(str(tmp_path / "tuned"), finetune_from=11, epochs=1)
    with pytest.raises(ConfigError, match=r"start_from: its photo encoder was trained from block 11 on"):
        data.train(str(tmp_path / "frozen"), start_from=tmp_path / "tuned" / "model.safetensors", epochs=1)


# --- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predict_start", [False, True])
def test_the_loss_is_the_sum_over_words(data: Data, predict_start: bool) -> None:
    task = data.task(predict_start=predict_start, flips=False)
    found = task.loss(epoch=0, step=1)
    total, words = 0.0, 0
    for photo in epoch_order(8, 0, 0)[4:8]:
        features = task.encoder.upper(task.train.lower[photo : photo + 1].float())
        for sentence in task.encoded[photo]:
            if predict_start:
                hidden, _ = task.nic.decoder.step(task.nic.embed_image(features))
                total -= task.nic.output(hidden).log_softmax(1)[0, START].item()
                words += 1
            state = task.nic.start(features)
            for last, following in zip([START, *sentence], [*sentence, STOP], strict=True):
                logits, state = task.nic.step(torch.tensor([last]), state)
                total -= logits.log_softmax(1)[0, following].item()
                words += 1
    assert found.words == words and found.total == pytest.approx(total, rel=1e-5)
    assert found.mean.item() == pytest.approx(total / words, rel=1e-5)


def test_label_smoothing_is_trained_with_and_not_reported(data: Data) -> None:
    plain, smooth = data.task().loss(0, 0), data.task(label_smoothing=0.2).loss(0, 0)
    assert smooth.total == pytest.approx(plain.total) and smooth.mean.item() != pytest.approx(plain.mean.item())


@pytest.mark.parametrize("predict_start", [False, True])
def test_perplexity_counts_words_and_stop(data: Data, predict_start: bool) -> None:
    task = data.task(predict_start=predict_start)
    with torch.no_grad():
        task.nic.output.weight.zero_()
        task.nic.output.bias.zero_()
        task.nic.eval()
        assert task.validate()["perplexity"] == pytest.approx(len(task.vocabulary), rel=1e-5)


@pytest.mark.parametrize("predict_start", [False, True])
def test_self_critical_gradients_favour_what_scores(data: Data, predict_start: bool) -> None:
    """With rewards of 1 for a sentence with "red" and 0 else, a step makes "red" likelier."""
    task = data.task(loss="self-critical", predict_start=predict_start, samples=20, batch_photos=8)

    class Red:
        def scores(self, texts: list[str], photos: list[int]) -> list[float]:
            assert photos == [photo for photo in photos[::20] for _ in range(20)]
            return [float("red" in text) for text in texts]

    task.__dict__["reward"] = Red()
    before = task.nic.output.bias.detach().clone()
    optimiser = torch.optim.SGD(task.nic.parameters(), lr=1.0)
    found = task.loss(0, 0)
    found.mean.backward()
    optimiser.step()
    [red] = task.vocabulary.encode(["red"])
    moved = task.nic.output.bias - before
    assert moved.argmax() == red and moved[red] > 0


def test_mirrored_photos_are_half_and_of_their_own_photo(data: Data) -> None:
    task = data.task()
    assert task.train.mirrored is not None
    lower, mirrored = torch.arange(8.0)[:, None], -torch.arange(8.0)[:, None]
    task.train = task.train._replace(lower=lower, mirrored=mirrored)
    flipped = [task._maybe_mirrored([3, 1, 7], 0, step)[:, 0].tolist() for step in range(200)]
    assert all([abs(value) for value in row] == [3, 1, 7] for row in flipped)
    assert abs(sum(value < 0 for row in flipped for value in row) / 600 - 0.5) < 0.08
    assert torch.equal(lower[:, 0], torch.arange(8.0))  # the kept ones are not overwritten
