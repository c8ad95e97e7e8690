"""Music, as a user meets it: piano rolls in, a model out that says what sounds next, and plays on."""

from __future__ import annotations

import io
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from piano_rolls import mat

import carousel
from carousel.cli import main
from carousel.data.rolls import keys_of, roll_of
from carousel.data.tables import open_table
from carousel.tasks.music import MusicConfig, heard, read_pieces
from carousel.tasks.task import Source, task_for

SMALL = ("hidden_size=48", "input_dropout=0", "state_dropout=0", "dropout=0", "learning_rate=0.03", "epochs=12",
         "schedule=constant", "batch_size=4", "averaging=0.9")  # fmt: skip
CHORDS = [[48, 64, 67], [53, 60, 69], [55, 59, 62], []]


def tune(draw: random.Random) -> list[list[int]]:
    """Chords one after the other, up or down: what the frame before alone does not tell."""
    way, first, length = draw.choice([1, 3]), draw.randrange(4), draw.randint(8, 20)
    return [CHORDS[(first + t * way) % 4] for t in range(length)]


def settings(*more: str) -> list[str]:
    return [word for setting in (*SMALL, *more) for word in ("--set", setting)]


def write(path: Path, seed: int, **splits: int) -> None:
    draw = random.Random(seed)
    pieces = [{"keys": tune(draw), "split": split} for split, count in splits.items() for _ in range(count)]
    path.write_text("".join(json.dumps(piece) + "\n" for piece in pieces))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tunes.jsonl and a finished run."""
    folder = tmp_path_factory.mktemp("music")
    write(folder / "tunes.jsonl", 0, train=80, val=10, test=20)
    assert main(["train", str(folder / "tunes.jsonl"), "--run", str(folder / "run"), *settings()]) == 0
    return folder


def test_it_learns_what_the_frame_before_does_not_tell(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained / "tunes.jsonl"), "--model", str(trained / "run"), "--json"]) == 0
    nats = json.loads(capsys.readouterr().out)["nats a frame"]["value"]
    assert nats < 0.4  # nobody knows the way before the second frame: ln 2 of some 13 frames
    model = carousel.load(trained / "run")
    assert model.generate("C3 E4 G4 | F3 C4 A4", length=3, temperature=0).splitlines() == [
        "C3 E4 G4 | F3 C4 A4", "G3 B3 D4", "-", "C3 E4 G4",
    ]  # fmt: skip
    assert model.generate("F3 C4 A4 | C3 E4 G4", length=2, temperature=0).splitlines()[1:] == ["-", "G3 B3 D4"]


def test_the_plan_the_verdict_and_the_page(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", str(trained / "tunes.jsonl"), "--run", str(trained / "told"), *settings("epochs=1")]
    assert main(words) == 0
    err = capsys.readouterr().err
    for part in (
        "piano rolls: task music (another: --task ",
        "splits: as the data says",
        "pieces: 80 to train on, 10 to validate on, 20 for the test; ",
        "network: 1 x 48 lstm",
        "20 pieces of the test split: nats a frame ",
        "each key's frequency: nats a frame ",
        "the frame before: nats a frame ",
    ):
        assert part in err, part
    assert "The first piece of the test" in (trained / "run/report.html").read_text(encoding="utf-8")


def test_the_score_is_that_of_frame_after_frame(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By a loop over pieces, frames and keys; the first frame of a piece does not count."""
    model = carousel.load(trained / "run")
    pieces = [piece.roll for piece in read_pieces(open_table(trained / "tunes.jsonl")) if piece.split == "test"]
    total = frames = 0.0
    for piece in pieces:
        state, last = None, torch.zeros(88)
        for t, frame in enumerate(piece):
            with torch.no_grad():
                output, state = model.network.recurrent(last[None, None], state)
                p = torch.sigmoid(model.network.readout(output[0, 0]).double())
            if t:
                total -= sum(math.log(p[k] if frame[k] else 1 - p[k]) for k in range(88))
                frames += 1
            last = frame
    assert main(["evaluate", str(trained / "tunes.jsonl"), "--model", str(trained / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nats a frame"]["value"] == pytest.approx(total / frames, rel=1e-3)
    alone = [heard(model.network, [piece])[0][0] for piece in pieces]
    for one, together in zip(alone, heard(model.network, pieces), strict=True):
        assert torch.allclose(one, together[0], atol=1e-4)


def test_predict_reads_notes_and_files(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("C3 E4 G4 | F3 C4 A4 | G3 B3 D4\nC3 E4 G4 | F3 C4 A4 | C8\n"))
    assert main(["predict", str(trained / "run")]) == 0
    right, wrong = capsys.readouterr().out.splitlines()
    assert right.endswith("\tC3 E4 G4 | F3 C4 A4 | G3 B3 D4") and float(right.split()[0]) < float(wrong.split()[0]) - 2
    assert main(["predict", str(trained / "run"), str(trained / "tunes.jsonl"), "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert len(first["frames"]) == len(first["nats"]) and first["nats_a_frame"] == pytest.approx(
        float(np.mean(first["nats"])), abs=1e-3
    )


def test_generate_plays_the_same_for_the_same_seed(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    played = []
    for seed in ("1", "1", "2"):
        assert main(["generate", str(trained / "run"), "--length", "40", "--seed", seed]) == 0
        played.append(capsys.readouterr().out)
    assert played[0] == played[1] != played[2] and len(played[0].splitlines()) == 40
    for wrong, line in ((["--top-k", "3"], "not for music (got 3, 1.0)"), (["--prompt", "C4 x"], "no note of a piano")):
        assert main(["generate", str(trained / "run"), *wrong]) == 2
        assert line in capsys.readouterr().err


def test_the_sets_of_the_papers_are_recognised_and_other_columns_are_not(tmp_path: Path) -> None:
    draw = random.Random(0)
    some = [roll_of(tune(draw), "x").numpy().astype(np.uint8) for _ in range(3)]
    (tmp_path / "JSB.mat").write_bytes(mat({"traindata": some, "validdata": some[:1], "testdata": some[1:]}))
    task, why = task_for(Source(tmp_path / "JSB.mat"))
    assert task.name == "music" and "JSB.mat: piano rolls: task music" in why
    pieces = read_pieces(open_table(tmp_path / "JSB.mat"))
    assert [piece.split for piece in pieces] == ["train"] * 3 + ["val", "test", "test"]
    assert keys_of(pieces[1].roll) == keys_of(torch.from_numpy(some[1]))
    (tmp_path / "a.csv").write_text("keys,text,label\n" + "C4,what a song,x\nC5,how dull,y\n" * 9)
    assert task_for(Source(tmp_path / "a.csv"))[0].name == "classify"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            '{"keys": [[60], [64]]}\n{"keys": [[60], [6]]}\n',
            "a.jsonl:2: no piano roll (got 6); MIDI numbers, 21 to 108",
        ),
        ('{"keys": [[60], [64]]}\n', "a.jsonl: too few pieces (got 1); some to train on"),
        ('{"text": "C4"}\n', "a.jsonl: no piano rolls (got JSON Lines with text); JSON Lines with 'keys'"),
    ],
)
def test_what_is_wrong_is_one_line(content: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    assert main(["train", str(tmp_path / "a.jsonl"), "--task", "music", "--run", str(tmp_path / "run")]) == 2
    assert line in capsys.readouterr().err.splitlines()[-1]


def test_small_sets_are_gone_through_more_often(trained: Path, tmp_path: Path) -> None:
    from carousel.tasks.music import learner

    write(tmp_path / "a.jsonl", 1, train=600, val=2, test=2)
    for path, epochs in ((trained / "tunes.jsonl", 150), (tmp_path / "a.jsonl", 54)):
        made = learner(Source(path), MusicConfig(), tmp_path / "m", None)  # type: ignore[arg-type]
        assert made.config.epochs == epochs


def test_long_pieces_are_learned_in_parts(trained: Path, tmp_path: Path) -> None:
    """Each frame once in an epoch, after the one that is before it in its piece."""
    from carousel.tasks.music import learner

    made = learner(Source(trained / "tunes.jsonl"), MusicConfig(longest=7), tmp_path / "m", None)  # type: ignore[arg-type]
    before, frames = (torch.cat(side) for side in zip(*made.parts, strict=True))
    assert torch.equal(frames, torch.cat(made.train)) and max(len(part) for _, part in made.parts) == 7
    first = torch.tensor([t == 0 for piece in made.train for t in range(len(piece))])
    assert torch.equal(before[1:][~first[1:]], frames[:-1][~first[1:]]) and not before[first].any()
    assert made.steps == math.ceil(len(made.parts) / 8) and f"learned in {len(made.parts)} parts" in made.summary()


def test_it_begins_as_the_first_baseline(trained: Path, tmp_path: Path) -> None:
    """Before the first step the readout says how often each key sounds, and the state adds little to that."""
    from carousel.tasks.music import learner

    made = learner(Source(trained / "tunes.jsonl"), MusicConfig(), tmp_path / "m", None)  # type: ignore[arg-type]
    made.test = made.val
    often = made.baselines()["each key's frequency"].value
    assert made.validate()["validation_nats"] == pytest.approx(often, rel=0.1) and often < 0.2 * 88 * math.log(2)
