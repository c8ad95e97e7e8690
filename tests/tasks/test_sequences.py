"""A user's file as a problem."""

import json
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from carousel.errors import DataError
from carousel.tasks.sequences import Sequences


def write(folder: Path, records: Iterable[dict[str, Any]]) -> Path:
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


SPLIT = [{"split": split} for split in ("train", "train", "val", "test")]


def test_labels(tmp_path: Path) -> None:
    targets = ["up", "up", "down", "down"]
    records = [{"inputs": [k, k + 1], "target": target, **SPLIT[k]} for k, target in enumerate(targets)]
    problem = Sequences(write(tmp_path, records))
    assert (problem.labels, problem.output_size, problem.every_step) == (["down", "up"], 2, False)
    [test] = problem.held_out("test")
    assert problem.measure(torch.tensor([[1.0, 0.0]]), test) == (100.0, 1)
    assert problem.measure(torch.tensor([[0.0, 1.0]]), test) == (0.0, 1)
    assert problem.baselines() == {"the commonest label": 0.0}
    train = problem.batch(0, 0).inputs  # 0, 1 and 1, 2, scaled
    assert float(train.mean()) == pytest.approx(0, abs=1e-6)
    assert float(train.std(unbiased=False)) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(test.inputs[:, 0, 0], (torch.tensor([3.0, 4.0]) - 1) / 0.5**0.5)


def test_numbers_are_scored_in_their_own_units(tmp_path: Path) -> None:
    targets = [10.0, 30.0, 5.0, 26.0]
    records = [{"inputs": [0.0, k], "target": target, **SPLIT[k]} for k, target in enumerate(targets)]
    problem = Sequences(write(tmp_path, records))
    [test] = problem.held_out("test")
    assert problem.measure(torch.tensor([[0.5]]), test) == (1.0, 1)  # 20 + 0.5 * 10 is 25
    assert float(problem.loss(torch.tensor([[0.5]]), test)) == pytest.approx(0.01)
    assert problem.baselines() == {"the mean": 36.0}


def test_a_number_for_each_element(tmp_path: Path) -> None:
    pairs = [([0, 0], [1, 3]), ([0, 0], [1, 3]), ([0, 0], [1, 1]), ([0, 0, 0], [2, 4, 4])]
    records = [{"inputs": i, "target": target, **SPLIT[k]} for k, (i, target) in enumerate(pairs)]
    problem = Sequences(write(tmp_path, records))
    [test] = problem.held_out("test")
    assert problem.every_step
    assert problem.measure(torch.zeros(3, 1, 1), test) == (8.0, 3)
    assert problem.baselines() == pytest.approx({"the mean": 8 / 3, "the target before": 4 / 3})


def test_a_label_for_each_element_and_nothing_of_the_padding(tmp_path: Path) -> None:
    labels = [["a"], ["b"], ["a"], ["b", "b", "b"], ["a"]]
    records = [
        {"inputs": [1] * len(some), "target": some, "split": ["train", "train", "val", "test", "test"][k]}
        for k, some in enumerate(labels)
    ]
    problem = Sequences(write(tmp_path, records))
    [test] = problem.held_out("test")
    said = torch.zeros(3, 2, 2)
    said[:, 0, 1] = said[0, 1, 0] = 1.0  # right
    assert problem.measure(said, test) == (400.0, 4)
    loss = problem.loss(said, test)
    said[1:, 1] = 1e6 * torch.tensor([-1.0, 1.0])
    assert torch.equal(problem.loss(said, test), loss)
    assert problem.baselines() == {"the commonest label": 25.0}


def test_splits_are_drawn_where_the_file_names_none(tmp_path: Path) -> None:
    path = write(tmp_path, ({"inputs": [k], "target": k} for k in range(30)))
    one, other = Sequences(path), Sequences(path)
    values = {split: [float(target) for _, target in some] for split, some in one.parts.items()}
    assert {split: len(some) for split, some in values.items()} == {"train": 21, "val": 3, "test": 6}
    assert sorted(chain.from_iterable(values.values())) == list(range(30))
    assert values == {split: [float(target) for _, target in some] for split, some in other.parts.items()}


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        (["train", None, "val", "test"], "splits for some (got 1 sequences without)"),
        (["train", "train", "val", "val"], "nothing in 'test' (got 4 sequences)"),
        ([None, None], "nothing in 'train' (got 2 sequences)"),
    ],
)
def test_splits_that_cannot_be(splits: list[str | None], said: str, tmp_path: Path) -> None:
    records = [{"inputs": [1], "target": 2} | ({"split": split} if split else {}) for split in splits]
    with pytest.raises(DataError) as error:
        Sequences(write(tmp_path, records))
    assert said in str(error.value)
