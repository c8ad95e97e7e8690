"""Features come from the cache exactly when photo and encoder are the same, and damage costs time only."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from carousel.errors import PhotoError
from carousel.vision import feature_cache
from carousel.vision.feature_cache import Features, cache_folder, cached_features, encoder_fingerprint
from carousel.vision.photo import read_photo

PHOTOS = 10


class Encoder:
    """Mean colours, their index of the brightest, and a count of the photos it was shown."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, photos: Tensor) -> dict[str, Tensor]:
        self.seen += len(photos)
        mean = photos.float().mean((2, 3))
        return {"mean": mean, "map": photos[:, :, :2, :2].float(), "brightest": mean.argmax(1)}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("CAROUSEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(feature_cache, "SHARD", 4)
    paths = [tmp_path / f"{i}.png" for i in range(PHOTOS)]
    for i, path in enumerate(paths):
        Image.new("RGB", (20, 10), (10 * i, 5, 100 - 10 * i)).save(path)
    return paths


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture
def features(encoder: Encoder) -> Callable[..., Features]:
    def run(paths: list[Path], **options: object) -> Features:
        return cached_features(paths, encoder, "test", size=8, batch_size=3, **options)

    return run


def shards() -> list[Path]:
    return sorted((cache_folder() / "features" / "test").glob("*.safetensors"))


def test_equal_to_encoding_everything(photos: list[Path], features: Callable[..., Features]) -> None:
    expected = Encoder()(torch.stack([read_photo(path, 8) for path in photos]))
    for found in (features(photos), features(photos)):
        assert found.files == photos and not found.broken and not found.notes
        assert found.tensors["mean"].dtype == torch.float16 and found.tensors["brightest"].dtype == torch.int64
        for name, tensor in expected.items():
            assert torch.equal(found.tensors[name], tensor.to(found.tensors[name].dtype))


def test_a_second_time_nothing_is_computed(
    photos: list[Path], features: Callable[..., Features], encoder: Encoder
) -> None:
    assert features(photos).computed == PHOTOS
    assert features(photos).computed == 0
    assert features(photos[3:5]).computed == 0
    assert encoder.seen == PHOTOS


def test_order_is_the_callers(photos: list[Path], features: Callable[..., Features]) -> None:
    first = features(photos).tensors["mean"]
    mixed = [photos[7], photos[0], photos[7], photos[4]]
    assert torch.equal(features(mixed).tensors["mean"], first[[7, 0, 7, 4]])


def test_content_counts_and_not_the_name(
    photos: list[Path], features: Callable[..., Features], encoder: Encoder
) -> None:
    features(photos)
    renamed = photos[0].rename(photos[0].with_name("renamed.png"))
    copied = Path(shutil.copy(photos[1], photos[1].with_name("copy.png")))
    assert features([renamed, copied]).computed == 0
    Image.new("RGB", (20, 10), "white").save(photos[2])
    changed = features(photos[1:])
    assert changed.computed == 1 and changed.tensors["mean"][1].tolist() == [255, 255, 255]


def test_another_encoder_is_another_cache(photos: list[Path], encoder: Encoder) -> None:
    for fingerprint in ("one", "two"):
        assert cached_features(photos, encoder, fingerprint, size=8).computed == PHOTOS


def test_outputs_that_contradict_the_cache_are_a_mistake(photos: list[Path], features: Callable[..., Features]) -> None:
    features(photos[:5])
    with pytest.raises(ValueError, match="other features under this fingerprint"):
        cached_features(photos, lambda batch: {"other": batch[:, 0]}, "test", size=8)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "text", "folder"])
