"""Every kind of picture that people and attackers have, and the one line that each broken one gets."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from carousel.errors import PhotoError
from carousel.vision.photo import MAX_PIXELS, find_photos, read_photo

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def corners(width: int = 64, height: int = 32) -> Image.Image:
    """Red top left, green top right, blue bottom left, white bottom right."""
    image = Image.new("RGB", (width, height), WHITE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    return image


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))


def message(source: str | Path | bytes) -> str:
    with pytest.raises(PhotoError) as caught:
        read_photo(source)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_three_formats_give_the_same_square(kind: str) -> None:
    photo = read_photo(encoded(corners(640, 320), kind), size=32)
    assert photo.dtype == torch.uint8 and photo.shape == (3, 32, 32) and photo.is_contiguous()
    for (row, column), colour in {(6, 6): RED, (6, 25): GREEN, (25, 6): BLUE, (25, 25): WHITE}.items():
        assert (photo[:, row, column].int() - torch.tensor(colour)).abs().max() < 12


def test_nothing_is_cropped() -> None:
    image = Image.new("RGB", (400, 100), WHITE)
    image.paste(RED, (0, 0, 50, 100))
    assert read_photo(encoded(image), size=16)[1, :, 0].tolist() == [0] * 16


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_undone(orientation: int, kind: str) -> None:
    held = {  # how an upright picture looks in the file, for each value of the tag
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    image = corners(64, 64)
    for step in held[orientation]:
        image = image.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = read_photo(encoded(image, kind, exif=exif.tobytes()), size=16)
    expected = read_photo(encoded(corners(64, 64), kind), size=16)
    assert (photo.int() - expected.int()).abs().float().mean() < 3


def test_a_damaged_exif_tag_is_no_reason_to_refuse_or_to_warn() -> None:
    photo = read_photo(encoded(corners(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(9)), size=8)
    assert photo.shape == (3, 8, 8)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr"])
def test_modes_become_rgb(mode: str) -> None:
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    image = Image.new("L", (40, 30), 255).convert("RGB").convert(mode)
    assert read_photo(encoded(image, kind), size=8).min() >= 254


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    grey = Image.fromarray(np.full((10, 10), 128 * 256, dtype=np.uint16))
    assert grey.mode == "I;16"
    assert read_photo(encoded(grey), size=4).unique().tolist() == [128]


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 0), (128, 127)])
def test_transparency_is_laid_on_white(alpha: int, expected: int) -> None:
    for image in (Image.new("RGBA", (20, 20), (0, 0, 0, alpha)), Image.new("LA", (20, 20), (0, alpha))):
        for kind in ("PNG", "WEBP"):
            options = {"lossless": True} if kind == "WEBP" else {}
            photo = read_photo(encoded(image, kind, **options), size=4)
            assert (photo.int() - expected).abs().max() <= 1


def test_hidden_colours_do_not_bleed_out_of_transparent_areas() -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((255, 255, 255, 255), (32, 0, 64, 64))
    assert read_photo(encoded(image), size=7).min() >= 254


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    assert read_photo(encoded(image, transparency=0), size=4).unique().tolist() == [255]


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    red, blue = Image.new("RGB", (16, 16), RED), Image.new("RGB", (16, 16), BLUE)
    content = encoded(red, kind, save_all=True, append_images=[blue], **({"lossless": True} if kind == "WEBP" else {}))
    assert read_photo(content, size=4)[:, 0, 0].tolist() == list(RED)


def test_one_pixel_is_a_photo() -> None:
    assert read_photo(encoded(Image.new("RGB", (1, 1), GREEN)), size=4)[1].unique().tolist() == [255]


def test_a_large_jpeg_is_close_to_its_slow_decoding() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 180, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((2400, 1600), Image.Resampling.BICUBIC)
    content = encoded(image, "JPEG", quality=95)
    slow = np.asarray(Image.open(io.BytesIO(content)).resize((224, 224), Image.Resampling.BICUBIC)).astype(int)
    difference = np.abs(read_photo(content, size=224).permute(1, 2, 0).numpy() - slow)
    assert difference.mean() < 2 and difference.max() < 16


def test_too_many_pixels_are_refused_from_the_header() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert message(png_header(5001, 5000)) == (
            "photo: too many pixels (got 5001 x 5000); at most 25 million are allowed; save a smaller copy"
        )
        assert "(got 9000 x 9000)" in message(png_header(9000, 9000))
        for side in (10_000, 20_000):  # Pillow's own warning, and its error
            assert "too many pixels (got far more)" in message(png_header(side, side))
    assert MAX_PIXELS == 25_000_000


def test_a_webp_that_claims_a_huge_canvas() -> None:
    side = (16383 - 1).to_bytes(3, "little")
    chunks = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + side + side
    assert "photo: " in message(b"RIFF" + struct.pack("<I", len(chunks)) + chunks)


def test_a_truncated_photo(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    content = encoded(corners(400, 300), "JPEG")
    path.write_bytes(content[: len(content) // 2])
    assert message(path).startswith(f"{path}: the picture is damaged (got image file is truncated")
    assert message(path).endswith("; a complete file is needed; copy it again from where it came")


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"hello, world", "bytes that begin with b'hello, w'"),
        (b"<html><body>404", "a web page"),
        (encoded(Image.new("P", (9, 9)), "GIF"), "a GIF"),
        (encoded(Image.new("RGB", (9, 9)), "BMP"), "a BMP"),
        (encoded(Image.new("RGB", (9, 9)), "TIFF"), "a TIFF"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "a HEIC or AVIF picture or a film"),
        (encoded(Image.new("RGB", (9, 9)))[:20], "a damaged header"),
    ],
)
def test_what_is_no_photo_is_named(tmp_path: Path, content: bytes, got: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    assert message(path) == (
        f"{path}: not a picture that can be read (got {got}); JPEG, PNG and WebP are allowed; save it as one of these"
    )


def test_empty_folder_and_missing(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    assert message(tmp_path / "empty.jpg") == (
        f"{tmp_path}/empty.jpg: the file is empty (got 0 bytes); JPEG, PNG and WebP are allowed; "
        "copy it again from where it came"
    )
    assert message(tmp_path) == (
        f"{tmp_path}: not a photo (got a folder); JPEG, PNG and WebP are allowed; name a file inside it"
    )
    assert message(tmp_path / "none.jpg") == (
        f"{tmp_path}/none.jpg: no such file (got a path to nothing); JPEG, PNG and WebP are allowed; check the path"
    )
    assert "cannot be opened" in message("a\0b.jpg")
    assert message("line\nbreak.jpg").startswith("'line\\nbreak.jpg': no such file")


def test_a_file_too_large_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(300_000_000)
    assert "too large (got 300 MB); at most 200 MB are allowed" in message(path)


SOUND = [encoded(corners(), kind) for kind in ("JPEG", "PNG", "WEBP")]


@given(st.sampled_from(SOUND), st.integers(0, 10**6), st.binary(min_size=1, max_size=8), st.integers(0, 10**6))
def test_damage_anywhere_is_read_or_refused_and_nothing_else(content: bytes, at: int, by: bytes, cut: int) -> None:
    at %= len(content)
    mutant = (content[:at] + by + content[at + len(by) :])[: cut % (2 * len(content)) + 1]
    try:
        assert read_photo(mutant, size=8).shape == (3, 8, 8)
    except PhotoError as error:
        assert "\n" not in str(error)


def test_find_photos(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "in/c.WebP", "in/deep/d.jpeg", "notes.txt", ".hidden.jpg", ".thumbs/e.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_photos([tmp_path / "b.JPG", tmp_path, "other.gif"])
    assert [str(path.relative_to(tmp_path)) if path.is_relative_to(tmp_path) else str(path) for path in found] == [
        "b.JPG",
        "a.png",
        "in/c.WebP",
        "in/deep/d.jpeg",
        "other.gif",
    ]
    assert find_photos(str(tmp_path / "in" / "deep")) == [tmp_path / "in" / "deep" / "d.jpeg"]


def test_a_folder_without_photos(tmp_path: Path) -> None:
    with pytest.raises(PhotoError) as caught:
        find_photos(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: no photos in this folder (got 0 files named .jpg, .jpeg, .png, .webp); "
        "JPEG, PNG and WebP are allowed; name another folder"
    )
