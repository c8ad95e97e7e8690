"""``carousel inspect``, typed as a user types it: on a model that ships, and on a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from carousel.captioning.schools import weights_of
from carousel.cli import main
from carousel.diagnostics import gradient_flow
from carousel.tasks.captioning import inspection
from carousel.training import RunFolder, write_model_file

NIC = weights_of("nic")
PHOTOS = Path(__file__).parents[2] / "examples/photos"
CAPTIONS = {
    "dogs.jpg": "two dogs are running through the snow",
    "stream.jpg": "a man is standing in a stream",
    "mountains.jpg": "a person is standing on a mountain in the snow",
}


@pytest.fixture
def captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAROUSEL_CACHE", str(tmp_path / "cache"))
    lines = [json.dumps({"image": name, "caption": text, "split": "test"}) for name, text in CAPTIONS.items()]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "captions.jsonl"


def test_a_run_is_looked_into(captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.model.write_bytes(NIC.read_bytes())
    run.write_log([{"epoch": 1, "clipped": 0.5}, {"epoch": 2, "clipped": 0.125}])
    assert main(["inspect", str(run.path), "--data", str(captions), "--images", str(PHOTOS)]) == 0
    page = tmp_path / "run/inspection/inspection.html"
    assert capsys.readouterr().out.splitlines()[-1] == str(page)
    html = page.read_text(encoding="utf-8")
    assert "clipped in 50% of the steps of epoch 1 and 12% of epoch 2" in html
    assert "loss is that of each caption&#39;s last word" in html
    assert html.count(">(photo)</span>") == len(CAPTIONS) and ">running</span>" in html
    assert {"gradients.png", "gates.png", "spectrum.png"} <= {path.name for path in page.parent.iterdir()}


def test_the_loss_is_that_of_each_last_word(captions: Path) -> None:
    shown = inspection(NIC, captions, images=PHOTOS)
    features, _, lengths = shown.batch
    assert shown.tokens is not None and [len(line) - 1 for line in shown.tokens] == lengths.tolist()  # (photo) is extra
    with torch.no_grad():
        expected = 0.0
        from carousel.captioning import Captioner

        captioner = Captioner.load(NIC)
        texts = [CAPTIONS[name].split() for name in sorted(CAPTIONS)]
        given = sorted(range(3), key=lambda b: list(CAPTIONS)[b])
        for b, text in zip(given, texts, strict=True):
            ids = captioner.vocabulary.encode(text)
            state = captioner.members[0].start(features[b : b + 1])
            for word in [1, *ids[:-1]]:
                logits, state = captioner.members[0].step(torch.tensor([word]), state)
            expected -= float(logits.log_softmax(1)[0, ids[-1]])
    flow = gradient_flow(shown.model, shown.batch, shown.loss)
    assert flow.loss == pytest.approx(expected, rel=1e-4)
    assert flow[0, "c"].last.tolist() == lengths.tolist()


def test_what_cannot_be_looked_at_is_one_line(
    captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(captions), "--images", str(PHOTOS)]
    assert main(["inspect", str(tmp_path), *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path}: no run (got no model.safetensors)")
    assert main(["inspect", str(NIC), *arguments]) == 2
    assert capsys.readouterr().err.startswith("out: nowhere to write (got the model file flickr8k.safetensors)")
    other = tmp_path / "other.safetensors"
    write_model_file(other, {"x": torch.zeros(1)}, {"task": "weather"})
    assert main(["inspect", str(other), "--out", str(tmp_path / "out"), *arguments]) == 2
    assert capsys.readouterr().err.strip() == (
        f"{other}: nothing to look at (got task weather); captioning, music, tag, translate, dialog, language, "
        "classify; choose another run"
    )
    assert not (tmp_path / "out").exists()
