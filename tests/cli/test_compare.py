"""`carousel compare`, from the command line."""

import json
from pathlib import Path

import pytest

from carousel.cli import main

TINY = ["--steps", "2", "--seeds", "1", "--parameters", "300", "--threads", "1"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Sequences that rise or fall."""
    path = tmp_path / "own.jsonl"
    lines = [{"inputs": [0, k, 2 * k], "target": "up" if k > 0 else "down"} for k in range(-15, 15)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_table_of_ones_own_data(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(own), "--cells", "gru, elman layers=2", *TINY, "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert "own.jsonl: 21 train, 3 val, 6 test" in out
    for word in ("gru", "elman layers=2", "the commonest label", "parameters"):
        assert word in out
    assert "1 to go, about" in err
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_json_is_all_that_is_printed(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(own), "--cells", "gru", *TINY, "--rate", "0.1", "--rate", "0.01", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["learning_rate"] for run in found["runs"]] == [0.1, 0.01]
    assert found["settings"]["threads"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "task: unknown (got 'nothing')"),
        (["nothing.jsonl"], "nothing.jsonl: no such file"),
        (["adding", "--cells", "lsmt"], "cell: unknown (got 'lsmt')"),
        (["digits"], "data: digits needs a path"),
        (["adding", "--steps", "2", "--minutes", "1"], "budget: one is needed"),
        (["adding", "--cells", ","], "cells: none"),
    ],
)
def test_what_the_user_can_mend_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *arguments]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(said)
    assert (out, err.count("\n")) == ("", 1)


def test_a_line_of_the_file_is_named(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own.write_text(own.read_text() + '{"inputs": [1, 2], "target": 3}\n')
    assert main(["compare", str(own), *TINY]) == 2
    assert capsys.readouterr().err.startswith(f"{own}:31: another kind of target (got a number)")
