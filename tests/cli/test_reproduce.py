"""`carousel reproduce`, from the command line."""

import json
from pathlib import Path

import pytest

from carousel.cli import main

TINY = ["embedded-reber", "--seeds", "1", "--sequences", "8"]


def test_a_table_beside_the_papers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", *TINY, "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    for word in ("Hochreiter and Schmidhuber 1997", "8,440", "0 of 1", "the paper"):
        assert word in out
    assert "embedded-reber, lstm, seed 0: not solved after 8 sequences" in err
    assert "| lstm |" in (tmp_path / "embedded-reber.md").read_text(encoding="utf-8")


def test_json_is_all_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", *TINY, "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert found["outcomes"]["lstm"]["0"]["sequences"] == 8


def test_without_a_name_the_experiments_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce"]) == 0
    out = capsys.readouterr().out
    assert "hochreiter-1997: " in out and "    adding: T = 100, T = 500, T = 1000\n" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["embeded-reber"], "did you mean embedded-reber?"),
        (["adding", "--only", "T = 7"], "only: no such condition (got 'T = 7')"),
        (["adding", "--seeds", "0"], "seeds: none (got 0)"),
        (["adding", "--sequences", "0"], "sequences: none (got 0)"),
    ],
)
def test_what_the_user_can_mend_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *arguments]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert (out, err.count("\n")) == ("", 1)
