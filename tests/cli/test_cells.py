"""``carousel cells`` lists the recurrences in any width, shows one in full, and draws it."""

import json
from pathlib import Path

import pytest

from carousel.cells import CELLS
from carousel.cli import main


def cells(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["cells", *args]) == 0
    return capsys.readouterr().out


def test_every_cell_has_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    header, *lines = cells(capsys).split("\n\n")[0].splitlines()
    assert header.split() == ["name", "what", "it", "is", "paper", "weights", "FLOPs", "engine"]
    assert [line.split()[0] for line in lines] == list(CELLS)
    (gru,) = [line for line in lines if line.startswith("gru ")]
    assert " ".join(gru.split()) == (
        "gru Gated recurrent unit, reset before the recurrent product. Cho 2014 74,112 147,456 compiled"
    )
    assert next(line for line in lines if line.startswith("mingru")).endswith("compiled, scan")


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (120, ["name", "what it is", "paper", "weights", "FLOPs", "engine"]),
        (80, ["name", "paper", "weights", "FLOPs", "engine"]),
        (60, ["name", "paper", "weights", "FLOPs"]),
        (40, ["name", "paper"]),
        (10, ["name"]),
    ],
)
def test_a_narrow_terminal_has_fewer_columns_and_no_broken_lines(
    width: int, columns: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    header, *lines = cells(capsys).split("\n\n")[0].splitlines()
    assert " ".join(header.split()) == " ".join(columns)
    assert len(lines) == len(CELLS)
    assert max(map(len, [header, *lines])) <= max(width, len("antisymmetric-gated"))


def test_sizes_are_those_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    listed = {facts["name"]: facts for facts in json.loads(cells(capsys, "--json", "--input", "3", "--hidden", "1"))}
    assert list(listed) == list(CELLS)
    assert listed["lstm"]["parameters"] == 4 * (3 + 1 + 1)
    assert listed["clockwork"]["parameters"] is None
    assert "  –  " in cells(capsys, "--hidden", "1")


def test_one_cell_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    text = cells(capsys, "lstm-peephole", "--input", "3", "--hidden", "4")
    for part in (
        "    o_t = σ(W_o x_t + U_o h_{t-1} + p_o ⊙ c_t + b_o)\n",
        "Gers and Schmidhuber 2000, IJCNN",
        "  forget_bias = 1.0: what b_f starts from.",
        "140 weights\n",
        "output = sigmoid(p[12:16] + U[12:16] h + v2 * c')",
    ):
        assert part in text
    found = json.loads(cells(capsys, "lstm-peephole", "--json"))
    assert (found["author"], found["options"], found["compiled"][-1]) == (
        "Gers",
        {"forget_bias": 1.0, "bias": True},
        "h' = output * tanh(c')",
    )


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_can_be_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cells(capsys, name, "--input", "4", "--hidden", "4").startswith(f"{name}: ")
    assert json.loads(cells(capsys, name, "--json", "--input", "4", "--hidden", "4"))["name"] == name


def test_a_drawing_is_written_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gru.svg"
    assert cells(capsys, "gru", "--draw", str(path)).endswith(f"\n{path}\n")
    assert "candidate" in path.read_text(encoding="utf-8")
    assert main(["cells", "gru", "--json", "--draw", str(path)]) == 0
    done = capsys.readouterr()
    assert (json.loads(done.out)["name"], done.err) == ("gru", f"{path}\n")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            ["GRU"],
            "cell: unknown (got 'GRU'); gru, sru, mingru and all that `carousel cells` lists; did you mean 'gru'?",
        ),
        (
            ["--draw", "a.svg"],
            "--draw: of which cell (got no NAME); one that `carousel cells` lists; give its name",
        ),
        (["gru", "--draw", "a.pdf"], "a.pdf: no format for a drawing (got '.pdf'); .svg or .png; rename it"),
        (
            ["gru", "--draw", "file/a.svg"],
            "file/a.svg: the drawing cannot be written (got File exists); a file in a folder you may write to is "
            "allowed; give another path",
        ),
        (["clockwork", "--hidden", "2"], "periods: too many (got 4); 2, the units; a unit for each"),
    ],
)
def test_what_cannot_be_is_one_line(
    args: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    assert main(["cells", *args]) == 2
    assert capsys.readouterr() == ("", line + "\n")
    assert list(Path().iterdir()) == [Path("file")]
