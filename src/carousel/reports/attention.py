"""Where a captioner looked for each word: the photo once for every word, lit by that word's map."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

TILE, LINE, GAP = 224, 26, 8  # pixels
DARK = 0.25  # of the light where least was seen
EVEN = 0.02  # of the greatest: maps that differ less from place to place say nothing
PAPER, INK = "#fffefb", "#211f1c"


class LookedAt(NamedTuple):
    """A photo and, for each word of a sentence, where it was looked at."""

    photo: NDArray[np.uint8]  # (S, S, 3)
    words: Sequence[str]
    maps: NDArray[np.float32]  # (words, 7, 7), shares of attention
    sentinel: NDArray[np.float32] | None = None  # (words,), the share that went to no place at all


def attention_picture(photos: Sequence[LookedAt]) -> bytes:
    """One PNG with a row for each photo: the photo itself, then once for each word, bright where it was looked at.

    Light is least where the word's own map is least, and full where it is greatest. Under a word stands, where there is
    a sentinel, the share that did go to places.

    >>> photo = LookedAt(np.zeros((224, 224, 3), np.uint8), ["a", "dog"], np.ones((2, 7, 7), np.float32) / 49)
    >>> Image.open(io.BytesIO(attention_picture([photo]))).size
    (704, 266)
    """
    columns = 1 + max(len(photo.words) for photo in photos)
    size = (GAP + columns * (TILE + GAP), GAP + len(photos) * (TILE + LINE + GAP))
    sheet = Image.new("RGB", size, PAPER)
    for row, shown in enumerate(photos):
        top = GAP + row * (TILE + LINE + GAP)
        plain = Image.fromarray(shown.photo).resize((TILE, TILE))
        sheet.paste(plain, (GAP, top))
        for k, word in enumerate(shown.words):
            left = GAP + (k + 1) * (TILE + GAP)
            sheet.paste(lit(plain, shown.maps[k]), (left, top))
            seen = "" if shown.sentinel is None else f"  {1 - float(shown.sentinel[k]):.0%}"
            middle = (left + TILE // 2, top + TILE + LINE // 2)
            ImageDraw.Draw(sheet).text(middle, word + seen, INK, ImageFont.load_default(16), anchor="mm")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def lit(photo: Image.Image, shares: NDArray[np.float32]) -> Image.Image:
    """The photo, dark where the map is least and bright where it is greatest; all bright where it is even.

    >>> here = np.zeros((7, 7), np.float32)
    >>> here[0, 6] = 0.5
    >>> shown = lit(Image.new("RGB", (70, 70), "white"), here)
    >>> shown.getpixel((68, 2)), shown.getpixel((2, 68))
    ((255, 255, 255), (63, 63, 63))
    """
    least, most = float(shares.min()), float(shares.max())
    even = most - least <= EVEN * most
    levels = np.full(shares.shape, 255.0) if even else 255 * (shares - least) / (most - least)
    mask = Image.fromarray(levels.astype(np.uint8)).resize(photo.size, Image.Resampling.BILINEAR)
    return Image.composite(photo, photo.point(lambda value: int(DARK * value)), mask)
