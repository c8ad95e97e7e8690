"""Translation, as a user meets it: pairs in, a translator out, scores, predictions, a page."""

from __future__ import annotations

import io
import json
import random
import sys
from pathlib import Path

import pytest
import torch

import carousel
from carousel.cli import main
from carousel.training import read_model_file

pytest.importorskip("sacrebleu")

WORDS = [f"w{k}" for k in range(8)]
SMALL = (
    "tokens=words",
    "hidden_size=40",
    "embedding_size=24",
    "learning_rate=0.01",
    "batch_size=24",
    "dropout=0",
    "word_dropout=0",
    "averaging=0.9",
    "mixed_precision=off",  # the same on processors with bfloat16 and without
)


def sequence(draw: random.Random) -> list[str]:
    return draw.choices(WORDS, k=draw.randint(4, 7))


def arguments(*more: str) -> list[str]:
    return [word for setting in (*SMALL, *more) for word in ("--set", setting)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with parallel text, which reverses sequences, and a finished run."""
    folder, draw = tmp_path_factory.mktemp("translate"), random.Random(0)
    (folder / "data").mkdir()
    for split, count in (("train", 700), ("val", 40), ("test", 60)):
        rows = [sequence(draw) for _ in range(count)]
        (folder / f"data/{split}.ab").write_text("".join(" ".join(row) + "\n" for row in rows))
        (folder / f"data/{split}.ba").write_text("".join(" ".join(reversed(row)) + "\n" for row in rows))
    run = ["--run", str(folder / "run")]
    assert main(["train", str(folder / "data"), *run, *arguments("epochs=8")]) == 0
    return folder


def test_reversing_is_learned_whole(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained / "data"), "--model", str(trained / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["BLEU"]["value"] == pytest.approx(100) and found["chrF"]["value"] == pytest.approx(100)


def test_the_plan_and_the_verdict_are_told(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(trained / "data"), "--run", str(trained / "told"), *arguments("epochs=1")]) == 0
    err = capsys.readouterr().err
    for part in (
        "'ba' is a translation of 'ab': task translate (another: --task ",
        "splits: as the data says",
        "from 'ab' into 'ba' (others: --set source=COLUMN --set target=COLUMN)",
        "pairs: 700 to train on, 40 to validate on, 60 for the test",
        "network: lstm, attention general, fed with nothing, ",
        "the source itself: BLEU ",
        "word by word (IBM model 1): BLEU ",
        "60 pairs of the test split: BLEU ",
    ):
        assert part in err, part


def test_lines_are_translated_and_candidates_are_counted(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("w1 w2 w3 w4\nw5 w5 w6 w0\n"))
    assert main(["predict", str(trained / "run"), "-"]) == 0
    assert capsys.readouterr().out.splitlines() == ["w4 w3 w2 w1", "w0 w6 w5 w5"]
    monkeypatch.setattr("sys.stdin", io.StringIO("w1 w2 w3 w4\n"))
    assert main(["predict", str(trained / "run"), "-", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    texts = [one["text"] for one in found["candidates"]]
    assert texts[0] == found["translation"] == "w4 w3 w2 w1" and len(set(texts)) == 5
    monkeypatch.setattr("sys.stdin", io.StringIO("w1 w2 w3 w4\n"))
    assert main(["predict", str(trained / "run"), "-", "--explain"]) == 0
    assert "w4<w4 w3<w3" in capsys.readouterr().out


def test_a_word_that_nobody_knows_is_copied(trained: Path) -> None:
    model = carousel.load(trained / "run")
    model.network.bias.data[3] = 50.0  # the network says <unk> at every step but the last
    model.network.bias.data[2] = 50.0
    found = model.translate(["w1 zebra w3 w4"], beam=1)[0]
    looked = [found.source[k] for k in found.weights[:, :-1].argmax(1)]
    assert found.candidates[0].tokens == tuple(looked[: len(found.candidates[0].tokens)])
    model.copies = False
    assert "<unk>" not in model.translate(["w1 zebra w3 w4"])[0].text


def test_the_page_shows_where_it_looks(trained: Path) -> None:
    page = (trained / "run/report.html").read_text(encoding="utf-8")
    for heading in ("Where it looks", "Translations", "What else it could have said", "Does the length matter?"):
        assert heading in page
    assert "data:image/png;base64," in page


def test_batches_and_neighbours_change_nothing(trained: Path) -> None:
    model = carousel.load(trained / "run")
    texts = ["w1 w2 w3 w4 w5 w6 w7", "w1", "", "w3 w3 w2 w1"]
    together, alone = model.translate(texts), [model.translate([text])[0] for text in texts]
    assert [one.text for one in together] == [one.text for one in alone]
    for a, b in zip(together, alone, strict=True):
        assert a.weights == pytest.approx(b.weights, abs=1e-5)
        assert len(a.weights) == len(a.candidates[0].tokens) + 1 and a.weights.shape[1] == len(a.source)


@pytest.mark.parametrize(
    "options",
    [
        ("cell=gru", "attention=additive", "feed=context"),
        ("attention=none", "feed=context", "reverse=true", "bidirectional=false"),
        ("attention=additive", "coverage=1", "sampled=0.5", "joint=true"),
        ("tokens=bpe", "max_vocabulary=270"),
        ("tokens=characters", "feed=attentional"),
    ],
    ids=" ".join,
)
def test_every_design_trains_and_is_read_again(options: tuple[str, ...], trained: Path, tmp_path: Path) -> None:
    run = ["--run", str(tmp_path / "run")]
    assert main(["train", str(trained / "data"), *run, *arguments("epochs=1", *options)]) == 0
    model = carousel.load(tmp_path / "run")
    assert (tmp_path / "run/report.html").exists() and isinstance(model.predict("w1 w2").text, str)


def test_a_run_goes_the_same_way_twice(trained: Path, tmp_path: Path) -> None:
    weights = []
    for name in ("a", "b"):
        run = ["--run", str(tmp_path / name)]
        assert main(["train", str(trained / "data"), *run, *arguments("epochs=1", "sampled=0.9")]) == 0
        weights.append(read_model_file(tmp_path / name / "model.safetensors", "translate")[0])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_table_is_recognised_by_its_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(1)
    rows = [json.dumps({"n": k, "src": " ".join(s := sequence(draw)), "tgt": " ".join(s)}) for k in range(60)]
    (tmp_path / "pairs.jsonl").write_text("\n".join([*rows, '{"src": "w1", "tgt": ""}']))
    run = ["--run", str(tmp_path / "run")]
    assert main(["train", str(tmp_path / "pairs.jsonl"), *run, *arguments("epochs=1")]) == 0
    err = capsys.readouterr().err
    assert "'tgt' is a translation of 'src'" in err
    assert "1 rows without src or tgt are left out, the first: " in err
    assert "a seeded tenth for validation and fifth for the test\n" in err


@pytest.mark.parametrize(
    ("content", "options", "line"),
    [
        ("a,b\nx y,z\n", ("--task", "translate"), "no two columns of translations (got a, b); two; name them with"),
        ("de,en\nx y,\n", (), "data.csv: no pairs (got 1 rows without de or en); rows with both; check the columns"),
        ("de,en\nx y,z\n", ("--set", "source=ed"), "source: no such column in "),
        ("de,en\n" + "x y,z\n" * 20, ("--set", "coverage=1"), "(got attention=general); attention=additive; set it"),
        ("de,en\nx y,z\n", ("--set", "feed=all"), "feed: not allowed (got 'all'); 'nothing', 'attentional' or"),
    ],
)
def test_what_is_wrong_is_one_line(
    content: str, options: tuple[str, ...], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.csv").write_text(content)
    run = ["--run", str(tmp_path / "run"), "--set", "tokens=words"]
    assert main(["train", str(tmp_path / "data.csv"), *run, *options]) == 2
    assert line in capsys.readouterr().err.splitlines()[-1]


def test_without_sacrebleu_a_line_says_so(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    assert main(["train", str(trained / "data"), "--run", str(tmp_path / "run"), *arguments()]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "sacrebleu: scores of translations want another package (got no sacrebleu); sacrebleu 2; "
        "pip install 'carousel-rnn[translation]'"
    )
