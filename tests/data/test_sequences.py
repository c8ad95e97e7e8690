"""A user's sequences: what is read, and what is said of what cannot be."""

import gzip
from pathlib import Path

import pytest
import torch

from carousel.data.sequences import read_sequences
from carousel.errors import DataError


def write(folder: Path, *lines: str) -> Path:
    path = folder / "own.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("target", "kind"),
    [('"rising"', "label"), ("true", "label"), ("4.5", "number"), ('["a", "b"]', "labels"), ("[1, 2.5]", "numbers")],
)
def test_every_kind_of_target(target: str, kind: str, tmp_path: Path) -> None:
    found = read_sequences(write(tmp_path, f'{{"inputs": [[1, 2, 3], [4, 5, 6]], "target": {target}}}'))
    assert (found.target, found.input_size) == (kind, 3)
    assert torch.equal(found.sequences[0].inputs, torch.tensor([[1.0, 2, 3], [4, 5, 6]]))


def test_plain_numbers_are_elements_of_one(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl.gz"
    path.write_bytes(
        gzip.compress(b'\n{"inputs": [1, 2], "target": 1, "split": "val"}\n\n{"inputs": [3], "target": 2}\n')
    )
    first, second = read_sequences(path).sequences
    assert first.inputs.tolist() == [[1.0], [2.0]]
    assert second.inputs.tolist() == [[3.0]]
    assert (first.split, second.split) == ("val", None)


GOOD = '{"inputs": [[1, 2], [3, 4]], "target": "a"}'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON (got '{'"),
        ("[1]", "not an object (got '[1]')"),
        ('{"inputs": [1]}', "no 'target' (got inputs)"),
        ("{}", "no 'inputs' (got nothing)"),
        ('{"inputs": [], "target": "a"}', "no sequence in 'inputs' (got [])"),
        ('{"inputs": 3, "target": "a"}', "no sequence in 'inputs' (got 3)"),
        ('{"inputs": [[1, 2], [3]], "target": "a"}', "element 2 of 'inputs' does not fit (got [3])"),
        ('{"inputs": [[1, 2], 3], "target": "a"}', "element 2 of 'inputs' does not fit (got 3)"),
        ('{"inputs": [[1, "x"]], "target": "a"}', "element 1 of 'inputs' does not fit (got [1, 'x'])"),
        ('{"inputs": [[1, NaN]], "target": "a"}', "element 1 of 'inputs' does not fit (got [1, nan])"),
        ('{"inputs": [[]], "target": "a"}', "element 1 of 'inputs' does not fit (got [])"),
        ('{"inputs": [1, 2], "target": "a"}', "another width (got elements of 1)"),
        ('{"inputs": [[1, 2]], "target": 3}', "another kind of target (got a number); a label"),
        ('{"inputs": [[1, 2]], "target": ["a", "b"]}', "a target that does not fit (got 2 for 1 elements)"),
        ('{"inputs": [[1, 2], [3, 4]], "target": ["a", 1]}', "not a target (got ['a', 1])"),
        ('{"inputs": [[1, 2]], "target": null}', "not a target (got None)"),
        ('{"inputs": [[1, 2]], "target": Infinity}', "not a target (got inf)"),
        ('{"inputs": [[1, 2]], "target": "a", "split": "dev"}', "no such split (got 'dev'); train, val, test"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(line: str, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, line)
    with pytest.raises(DataError) as error:
        read_sequences(path)
    assert str(error.value).startswith(f"{path}:2: {said}")
    assert str(error.value).count("; ") >= 2
