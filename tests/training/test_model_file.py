"""The one safe file comes back as it was, or says in one line why it cannot be trusted."""

from __future__ import annotations

import json
import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from carousel.errors import CarouselError, ModelFileError
from carousel.training import model_file, read_model_file, write_atomically, write_model_file

TENSORS = {
    "half": torch.randn(3, 4).half(),
    "single": torch.randn(2, 3).t(),  # not contiguous
    "double": torch.randn(2, dtype=torch.float64),
    "brain": torch.randn(5).bfloat16(),
    "whole": torch.arange(6).reshape(2, 3),
    "flags": torch.tensor([True, False]),
    "number": torch.tensor(1.5),
    "empty": torch.zeros(0, 4),
}
FACTS = {
    "task": "test",
    "config": {"rate": 1e-3, "sizes": (1, 2)},
    "vocabulary": ["<pad>", "Ätna", "猫", '"\\\n'],
    "x": None,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    write_model_file(path, TENSORS, FACTS)
    return path


def refused(path: Path, message: str) -> None:
    with pytest.raises(ModelFileError, match=message) as caught:
        read_model_file(path, "test")
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_what_is_written_is_read(file: Path) -> None:
    tensors, facts = read_model_file(file, "test")
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor)
    assert facts == {**FACTS, "config": {"rate": 1e-3, "sizes": [1, 2]}, "format": model_file.FORMAT}


def test_the_same_content_is_the_same_bytes(file: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    backwards: dict[str, Any] = dict(reversed(FACTS.items()))
    write_model_file(again, dict(reversed(TENSORS.items())), backwards)
    assert again.read_bytes() == file.read_bytes()


def test_files_that_are_none(tmp_path: Path, file: Path) -> None:
    path = tmp_path / "given.safetensors"
    refused(path, r"cannot be read as a model \(got no such file\)")
    refused(tmp_path, "cannot be read as a model")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "pickle")
    whole = file.read_bytes()
    for content in (
        b"",
        b"a text file, which holds no tensors\n",
        (tmp_path / "pickle").read_bytes(),
        struct.pack("<Q", 2**63) + whole[8:],
        whole[: len(whole) // 2],
        whole[:-1],
        whole + b"\0",
        whole[:7],
    ):
        path.write_bytes(content)
        refused(path, "cannot be read as a model")


def test_files_of_others(tmp_path: Path) -> None:
    path = tmp_path / "given.safetensors"
    for metadata in (
        None,
        {"format": "pt"},
        {"carousel": "null"},
        {"carousel": "[1]"},
        {"carousel": '{"format": "1"}'},
    ):
        save_file({"weight": torch.zeros(3)}, path, metadata)
        refused(path, r"not a Carousel model \(got no metadata of ours\)")
    for metadata in ({"carousel": "{"}, {"carousel": "[" * 100_000}, {"carousel": "1" * 10_000}):
        save_file({"weight": torch.zeros(3)}, path, metadata)
        refused(path, "cannot be read as a model")


def test_a_newer_format_asks_for_an_upgrade(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "FORMAT", 7)
    write_model_file(file, TENSORS, FACTS)
    monkeypatch.undo()
    refused(file, r"made by a newer Carousel \(got format 7\); this one reads up to 1; upgrade")


def test_another_task_is_named(file: Path) -> None:
    with pytest.raises(ModelFileError, match=r"a model for another task \(got test\); speech; check the path"):
        read_model_file(file, "speech")


def altered(path: Path, **changes: Any) -> None:
    """Rewrite the facts and leave the checksum as it is."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    facts = json.loads(header["__metadata__"]["carousel"])
    header["__metadata__"]["carousel"] = json.dumps({**facts, **changes})
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def test_altered_facts_are_noticed(file: Path) -> None:
    altered(file)
    assert read_model_file(file, "test")[1]["config"]["rate"] == 1e-3
    altered(file, vocabulary=["<pad>", "Etna"])
    refused(file, r"damaged \(got a wrong checksum\)")


def same(one: tuple[dict[str, Tensor], Any], other: tuple[dict[str, Tensor], Any]) -> bool:
    return one[1] == other[1] and all(
        torch.equal(one[0][n], t) and one[0][n].dtype == t.dtype for n, t in other[0].items()
    )


def test_no_flipped_bit_passes(file: Path) -> None:
    whole, before = file.read_bytes(), read_model_file(file, "test")
    draw, damaged = random.Random(0), 0
    for _ in range(600):
        bit = draw.randrange(8 * len(whole))
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        try:  # "1e-3" is "1E-3": a flip that changes nothing may pass
            assert same(read_model_file(file, "test"), before)
        except CarouselError as error:
            assert isinstance(error, ModelFileError)
            damaged += "wrong checksum" in str(error)
    assert damaged > 50


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", ["fsync", "replace", "chmod"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    file: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    before = file.read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(ModelFileError, match=r"cannot be written \(got No space left on device\)"):
        write_model_file(file, {"other": torch.zeros(1)}, {"task": "test"})
    assert list(file.parent.iterdir()) == [file] and file.read_bytes() == before


def test_an_interruption_leaves_the_old_file_and_nothing_else(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, b"other")
    assert list(file.parent.iterdir()) == [file] and file.read_bytes() == before


def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append(("fsync", os.fstat(handle).st_size)), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append(("replace", 0)), replace(*names)))
    write_atomically(tmp_path / "file", b"12345")
    assert [name for name, _ in calls] == ["fsync", "replace", "fsync"] and calls[0][1] == 5


def test_folders_are_made_and_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "folder" / "file", b"1")
    with pytest.raises(ModelFileError, match=r"cannot be written \(got .+\); a writable place; choose another"):
        write_atomically(tmp_path / "new" / "folder" / "file" / "below", b"1")
