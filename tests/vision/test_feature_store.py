"""The store gives each key once and knows its files by their content; test_feature_cache.py damages it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from carousel.vision.feature_store import FeatureStore


def test_a_key_in_two_shards_is_given_once(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.write(["a", "b"], {"x": torch.tensor([1, 2])})
    store.write(["b", "c"], {"x": torch.tensor([2, 3])})
    found = [
        (key, int(tensors["x"][row])) for rows, tensors in store.read({"a", "b", "c"}) for key, row in rows.items()
    ]
    assert sorted(found) == [("a", 1), ("b", 2), ("c", 3)]


def test_the_same_rows_again_are_the_same_file(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    for _ in range(2):
        store.write(["a"], {"x": torch.tensor([1])})
    assert len(list(tmp_path.iterdir())) == 1


def test_every_type_comes_back(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    row = torch.tensor([[1.5, 0.0]])
    tensors = {str(kind): row.to(kind) for kind in (torch.float16, torch.bfloat16, torch.int64, torch.bool)}
    store.write(["a"], tensors)
    ((_, found),) = store.read({"a"})
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert list(FeatureStore(tmp_path / "none").read({"a"})) == []


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        FeatureStore(tmp_path).write(["a"], {"x": torch.tensor([1])})
    assert list(tmp_path.iterdir()) == []
