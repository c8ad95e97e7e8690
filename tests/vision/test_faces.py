"""Faces: with the extra `faces` on two photos that everyone has, without it one line."""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from carousel.captioning.entities import NEAR
from carousel.errors import ConfigError
from carousel.vision import faces
from carousel.vision.faces import ENLARGE, SIDE, Face, find_faces
from carousel.vision.photo import read_upright

PHOTOS = Path(__file__).parents[2] / "examples/photos"
ASTRONAUT = PHOTOS / "astronaut.jpg"
HOPPER = Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"
THERE = all(importlib.util.find_spec(package) for package in ("dlib", faces.PACKAGE))
needs_extra = pytest.mark.skipif(not THERE, reason="faces want the extra: pip install 'carousel-rnn[faces]'")


def faces_of(photo: Path | Image.Image) -> list[Face]:
    if isinstance(photo, Path):
        return find_faces(read_upright(photo, SIDE, enlarge=ENLARGE))
    file = io.BytesIO()
    photo.save(file, "PNG")
    return find_faces(read_upright(file.getvalue(), SIDE, enlarge=ENLARGE))


@needs_extra
def test_two_people_are_two() -> None:
    (collins,), (hopper,) = faces_of(ASTRONAUT), faces_of(HOPPER)
    assert collins.box == pytest.approx((0.345, 0.15, 0.52, 0.326), abs=0.02)
    assert collins.points.shape == (1, 128) and float((collins.points - hopper.points).norm()) > NEAR + 0.1
    assert faces_of(PHOTOS / "dogs.jpg") == faces_of(PHOTOS / "moose.jpg") == []


ALTERED = {
    "cropped": lambda photo: photo.crop((100, 30, 400, 330)),
    "blurred": lambda photo: photo.filter(ImageFilter.GaussianBlur(2)),
    "dark": lambda photo: ImageEnhance.Brightness(photo).enhance(0.3),
}


@needs_extra
@pytest.mark.parametrize("how", ALTERED)
@pytest.mark.parametrize("file", [ASTRONAUT, HOPPER], ids=["astronaut", "hopper"])
def test_an_altered_copy_stays_near(file: Path, how: str) -> None:
    (known,) = find_faces(read_upright(file, SIDE, enlarge=ENLARGE), blurs=(0.0, faces.BLUR))
    (altered,) = faces_of(ALTERED[how](Image.open(file).convert("RGB").resize((512, 512))))
    assert float((known.points - altered.points).norm(dim=1).min()) < NEAR


@needs_extra
def test_faces_go_from_left_to_right() -> None:
    both = Image.new("RGB", (1024, 512))
    both.paste(Image.open(HOPPER).convert("RGB").resize((427, 500)), (40, 0))
    both.paste(Image.open(ASTRONAUT), (512, 0))
    left, right = faces_of(both)
    assert left.box[2] < 0.5 < right.box[0]


def test_without_dlib_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    faces._models.cache_clear()
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(ConfigError) as raised:
        faces_of(ASTRONAUT)
    assert str(raised.value) == (
        "faces: people are recognised by another package (got no dlib); dlib-bin; "
        "run: pip install 'carousel-rnn[faces]'"
    )


def test_without_or_with_other_weights_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(faces, "PACKAGE", "no_such_package")
    with pytest.raises(ConfigError) as raised:
        faces._weights("shape_predictor_5_face_landmarks.dat")
    assert str(raised.value) == (
        "faces: the weights are not installed (got no no_such_package); version 0.3.0; run: pip install "
        "'carousel-rnn[faces]'"
    )
    (tmp_path / "altered/models").mkdir(parents=True)
    (tmp_path / "altered/__init__.py").touch()
    (tmp_path / "altered/models/shape_predictor_5_face_landmarks.dat").write_bytes(b"other")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(faces, "PACKAGE", "altered")
    with pytest.raises(
        ConfigError, match=r"not the known weights \(got SHA-256 d9298a10d1b0\); c4b1e9804792; run: pip"
    ):
        faces._weights("shape_predictor_5_face_landmarks.dat")


def test_the_package_of_the_weights_is_not_imported() -> None:
    assert faces.PACKAGE not in sys.modules


def test_a_dark_photo_is_brightened_and_a_bright_one_left_alone() -> None:
    bright = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    assert faces._lit(bright) is bright
    lit = faces._lit((bright * 0.35).astype(np.uint8))
    assert np.abs(lit.astype(int) - bright).max() <= 8
    assert faces._lit(np.full((80, 80, 3), 10, np.uint8)).max() == 40  # four times and no more
    assert faces._lit(np.zeros((80, 80, 3), np.uint8)).max() == 0
