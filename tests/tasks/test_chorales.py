"""Piano rolls: the loss, frame by frame."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from piano_rolls import mat, rolls

from carousel.errors import DataError
from carousel.tasks.chorales import Chorales


@pytest.fixture
def problem(tmp_path: Path) -> Chorales:
    cells = {"traindata": rolls(5, 9, 7, 6), "validdata": rolls(4, seed=1), "testdata": rolls(6, 3, seed=2)}
    (tmp_path / "JSB_Chorales.mat").write_bytes(mat(cells))
    return Chorales(tmp_path, batch_size=2)


def test_the_next_frame_is_asked_for(problem: Chorales) -> None:
    [test] = problem.held_out("test")
    assert test.inputs.shape == (5, 2, 88)
    assert test.lengths is not None
    assert test.lengths.tolist() == [5, 2]
    for b, piece in enumerate(problem.pieces["test"]):
        assert torch.equal(test.inputs[: len(piece) - 1, b], piece[:-1])
        assert torch.equal(test.targets[: len(piece) - 1, b], piece[1:])


def test_pieces_are_cut_for_training_and_no_frame_is_lost(problem: Chorales, tmp_path: Path) -> None:
    """5 frames in parts that predict 2 each: frames 0 to 2 and 2 to 4; 9 in four, 7 in three, 6 in 2, 2 and 1."""
    cut = Chorales(tmp_path, batch_size=2, longest=2)
    assert [len(part) for part in cut.parts] == [3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 2]
    asked = torch.cat([part[1:] for part in cut.parts])
    assert torch.equal(asked, torch.cat([piece[1:] for piece in problem.pieces["train"]]))
    assert cut.batch(0, 0).inputs.shape[0] <= 2 and len(cut.held_out("val")[0].inputs) == 3
    assert all(map(torch.equal, problem.parts, problem.pieces["train"])) and len(problem.parts) == 4


def test_the_score_is_summed_over_keys_and_averaged_over_frames(problem: Chorales) -> None:
    """As the plain loop over pieces and frames; what is said of the padding does not count."""
    [test] = problem.held_out("test")
    outputs = torch.randn(5, 2, 88, generator=torch.Generator().manual_seed(0))
    frames = []
    for b, piece in enumerate(problem.pieces["test"]):
        for t in range(len(piece) - 1):
            p = torch.sigmoid(outputs[t, b].double())
            y = piece[t + 1].double()
            frames.append(-float((y * p.log() + (1 - y) * (1 - p).log()).sum()))
    total, items = problem.measure(outputs, test)
    assert items == len(frames) == 7
    assert total / items == pytest.approx(sum(frames) / 7, rel=1e-5)
    assert float(problem.loss(outputs, test)) == pytest.approx(total / items)
    outputs[2:, 1] = 1e3
    assert problem.measure(outputs, test).total == pytest.approx(total)


def test_baselines_know_the_training_part_only(problem: Chorales) -> None:
    """By the plain counts, of one key at a time."""
    found = problem.baselines()
    train, test = problem.pieces["train"], problem.pieces["test"]
    totals = {"each key's frequency": 0.0, "the frame before": 0.0}
    pairs = [(piece[t], piece[t + 1]) for piece in train for t in range(len(piece) - 1)]
    for key in range(88):
        on = sum(int(after[key]) for _, after in pairs)
        followed = {w: [int(after[key]) for before, after in pairs if int(before[key]) == w] for w in (0, 1)}
        for piece in test:
            for t in range(len(piece) - 1):
                sounds, before = int(piece[t + 1, key]), int(piece[t, key])
                often = (on + 1) / (len(pairs) + 2)
                again = (sum(followed[before]) + 1) / (len(followed[before]) + 2)
                totals["each key's frequency"] -= math.log(often if sounds else 1 - often)
                totals["the frame before"] -= math.log(again if sounds else 1 - again)
    assert found == pytest.approx({name: total / 7 for name, total in totals.items()}, rel=1e-5)


def test_an_epoch_plays_every_piece_once(problem: Chorales) -> None:
    lengths = [length for step in (0, 1) for length in problem.batch(0, step).lengths.tolist()]  # type: ignore[union-attr]
    assert sorted(lengths) == [4, 5, 6, 8]


def test_what_holds_no_piano_rolls(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(mat({"traindata": rolls(5), "validdata": rolls(5)}))
    with pytest.raises(DataError, match=r"a\.mat: no piano rolls in 'testdata' \(got traindata, validdata\)"):
        Chorales(path)
    path.write_bytes(mat({"traindata": [np.zeros((5, 60))], "validdata": rolls(5), "testdata": rolls(5)}))
    with pytest.raises(DataError, match="no piano rolls in 'traindata'"):
        Chorales(path)
