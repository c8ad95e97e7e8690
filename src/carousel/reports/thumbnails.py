"""Photos as small JPEGs inside the page itself."""

from __future__ import annotations

import base64
import io
import warnings
from typing import NamedTuple

from PIL import Image, ImageOps

LONGEST_SIDE = 480  # pixels
QUALITY = 82
MOST_PIXELS = 25_000_000
FORMATS = ("JPEG", "PNG", "WEBP")  # Pillow's other decoders stay shut


class Thumbnail(NamedTuple):
    """A picture ready for an ``<img>``: a data URI and the size to reserve for it."""

    uri: str
    width: int
    height: int


def thumbnail(photo: bytes | Image.Image | None) -> Thumbnail | None:
    """`photo`, upright and at most 480 pixels long, as JPEG in a data URI; `None` where no picture can be made of it.

    >>> thumbnail(Image.new("RGBA", (960, 320)))[1:]
    (480, 160)
    >>> thumbnail(b"not a picture") is None
    True
    """
    if photo is None:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow warns about many a harmless tag
            return _encode(_on_white(_upright(photo)))
    except Exception:  # a decoder meets hostile bytes here; whatever it raises, there is no picture to show
        return None


def _upright(photo: bytes | Image.Image) -> Image.Image:
    if isinstance(photo, Image.Image):
        return ImageOps.exif_transpose(photo)
    picture = Image.open(io.BytesIO(photo), formats=FORMATS)
    if picture.width * picture.height > MOST_PIXELS:
        raise ValueError("too many pixels")
    picture.draft(None, (2 * LONGEST_SIDE, 2 * LONGEST_SIDE))  # a large JPEG decodes much faster at half its size
    return ImageOps.exif_transpose(picture)


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        # Pillow's own conversion clips 16 bits at 255, which would turn such photos white.
        return picture.convert("F").point(lambda value: value * (1 / 257) + 0).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    paper = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(paper, layer).convert("RGB")


def _encode(picture: Image.Image) -> Thumbnail:
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, optimize=True, progressive=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(uri, picture.width, picture.height)
