"""What is kept of photos: the pooled features, or the grid as well, each looked at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from carousel.captioning import Looked, PhotoEncoder
from carousel.captioning.pictures import Pictures, load_pictures
from carousel.captioning.training import CaptioningTask
from carousel.data.captions import CaptionedPhoto
from carousel.training.progress import LiveProgress
from carousel.vision.photo import read_photo


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[CaptionedPhoto]:
    monkeypatch.setenv("CAROUSEL_CACHE", str(tmp_path / "cache"))
    files = [f"{i}.png" for i in range(3)]
    for i, file in enumerate(files):
        Image.effect_noise((224, 224), 40 * i + 20).convert("RGB").save(tmp_path / file)
    return [CaptionedPhoto(file, ["a picture"], "train") for file in files]


def load(photos: list[CaptionedPhoto], folder: Path, encoder: PhotoEncoder, **options: bool) -> Pictures:
    with LiveProgress() as live:
        return load_pictures(photos, folder, encoder, live=live, **{"mirror": False, **options})


def test_the_grid_is_kept_beside_the_pooled_features(
    photos: list[CaptionedPhoto], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = PhotoEncoder()
    plain = load(photos, tmp_path, encoder).lower
    found = load(photos, tmp_path, encoder, mirror=True, grid=True)
    assert isinstance(plain, Tensor) and isinstance(found.lower, Looked) and isinstance(found.mirrored, Looked)
    assert torch.equal(found.lower.pooled, plain)  # what was kept before stays true
    assert all(field.dtype == torch.float16 for field in (*found.lower, *found.mirrored))
    batch = torch.stack([read_photo(tmp_path / photo.file) for photo in photos])
    for kept, seen in ((found.lower, encoder(batch)), (found.mirrored, encoder(batch.flip(3)))):
        torch.testing.assert_close(tuple(t.float() for t in kept), tuple(seen), atol=5e-3, rtol=5e-3)

    def again(photos: Tensor) -> None:
        raise AssertionError("looked at twice")

    monkeypatch.setattr(encoder, "lower", again)
    kept = load(photos, tmp_path, encoder, mirror=True, grid=True)
    for one, other in ((kept.lower, found.lower), (kept.mirrored, found.mirrored)):
        assert isinstance(one, Looked) and all(map(torch.equal, one, other))


def test_what_lies_under_trained_blocks_is_the_same_with_a_grid(photos: list[CaptionedPhoto], tmp_path: Path) -> None:
    encoder = PhotoEncoder(11)
    kept, again = (load(photos, tmp_path, encoder, grid=grid).lower for grid in (False, True))
    assert isinstance(kept, Tensor) and isinstance(again, Tensor) and torch.equal(kept, again)
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 1


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_mirrored_photo_takes_its_grid_along(mirrored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    task = CaptioningTask.__new__(CaptioningTask)
    there = Looked(*(torch.arange(4.0).view(4, *[1] * (i > 0), 1) for i in range(3)))
    turned = Looked(*(-field for field in there))
    task.train = Pictures(list("abcd"), there, turned, [])

    class Settings:
        seed = 0

    task.config = Settings()  # type: ignore[assignment]
    monkeypatch.setattr(torch, "rand", lambda n, generator: torch.full((n,), 0.4 if mirrored else 0.6))
    found = task._maybe_mirrored([3, 1], 0, 0)
    assert isinstance(found, Looked)
    assert all(field.flatten().tolist() == ([-3, -1] if mirrored else [3, 1]) for field in found)
