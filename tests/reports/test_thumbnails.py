"""Thumbnails: small, upright, on white, and none where there is no picture."""

import base64
from io import BytesIO

import pytest
from PIL import Image

from carousel.reports.thumbnails import MOST_PIXELS, Thumbnail, thumbnail


def opened(result: Thumbnail | None) -> Image.Image:
    assert result is not None
    picture = Image.open(BytesIO(base64.b64decode(result.uri.partition(",")[2])))
    assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (result.width, result.height))
    return picture


def close(picture: Image.Image, expected: tuple[int, int, int]) -> bool:
    found = picture.getpixel((picture.width // 2, picture.height // 2))
    assert isinstance(found, tuple)
    return all(abs(a - b) <= 6 for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("size", "expected"), [((960, 640), (480, 320)), ((300, 1200), (120, 480)), ((20, 10), (20, 10))]
)
def test_longest_side(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert opened(thumbnail(Image.new("RGB", size))).size == expected


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 128, (128, 128, 128)),
        ("1", 1, (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("LA", (0, 0), (255, 255, 255)),
        ("I;16", 257 * 100, (100, 100, 100)),
        ("P", 0, (0, 0, 0)),
    ],
)
def test_every_mode_becomes_rgb_on_white(
    mode: str, colour: int | tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    assert close(opened(thumbnail(Image.new(mode, (40, 30), colour))), expected)


def test_exif_rotation_is_applied() -> None:
    picture = Image.new("RGB", (80, 40))
    exif = picture.getexif()
    exif[0x0112] = 6  # a quarter turn
    buffer = BytesIO()
    picture.save(buffer, "JPEG", exif=exif)
    assert opened(thumbnail(buffer.getvalue())).size == (40, 80)


def test_the_picture_itself_is_left_alone() -> None:
    picture = Image.new("RGB", (960, 640))
    thumbnail(picture)
    assert picture.size == (960, 640)


def test_no_picture() -> None:
    buffer = BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    assert thumbnail(None) is None
    assert thumbnail(b"") is None
    assert thumbnail(buffer.getvalue()[:60]) is None


def test_files_are_limited() -> None:
    for size, kind in [((5001, MOST_PIXELS // 5000), "PNG"), ((64, 64), "TIFF")]:
        buffer = BytesIO()
        Image.new("1", size).save(buffer, kind)
        assert thumbnail(buffer.getvalue()) is None
