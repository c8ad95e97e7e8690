"""The three verbs of captioning, typed as a user types them: train, evaluate, caption."""

from __future__ import annotations

import io
import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from carousel.captioning import NIC
from carousel.captioning.confidence import GRADES
from carousel.cli import main

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 230), "white": (250, 250, 250)}
LISTED = "carousel train --settings lists them"
SMALL = ["hidden_size=16", "embedding_size=16", "min_count=1", "epochs=2", "batch_photos=4", "max_length=6"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, captions.csv (with a BOM) and a finished run."""
    folder = tmp_path_factory.mktemp("captioning")
    (folder / "photos").mkdir()
    lines = ["image,caption,split"]
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        for colour, rgb in COLOURS.items():
            for i in range(count):
                name = f"{split}-{colour}-{i}.png"
                Image.new("RGB", (40 + i, 30), rgb).save(folder / "photos" / name)
                lines.append(f'{name},"A {colour} picture, nothing else .",{split}')
    (folder / "captions.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    cache = os.environ.get("CAROUSEL_CACHE")
    os.environ["CAROUSEL_CACHE"] = str(folder / "cache")
    try:
        assert main(train_arguments(folder)) == 0
    finally:
        del os.environ["CAROUSEL_CACHE"]
        if cache is not None:
            os.environ["CAROUSEL_CACHE"] = cache
    return folder


def train_arguments(folder: Path, *more: str) -> list[str]:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    return [
        "train",
        str(folder / "captions.csv"),
        "--images",
        str(folder / "photos"),
        "--run",
        str(folder / "run"),
        *settings,
        *more,
    ]


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_train_leaves_a_run_folder(trained: Path) -> None:
    names = {path.name for path in (trained / "run").iterdir()}
    assert names == {"model.safetensors", "last.ckpt.safetensors", "config.toml", "log.jsonl", "report.html"}
    assert len((trained / "run/log.jsonl").read_text().splitlines()) == 2


def test_a_similarity_model_is_trained_and_says_how_well_it_finds(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAROUSEL_CACHE", str(trained / "cache"))
    data, photos, run = str(trained / "captions.csv"), str(trained / "photos"), str(trained / "similar")
    sizes = [word for setting in ("size=8", "maps=8", "batch_size=4", "epochs=2") for word in ("--set", setting)]
    assert main(["train", data, "--images", photos, "--task", "similarity", "--run", run, *sizes]) == 0
    capsys.readouterr()
    assert main(["evaluate", data, "--images", photos, "--model", run]) == 0
    first, *scores = capsys.readouterr().out.splitlines()
    assert first.startswith("4 test photos, 4 captions; median rank: caption for a photo ")
    assert [line.split(" in %")[0] for line in scores] == [
        f"{way}: R@{k}" for way in ("caption for a photo", "photo for a caption") for k in (1, 10)
    ]


def test_a_calibrated_captioner_says_how_sure_it_is(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAROUSEL_CACHE", str(trained / "cache"))
    data, photos, model = trained / "more.csv", str(trained / "more"), str(trained / "judged.safetensors")
    (trained / "more").mkdir()
    lines = ["image,caption,split"]
    for colour, rgb in COLOURS.items():
        Image.new("RGB", (40, 30), rgb).save(f"{photos}/{colour}.png")
        for k in range(5):
            name = f"more-{colour}-{k}.png"
            Image.new("RGB", (40 + k, 30), rgb).save(f"{photos}/{name}")
            assert main(["caption", f"{photos}/{name}", "--model", f"{trained}/run/model.safetensors", "--json"]) == 0
            heard = lines_of(capsys)[0]["captions"][0]["text"]
            said = heard if k % 2 else "Two dogs run"  # it is right about some
            lines += [f"{name},{said},val", f"{colour}.png,A {colour} thing,train"]
    data.write_text("\n".join(lines))
    sizes = [word for setting in ("size=8", "maps=8", "batch_size=4", "epochs=2") for word in ("--set", setting)]
    arguments = ["--images", photos, "--beam", "3", "--run", str(trained / "sim"), "--output", model, *sizes]
    assert main(["calibrate", str(trained / "run"), str(data), *arguments]) == 0
    assert capsys.readouterr().out.startswith("validation photos left out in turn: AUROC ")
    photo = f"{photos}/red.png"
    assert main(["caption", photo, "--model", model, "--json", "--no-hedge"]) == 0
    found = lines_of(capsys)[0]["captions"][0]
    assert 0 <= found["confidence"] <= 1 and found["grade"] in GRADES and "unsure_of" not in found
    assert main(["caption", photo, "--model", model, "--n", "2"]) == 0
    assert all("% sure" in line for line in capsys.readouterr().out.splitlines()[1:])
    for without in ("--unjudged", "--sample"):
        assert main(["caption", photo, "--model", model, without]) == 0
        assert "sure" not in capsys.readouterr().out
    assert main(["evaluate", str(data), "--images", photos, "--model", model, "--split", "val"]) == 0
    shown = capsys.readouterr().out
    assert "confidence: AUROC" in shown and "mean, from best to worst grade" in shown


def test_a_learning_rate_is_looked_for(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAROUSEL_CACHE", str(trained / "cache"))
    more = ["--lr-find", "--set", "optimiser=nadam", "--set", "clipping=adaptive", "--set", "initialisation=orthogonal"]
    arguments = [*train_arguments(trained, *more), "--run", str(trained / "found")]
    assert main(arguments) == 0
    assert (trained / "found" / "lr-find.png").read_bytes()[1:4] == b"PNG"
    settings = tomllib.loads((trained / "found" / "config.toml").read_text())
    assert 1e-7 <= settings["learning_rate"] <= 0.1 and settings["learning_rate"] != 2e-3
    assert main([*arguments, "--resume"]) == 0  # with the rate that was found


def test_a_loss_that_is_not_finite_is_one_line_with_its_photos(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAROUSEL_CACHE", str(trained / "cache"))
    plain, calls = NIC.read, list[int]()

    def spoilt(self: NIC, *arguments: Any) -> Any:
        calls.append(1)
        found = plain(self, *arguments)
        return found._replace(logits=found.logits * (float("nan") if len(calls) == 2 else 1))

    monkeypatch.setattr(NIC, "read", spoilt)
    assert main([*train_arguments(trained), "--run", str(trained / "diverged")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "the loss is not finite (got nan in epoch 1, step 2; first bad gradient: none) on train-" in last
    assert ".png; training stopped before the update, the last checkpoint stands" in last
    assert (trained / "diverged" / "last.ckpt.safetensors").exists()


def test_a_run_is_not_overwritten(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "run/model.safetensors").read_bytes()
    assert main(train_arguments(trained)) == 2
    assert "holds a run already" in capsys.readouterr().err.splitlines()[-1]
    assert (trained / "run/model.safetensors").read_bytes() == before


def test_evaluate_prints_every_score(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "evaluate",
        str(trained / "captions.csv"),
        "--images",
        str(trained / "photos"),
        "--model",
        str(trained / "run/model.safetensors"),
    ]
    assert main([*arguments, "--captions", str(trained / "found.jsonl")]) == 0
    table = capsys.readouterr().out
    for name in (
        "BLEU-1",
        "BLEU-4",
        "ROUGE-L",
        "CIDEr-D",
        "hallucinated",
        "not in the training set",
        "distinct",
        "ms a photo",
    ):
        assert name in table
    assert len((trained / "found.jsonl").read_text().splitlines()) == len(COLOURS)
    assert main([*arguments, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["images"] == len(COLOURS)
    assert 0 <= facts["bleu_1"]["low"] <= facts["bleu_1"]["value"] <= facts["bleu_1"]["high"] <= 1


def test_evaluate_names_the_splits(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained / "captions.csv"), "--images", str(trained / "photos"), "--split", "dev"]) == 2
    assert capsys.readouterr().err.strip() == "--split: no such split (got dev); train, val or test; choose one"


def caption(folder: Path, *arguments: str) -> int:
    return main(["caption", *arguments, "--model", str(folder / "run/model.safetensors")])


def test_caption_lists_the_best_first(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = str(trained / "photos/test-red-0.png")
    assert caption(trained, photo, "--n", "3", "--json") == 0
    (found,) = lines_of(capsys)
    assert found["file"] == photo
    logprobs = [line["logprob"] for line in found["captions"]]
    assert logprobs == sorted(logprobs, reverse=True)
    assert len({line["text"] for line in found["captions"]}) == len(logprobs) == 3
    for line in found["captions"]:
        assert set(line) == {"text", "logprob", "novel", "words"}
        assert " ".join(word for word, _ in line["words"]) == line["text"]
        assert all(0 < probability <= 1 for _, probability in line["words"])


def test_a_broken_photo_does_not_stop_the_others(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = trained / "broken.jpg"
    broken.write_text("not a photo")
    good = str(trained / "photos/test-blue-0.png")
    assert caption(trained, str(broken), good, "--json") == 2
    first, second = lines_of(capsys)
    assert set(first) == {"file", "error"} and "\n" not in first["error"]
    assert second["captions"]
    assert caption(trained, good, str(broken)) == 2
    said = capsys.readouterr()
    assert said.err.splitlines() == [first["error"]]
    assert good in said.out


def test_paths_come_from_standard_input(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [str(path) for path in sorted((trained / "photos").glob("test-*"))]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*photos, "", ""])))
    assert caption(trained, "-", "--json") == 0
    assert [found["file"] for found in lines_of(capsys)] == photos


def test_a_folder_stands_for_its_photos(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert caption(trained, str(trained / "photos"), "--json") == 0
    assert len(lines_of(capsys)) == 4 * len(COLOURS)


def test_sampling_follows_its_seed(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = str(trained / "photos/test-red-0.png")
    found = []
    for seed in ("1", "1", "2"):
        assert caption(trained, photo, "--sample", "--n", "4", "--temperature", "2", "--seed", seed, "--json") == 0
        found.append(lines_of(capsys))
    assert found[0] == found[1] != found[2]


def test_sampling_and_beam_exclude_each_other(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert caption(trained, str(trained / "photos"), "--sample", "--beam", "3") == 2
    assert capsys.readouterr().err.startswith("--beam: has no meaning with --sample")


def test_an_unknown_school(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caption", "photo.jpg", "--school", "al"]) == 2
    wanted = "school: unknown (got 'al'); nic, attend, compose, best, all; did you mean 'all'?\n"
    assert capsys.readouterr().err == wanted


def test_the_page_shows_every_photo(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = trained / "pages/page.html"
    assert caption(trained, str(trained / "photos"), "--report", str(page)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(page)
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") == 4 * len(COLOURS)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["hiden_size=3"], "hiden_size: no such setting (got 3); did you mean hidden_size?"),
        (
            ["cell=lst"],
            "cell: unknown (got 'lst'); lstm, slstm, mlstm and all that `carousel cells` lists; did you mean 'lstm'?",
        ),
        (["dropout=2"], f"dropout: not allowed (got 2); less than 1; {LISTED}"),
        (["finetune_from=13"], f"finetune_from: not allowed (got 13); 0 to 11, or 16 for none; {LISTED}"),
        (["image_at=top"], f"image_at: not allowed (got 'top'); 'init', 'pre', 'par' or 'merge'; {LISTED}"),
        (["epochs"], "--set epochs: not a setting (got no =); NAME=VALUE; write it so"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_settings_are_one_line(
    settings: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for setting in settings for word in ("--set", setting)]
    assert main(["train", "captions.csv", "--images", "photos", "--run", str(tmp_path / "run"), *words]) == 2
    assert capsys.readouterr().err.splitlines() == [line]
    assert not (tmp_path / "run").exists()


def test_all_wrong_settings_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.toml").write_text("epoch = 3\ndropout = 7\n")
    assert main(["train", "x.csv", "--images", "y", "--config", str(tmp_path / "c.toml")]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert all(line.startswith(str(tmp_path / "c.toml")) for line in told)


def test_the_settings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--settings"]) == 0
    assert "scheduled_sampling" in capsys.readouterr().out


def test_the_model_that_ships_sees_dogs(capsys: pytest.CaptureFixture[str]) -> None:
    photo = Path(__file__).parents[2] / "examples/photos/dogs.jpg"
    assert main(["caption", str(photo)]) == 0
    assert "dog" in capsys.readouterr().out.splitlines()[1]
