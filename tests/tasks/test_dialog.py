"""Dialog, as a user meets it: conversations in, a partner out; words that nobody has seen are said again."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
import torch

import carousel
from carousel.cli import main
from carousel.data.dialogs import Dialog, NumberedWords, Turn, read_dialogs
from carousel.data.tables import open_table
from carousel.tasks.dialog import accuracies, nearest, spoken

TOWNS = ["rome", "oslo", "paris", "bonn"]
SMALL = (
    "hidden_size=32",
    "embedding_size=16",
    "batch_size=8",
    "learning_rate=0.02",
    "dropout=0",
    "averaging=0.9",
    "min_count=5",
)


def dialog(draw: random.Random, towns: list[str]) -> list[str]:
    """Who asks for a town is asked for the time, and then both are said."""
    town, time = draw.choice(towns), draw.choice(["noon", "night"])
    lines = [
        f"{draw.choice(['hello', 'hi'])}\thello where to",
        f"{draw.choice(['to', 'i want to go to'])} {town}\tand when",
        f"at {time} please\tgo {town} {time}",
    ]
    return [f"{number} {line}" for number, line in enumerate(lines, start=1)]


def write(path: Path, count: int, seed: int, towns: list[str]) -> None:
    draw = random.Random(seed)
    path.write_text("\n\n".join("\n".join(dialog(draw, towns)) for _ in range(count)) + "\n")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with dialogs of three splits, some of other towns, and a finished run."""
    folder = tmp_path_factory.mktemp("dialog")
    (folder / "data").mkdir()
    for split, count in (("train", 240), ("dev", 20), ("test", 30)):
        write(folder / f"data/{split}.txt", count, count, TOWNS)
    write(folder / "oov.txt", 30, 1, ["kyoto", "lima", "accra"])
    arguments = [word for setting in (*SMALL, "epochs=10") for word in ("--set", setting)]
    assert main(["train", str(folder / "data"), "--run", str(folder / "run"), *arguments]) == 0
    return folder


def evaluated(data: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    capsys.readouterr()
    assert main(["evaluate", str(data), "--model", str(run), "--json"]) == 0
    return {name: score["value"] for name, score in json.loads(capsys.readouterr().out).items() if "right" in name}


def test_every_answer_is_learned(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(trained / "data", trained / "run", capsys)
    assert found == {"answers right in %": 100.0, "dialogs right in %": 100.0}


def test_words_that_nobody_has_seen_are_said_again(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluated(trained / "oov.txt", trained / "run", capsys)["answers right in %"] > 95


def test_the_plan_and_the_verdict_are_told(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [word for setting in (*SMALL, "epochs=1") for word in ("--set", setting)]
    assert main(["train", str(trained / "data"), "--run", str(trained / "told"), *arguments]) == 0
    err = capsys.readouterr().err
    for part in (
        "lines are NUMBER SAID<tab>ANSWER: task dialog (another: --task ",
        "dialogs: 240 to train on, 20 to validate on, 30 for the test; 3.0 answers",
        "0 others of the test are numbered",
        "the commonest answer: answers right in % 33.33",
        "the answer to the nearest dialog by TF-IDF: answers right in % ",
        "30 dialogs of the test split: dialogs right in % ",
    ):
        assert part in err, part
    page = (trained / "run/report.html").read_text(encoding="utf-8")
    assert "Mistakes" in page and "The first dialog of the test" in page


def test_a_chat_carries_its_state(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\nto kyoto\nat noon please\n"))
    assert main(["chat", str(trained / "run")]) == 0
    assert capsys.readouterr().out.splitlines() == ["hello where to", "and when", "go kyoto noon"]


def test_predict_takes_lines_of_the_data(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["predict", str(trained / "run"), str(trained / "data/test.txt")]) == 0
    said = capsys.readouterr().out.splitlines()
    right = [turn.answer for one in read_dialogs(open_table(trained / "data/test.txt")) for turn in one.turns]
    assert said == right
    model = carousel.load(trained / "run")
    assert model.predict("1 hi").text == model.predict("1 hello\thello where to").text == "hello where to"
    assert model.predict(["2 to rome", "3 at noon please\t"]) == []  # facts, which nobody answers


def test_turn_by_turn_is_all_at_once(trained: Path) -> None:
    model = carousel.load(trained / "run")
    dialogs = list(read_dialogs(open_table(trained / "data/test.txt")))[:7]
    for one, together in zip(dialogs, model.answers(dialogs), strict=True):
        ids = torch.tensor(spoken(one, model.words).read)[:, None]
        talk = model.talk()
        for turn, answer in zip(one.turns, together, strict=True):
            for line in turn.heard:
                talk.hear(line)
            assert talk.answer() == answer == turn.answer
        with torch.inference_mode():
            assert torch.allclose(torch.cat(talk.outputs), model.network.encode(ids)[0], atol=1e-5)


def test_an_answer_cannot_say_what_only_it_brings_up() -> None:
    text = Dialog((Turn(("hi",), "go zanzibar"),))
    words = NumberedWords.train([])
    [names] = spoken(text, words).names
    assert "zanzibar" not in names


def test_words_are_numbered_as_they_come_up(tmp_path: Path) -> None:
    write(tmp_path / "d.txt", 20, 0, TOWNS)
    words, names = NumberedWords.train(read_dialogs(open_table(tmp_path / "d.txt")), numbers=2), dict[str, int]()
    ids = words.encode("x rome y x z", names)
    assert ids == [words.known, ids[1], words.known + 1, words.known, words.known]  # two numbers: z has that of x
    assert ids[1] < words.known and words.encode("rome", {}, frozenset({"rome"})) == [words.known]


def test_accuracy_is_to_the_letter_and_the_nearest_is_near(tmp_path: Path) -> None:
    write(tmp_path / "d.txt", 20, 0, TOWNS)
    dialogs = list(read_dialogs(open_table(tmp_path / "d.txt")))
    said = nearest(dialogs, dialogs)
    assert accuracies(dialogs, said)[0].value > 90
    said[0][1] = said[0][1].upper()
    assert accuracies(dialogs, said)[1].value < 100


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            "1 a\tb\nno number\tc\n",
            "data.txt:2: no line of a dialog (got 'no number\\tc'); NUMBER SAID<tab>ANSWER; mend it",
        ),
        ("1 a\tb\n", "too few dialogs (got 1); some to train on, to validate on and for the test; add some"),
    ],
)
def test_what_is_wrong_is_one_line(content: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data.txt").write_text(content)
    assert main(["train", str(tmp_path / "data.txt"), "--task", "dialog", "--run", str(tmp_path / "run")]) == 2
    assert line in capsys.readouterr().err.splitlines()[-1]


def test_chat_wants_a_partner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", str(tmp_path)]) == 2
    assert "no run (got no model.safetensors)" in capsys.readouterr().err
