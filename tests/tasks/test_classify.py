"""Classification, as a user meets it: files in, a model, its score against baselines, predictions, a page."""

from __future__ import annotations

import io
import json
import random
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

import carousel
from carousel.cli import main
from carousel.diagnostics import diagnose
from carousel.diagnostics.inspection import _readings
from carousel.diagnostics.units import chosen_units
from carousel.tasks.classify import inspection, load
from carousel.tasks.task import TASKS
from carousel.tasks.text_classifier import ClassifyConfig, TextClassifier
from carousel.training import read_model_file

GOOD, BAD = ("good", "great", "fine", "lovely"), ("bad", "awful", "poor", "dull")
REST = ["the", "film", "was", "a", "story", "with", "some", "people", "in", "it", "and", "then", "they", "left"]
SMALL = ("hidden_size=12", "embedding_size=12", "epochs=6", "learning_rate=0.03", "batch_size=8", "dropout=0.2")

EVERY_TASK = ", ".join(TASKS)


def review(draw: random.Random, good: bool) -> str:
    words = draw.choices(REST, k=draw.randint(2, 9))
    words.insert(draw.randint(0, len(words)), draw.choice(GOOD if good else BAD))
    return " ".join(words)


def reviews(count: int = 200, seed: int = 0) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    return [(review(draw, k % 2 == 0), "pos" if k % 2 == 0 else "neg") for k in range(count)]


