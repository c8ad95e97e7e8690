"""Piano rolls as MATLAB cells, as lists of MIDI numbers and as text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from piano_rolls import mat, rolls

from carousel.data.rolls import keys_of, parsed, roll_of, written
from carousel.data.tables import open_table
from carousel.errors import DataError


def test_a_file_of_the_sets_is_a_table_of_pieces(tmp_path: Path) -> None:
    cells = {"traindata": rolls(5, 9), "validdata": rolls(4, seed=1), "testdata": rolls(6, seed=2)}
    (tmp_path / "a.mat").write_bytes(mat(cells))
    table = open_table(tmp_path / "a.mat")
    assert (table.kind, table.columns) == ("rolls", ("keys", "split"))
    rows = list(table.rows())
    assert [row.values["split"] for row in rows] == ["train", "train", "val", "test"]
    assert rows[2].place == f"{tmp_path / 'a.mat'}: val 1"
    assert torch.equal(roll_of(rows[1].values["keys"], "x"), torch.from_numpy(cells["traindata"][1]).float())


def test_keys_and_notes_go_there_and_back() -> None:
    roll = torch.eye(88)[[0, 39, 87]] + torch.eye(88)[[0, 43, 86]]
    roll[0] = 0
    assert keys_of(roll) == [[], [60, 64], [107, 108]]
    assert torch.equal(roll_of(keys_of(roll), "x"), roll)
    assert [written(frame) for frame in roll] == ["-", "C4 E4", "B7 C8"]
    assert torch.equal(parsed("- | C4 E4\nC8 B7", "x"), roll)
    assert keys_of(parsed("A0 Bb0 | C#4 Db4", "x")) == [[21, 22], [61]]
    assert parsed(" ", "x").shape == (0, 88)


@pytest.mark.parametrize("keys", [None, "C4", [], [[60]], [[60], [20]], [[60], [109]], [[60], 61], [[60], ["C4"]]])
def test_what_is_no_roll(keys: object) -> None:
    with pytest.raises(DataError, match=r"^a:3: no piano roll \(got .*\); MIDI numbers, 21 to 108, in .*mend it"):
        roll_of(keys, "a:3")


@pytest.mark.parametrize("text", ["C4 H4", "G0", "D8", "c4", "C", "Cb0"])
def test_what_is_no_note(text: str) -> None:
    with pytest.raises(DataError, match=r"^a:3: no note of a piano \(got '\w+'\); A0 to C8, such as C#4 or Eb4; mend"):
        parsed(text, "a:3")