def test_damage_is_computed_again(
    photos: list[Path], features: Callable[..., Features], encoder: Encoder, damage: str
) -> None:
    expected = features(photos).tensors["map"]
    shard = shards()[0]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.unlink()
    if damage == "folder":
        shard.mkdir()
    else:
        shard.write_bytes(
            {"truncate": content[: len(content) // 2], "flip": content, "empty": b"", "text": b"hello"}[damage]
        )
    again = features(photos)
    assert 0 < again.computed < PHOTOS
    assert torch.equal(again.tensors["map"], expected)
    if damage != "folder":
        assert features(photos).computed == 0


def test_a_flipped_bit_anywhere_never_gives_other_features(
    photos: list[Path], features: Callable[..., Features]
) -> None:
    expected = features(photos[:3]).tensors["map"]
    (shard,) = shards()
    content = shard.read_bytes()
    for at in range(0, len(content), 3):
        shard.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        assert torch.equal(features(photos[:3]).tensors["map"], expected)


def test_broken_photos_stop_the_run_or_are_left_out(photos: list[Path], features: Callable[..., Features]) -> None:
    photos[2].write_bytes(b"not a photo")
    photos[5].unlink()
    with pytest.raises(PhotoError, match=r"5\.png: no such file"):
        features(photos)
    told: list[PhotoError] = []
    for option in ("skip", told.append):
        found = features(photos, on_error=option)
        assert [path.name for path in found.files] == [f"{i}.png" for i in range(PHOTOS) if i not in (2, 5)]
        assert len(found.tensors["mean"]) == PHOTOS - 2
        assert found.tensors["mean"][2, 0] == 30
        assert sorted(str(error).split(": ")[0][-5:] for error in found.broken) == ["2.png", "5.png"]
    assert len(told) == 2


def test_nothing_readable_is_an_error(tmp_path: Path, features: Callable[..., Features]) -> None:
    with pytest.raises(PhotoError, match="no such file"):
        features([tmp_path / "none.png"], on_error="skip")
    assert features([]) == Features([], {}, [], 0, [])


def test_what_was_computed_before_a_failure_is_kept(photos: list[Path], features: Callable[..., Features]) -> None:
    photos[8].write_bytes(b"not a photo")
    with pytest.raises(PhotoError, match=r"8\.png"):
        features(photos)
    assert features(photos[:6]).computed == 0


def test_progress_ends_at_the_number_of_photos(photos: list[Path], features: Callable[..., Features]) -> None:
    photos[2].unlink()
    calls: list[tuple[int, int]] = []
    features(photos, on_error="skip", progress=lambda done, total: calls.append((done, total)))
    assert calls[0] == (1, PHOTOS) and calls[-1] == (PHOTOS, PHOTOS) and calls == sorted(calls)


def test_a_cache_that_cannot_be_written_is_a_note(
    photos: list[Path], features: Callable[..., Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAROUSEL_CACHE", str(photos[0]))  # a file, where a folder should be
    found = features(photos)
    assert found.computed == PHOTOS
    assert found.notes == [
        f"{photos[0]}/features/test: features are not kept (got Not a directory); a writable folder is needed; "
        "set CAROUSEL_CACHE to one"
    ]


def test_abandoned_temporary_files_are_swept(photos: list[Path], features: Callable[..., Features]) -> None:
    features(photos[:3])
    old, new = shards()[0].with_suffix(".a.tmp"), shards()[0].with_suffix(".b.tmp")
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    features(photos)
    assert not old.exists() and new.exists()
    assert len(list(shards()[0].parent.glob("*.tmp"))) == 1


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CAROUSEL_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "carousel"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "carousel"
    monkeypatch.setenv("CAROUSEL_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_a_fingerprint_tells_weights_outputs_and_sizes_apart() -> None:
    torch.manual_seed(0)
    layer, other = nn.Linear(3, 3), nn.Linear(3, 3)
    prints = [
        encoder_fingerprint(layer, "a"),
        encoder_fingerprint(other, "a"),
        encoder_fingerprint(layer, "b"),
        encoder_fingerprint(layer, "a", size=96),
        encoder_fingerprint(nn.Sequential(layer), "a"),
    ]
    assert len(set(prints)) == len(prints)
    other.load_state_dict(layer.state_dict())
    assert encoder_fingerprint(other, "a") == prints[0]