def settings(*more: str) -> list[str]:
    return [word for setting in (*SMALL, *more) for word in ("--set", setting)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with reviews.csv (semicolons, a BOM, an empty text) and a finished run."""
    folder = tmp_path_factory.mktemp("classify")
    rows = [f'{label};"{text}"' for text, label in reviews()]
    (folder / "reviews.csv").write_text("\n".join(["stars;text", *rows, "pos;"]), encoding="utf-8-sig")
    assert main(["train", str(folder / "reviews.csv"), "--run", str(folder / "run"), *settings()]) == 0
    return folder


def test_the_run_folder_is_whole(trained: Path) -> None:
    names = {path.name for path in (trained / "run").iterdir()}
    assert names == {"model.safetensors", "last.ckpt.safetensors", "config.toml", "log.jsonl", "report.html"}
    chosen = tomllib.loads((trained / "run/config.toml").read_text())
    config = ClassifyConfig(**chosen)
    assert (config.hidden_size, config.text, config.label) == (12, "text", "stars")


def test_the_page_shows_what_it_should(trained: Path) -> None:
    page = (trained / "run/report.html").read_text(encoding="utf-8")
    for heading in ("What is taken for what", "Some that are right", "Does the length matter?", "Does it know when"):
        assert heading in page
    assert "TF-IDF + logistic regression" in page and "<svg" in page


def test_the_plan_and_the_verdict_are_told(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained / "told"
    assert main(["train", str(trained / "reviews.csv"), "--run", str(run), *settings("epochs=1")]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(run / "model.safetensors"), str(run / "report.html")]
    for part in (
        "column 'text' is text, 'stars' is a label: task classify (another: --task ",
        "1 rows without text or stars are left out, the first: ",
        "splits: a seeded tenth for validation and fifth for the test, by label",
        "140 to train on, 20 to validate on, 40 for the test",
        "labels: neg 50%, pos 50%; accuracy counts",
        "is padding",
        "40 rows of the test split: accuracy in %",
        "the commonest label: accuracy in % 50.00",
        "TF-IDF + logistic regression: accuracy in %",
        " the commonest label (",
    ):
        assert part in err, part
    assert "The worst mistakes" in (run / "report.html").read_text(encoding="utf-8")  # it was trained too little


def test_it_learns_and_predicts_lines(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("the film was lovely\nan awful story\n\n"))
    assert main(["predict", str(trained / "run"), "-"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines[:2]] == ["pos", "neg"] and len(lines) == 3
    assert main(["predict", str(trained / "run"), str(trained / "reviews.csv"), "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(one["label"] == label for one, (_, label) in zip(found, reviews(), strict=False)) > 190


def test_an_explanation_points_at_the_word_that_decides(trained: Path) -> None:
    model = carousel.load(trained / "run")
    [found] = model.explain(["the film was lovely and then they left"])
    assert found.labelling.labels == ("pos",)
    assert max(zip(found.gradients, found.tokens, strict=True))[1] == "lovely"
    assert max(zip(found.occlusion, found.tokens, strict=True))[1] == "lovely"
    with torch.no_grad():
        vectors = model.network.embedding(torch.tensor(model.tokenizer.encode("lovely"))[:, None])
        rises = [model.network.judge(some, torch.tensor([1]))[0, 1] for some in (vectors, torch.zeros(1, 1, 12))]
    [found] = model.explain(["lovely"], steps=256)
    assert found.gradients[0] == pytest.approx(float(rises[0] - rises[1]), abs=1e-2)  # completeness


def test_predict_explains_in_words_and_in_json(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a lovely story\n"))
    assert main(["predict", str(trained / "run"), "--explain"]) == 0
    assert "lovely[+1.00]" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("a lovely story\n"))
    assert main(["predict", str(trained / "run"), "--explain", "--json"]) == 0
    tokens = json.loads(capsys.readouterr().out)["tokens"]
    assert [one["token"] for one in tokens] == ["a", "lovely", "story"] and tokens[1]["occlusion"] > 0
    assert "\x1b[30;48;5;209mlovely\x1b[0m" in carousel.load(trained / "run").explain(["lovely"])[0].coloured()


def test_what_is_wrong_with_a_model_is_one_line(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, line in (
        (
            ["predict", str(trained)],
            "no run (got no model.safetensors); the folder of a run, or a model file; check it",
        ),
        (["predict", str(trained / "no")], "no: cannot be read as a model (got no such file)"),
        (["evaluate", str(trained / "reviews.csv")], "model: none is named (got none); a run folder or a model file; "),
        (["train"], "carousel train: no data (got none); a file or a folder; see carousel train --help"),
    ):
        assert main(arguments) == 2
        assert line in capsys.readouterr().err


def test_evaluate_scores_the_rows_that_were_not_trained_on(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained / "reviews.csv"), "--model", str(trained / "run"), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["accuracy in %"]["value"] > 90
    other = trained / "other.csv"
    other.write_text("\n".join(["stars,text", *(f"{label},{text}" for text, label in reviews(50, seed=9))]))
    assert main(["evaluate", str(other), "--model", str(trained / "run")]) == 0
    assert capsys.readouterr().out.startswith("50 rows of the test split\naccuracy in % ")


def test_python_equals_the_command_line(trained: Path, tmp_path: Path) -> None:
    values: dict[str, Any] = {name: json.loads(value) for name, value in (word.split("=") for word in SMALL)}
    model = carousel.train(trained / "reviews.csv", run=tmp_path / "run", **values)
    there = read_model_file(trained / "run/model.safetensors", "classify")[0]
    here = read_model_file(tmp_path / "run/model.safetensors", "classify")[0]
    assert here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)
    assert model.predict("lovely").labels == ("pos",)


def test_several_labels_for_a_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(3)
    with (tmp_path / "tags.jsonl").open("w") as file:
        for k in range(300):
            labels = [label for label, bit in (("good", 1), ("bad", 2)) if k & bit]
            words = draw.choices(REST, k=5) + [draw.choice(GOOD)] * (k & 1) + [draw.choice(BAD)] * (k >> 1 & 1)
            draw.shuffle(words)
            file.write(json.dumps({"text": " ".join(words), "labels": labels}) + "\n")
    run = tmp_path / "run"
    assert main(["train", str(tmp_path / "tags.jsonl"), "--run", str(run), *settings("epochs=8")]) == 0
    assert "several for a text" in capsys.readouterr().err
    model = carousel.load(run)
    assert set(model.predict("the lovely dull film").labels) == {"good", "bad"}
    assert model.predict("the film was a story").labels == ()


def test_everything_learns_the_validation_rows_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{text},{label},train" for text, label in reviews(100)]
    rows += [
        f"the film was {word},{label},val" for word, label in (("zonk", "pos"), ("dull", "neg")) for _ in range(15)
    ]
    rows += [f"{text},{label},test" for text, label in reviews(20, seed=1)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label,split", *rows]))
    for words, said, known in ((["everything=true"], "130 to train on, 30 of them to validate on", True),
                               ([], "100 to train on, 30 to validate on", False)):  # fmt: skip
        run = tmp_path / str(known)
        assert main(["train", str(tmp_path / "a.csv"), "--run", str(run), *settings(*words)]) == 0
        assert said in (err := capsys.readouterr().err) and "TF-IDF + logistic regression: accuracy" in err
        model = carousel.load(run)
        assert ("zonk" in model.tokenizer.vocabulary) is known
        if known:
            assert model.predict("zonk").probability > 0.9 and model.predict("zonk").labels == ("pos",)


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention", "concat"])
def test_padding_and_neighbours_change_nothing(pooling: str) -> None:
    config = ClassifyConfig(pooling=pooling, hidden_size=5, embedding_size=4)  # type: ignore[arg-type]
    network = TextClassifier(config, 20, 3).eval()
    short, long = torch.tensor([5, 6, 7]), torch.tensor([8, 9, 10, 11, 12, 13])
    both = torch.zeros(9, 2, dtype=torch.long)
    both[:3, 0], both[3:, 0], both[:6, 1], both[6:, 1] = short, 19, long, 17  # what stands in the padding is no matter
    together = network(both, torch.tensor([3, 6]))
    assert torch.allclose(together[:1], network(short[:, None], torch.tensor([3])), atol=1e-6)
    assert torch.allclose(together[1:], network(long[:, None], torch.tensor([6])), atol=1e-6)


def test_one_percent_positives_is_judged_by_macro_f1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(4)
    rows = [f"{review(draw, k % 50 == 0)}\t{'yes' if k % 50 == 0 else 'no'}" for k in range(500)]
    (tmp_path / "rare.tsv").write_text("\n".join(["text\tlabel", *rows]))
    assert main(["train", str(tmp_path / "rare.tsv"), "--run", str(tmp_path / "run"), *settings("epochs=1")]) == 0
    err = capsys.readouterr().err
    assert "labels: no 98%, yes 2%; macro F1 counts" in err and "the commonest label: macro F1 in %" in err
    assert "none of the rows" not in err
    rows = [f"{review(draw, k % 100 == 0)}\t{'yes' if k % 100 == 0 else 'no'}" for k in range(500)]
    (tmp_path / "rare.tsv").write_text("\n".join(["text\tlabel", *rows]))
    assert main(["train", str(tmp_path / "rare.tsv"), "--run", str(tmp_path / "rarer"), *settings("epochs=1")]) == 0
    assert "none of the rows to validate on is yes: their score says nothing of that" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "arguments", "line"),
    [
        ("text,label\na b,x\nc d,x\n", (), "data.csv: 1 labels in 'label' (got x ...); 2 to 1000; name the column of"),
        ("a,b\n1,2\n3,4\n", (), f"data.csv: for no task (got a table with a, b); {EVERY_TASK}; name"),
        ("text,label\na b,x\nc d\n", (), "data.csv:3: wrong number of cells (got 1); 2, as in the first line; put"),
        ("text,label\na b,x\n", ("--set", "label=lable"), "label: no such column in "),
        ("text,label\na b,x\n", ("--set", "pooling=top"), "pooling: not allowed (got 'top'); 'last', 'mean', 'max',"),
        ("text,label\na b,x\n", ("--task", "clasify"), f"task: unknown (got 'clasify'); {EVERY_TASK}; did you"),
    ],
)
def test_what_is_wrong_is_one_line(
    content: str, arguments: tuple[str, ...], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.csv").write_text(content)
    run = ["--run", str(tmp_path / "run")]
    assert main(["train", str(tmp_path / "data.csv"), *run, *arguments]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert line in told and "; " in told
    assert not (tmp_path / "run").exists()


def test_the_config_is_written_with_comments_and_read_again(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, file = str(trained / "reviews.csv"), tmp_path / "c.toml"
    assert main(["init", data, "--out", str(file)]) == 0
    assert ClassifyConfig(**tomllib.loads(file.read_text())) == ClassifyConfig()
    assert "# what becomes of the outputs" in file.read_text()
    assert main(["init", data, "--out", str(file)]) == 2
    capsys.readouterr()
    assert main(["train", data, "--config", str(file), "--model", "gru", "--show-config"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["cell"] == "gru"


def test_its_network_is_looked_into(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, data = trained / "run", trained / "reviews.csv"
    assert main(["inspect", str(run), "--data", str(data), "--sequences", "12"]) == 0
    page = Path(capsys.readouterr().out.splitlines()[-1]).read_text(encoding="utf-8")
    assert "A classifier, reading 12 texts of reviews.csv" in page
    text = reviews()[0][0].split()
    assert all(f">{word}</span>" in page for word in text)
    shown = inspection(run / "model.safetensors", data, sequences=12)
    assert shown.tokens is not None and list(shown.tokens[0]) == text


def test_a_cell_that_reads_backward_is_shown_what_it_read(trained: Path) -> None:
    """The unit that is picked for a token changes at that token, and the page has its values in the text's order."""
    shown = inspection(trained / "run/model.safetensors", trained / "reviews.csv", sequences=12)
    found = diagnose(shown.model, shown.batch, shown.loss)
    backward = found.layers[1]
    assert backward.name == "layer 1 backward" and shown.tokens is not None
    reading = _readings([backward], shown.tokens)[0]
    number = int(reading.name.split()[1])
    length = int(backward.lengths[0])
    own = backward.states[backward.memory_field][:length, 0, number].tolist()
    assert list(reading.values[0]) == own[::-1]
    ids, lengths = shown.batch
    without_first = [torch.cat([ids[1:], ids[:1]]), lengths - 1]  # what a backward cell has not read yet at step 0
    other = diagnose(shown.model, without_first, shown.loss).layers[1].states[backward.memory_field][0, 0, number]
    assert float(other) == pytest.approx(own[0], abs=1e-6)


@pytest.mark.parametrize(("keep", "left"), [("start", "a b c"), ("end", "e f g"), ("both", "a b g")])
def test_inspect_cuts_long_texts_as_training_does(trained: Path, tmp_path: Path, keep: str, left: str) -> None:
    known = load(trained / "run/model.safetensors")
    known.config = known.config.model_copy(update={"max_length": 3, "keep": keep})
    known.save(tmp_path / "model.safetensors")
    (tmp_path / "long.csv").write_text("text\na b c d e f g\n")
    shown = inspection(tmp_path / "model.safetensors", tmp_path / "long.csv")
    assert shown.tokens == [left.split()]
    assert torch.equal(shown.batch[0][:, 0], torch.tensor(known.tokenizer.vocabulary.encode(left.split())))


def test_tokens_are_coloured_by_a_chosen_unit(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["inspect", str(trained / "run"), "--data", str(trained / "reviews.csv"), "--sequences", "12"]
    shown = inspection(trained / "run/model.safetensors", trained / "reviews.csv", sequences=12)
    found = diagnose(shown.model, shown.batch, shown.loss)
    picked = [reading.name for reading in _readings(found.layers, shown.tokens or [])]
    readings = _readings(found.layers, shown.tokens or [], chosen_units(found.layers, [11, 3]))
    assert [(reading.name.split()[1], reading.why) for reading in readings[:2]] == [
        ("11", "as chosen"),
        ("3", "as chosen"),
    ]
    assert readings[1].name.endswith("layer 1 forward") and len({reading.name for reading in readings}) == len(readings)
    assert {reading.name for reading in readings} >= set(picked)
    layer = found.layers[0]
    own = layer.states[layer.memory_field][: layer.lengths[0], 0, 3].tolist()
    assert list(readings[1].values[0]) == own
    assert main([*arguments, "--unit", "11", "--unit", "3", "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/inspection.html").read_text(encoding="utf-8")
    assert page.count("as chosen") == 4 and page.index("<b>unit 11 of") < page.index("<b>unit 3 of")
    assert main([*arguments, "--unit", "12", "--out", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.strip() == "unit: no such unit (got 12); 0 to 11; choose another"
    assert not (tmp_path / "none").exists()


def test_inspect_wants_the_column_of_texts(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n3,4\n")
    assert main(["inspect", str(trained / "run"), "--data", str(tmp_path / "other.csv")]) == 2
    assert "no column 'text' (got a, b); that which the model was trained on; rename it" in capsys.readouterr().err
