"""Photos as small JPEGs inside the page itself."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

from PIL import Image, ImageOps

LONGEST_SIDE = 480  # pixels
QUALITY = 82
MOST_PIXELS = 25_000_000


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
        picture = Image.open(io.BytesIO(photo)) if isinstance(photo, bytes) else photo
        if picture.width * picture.height > MOST_PIXELS:
            return None
        return _encode(_on_white(ImageOps.exif_transpose(picture)))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # all that Pillow raises on damaged files
        return None


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
