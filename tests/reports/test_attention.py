"""The picture of where was looked: a row a photo, a tile a word, light where the map is."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from carousel.reports.attention import DARK, GAP, LINE, TILE, LookedAt, attention_picture


def looked_at(words: list[str], place: tuple[int, int], sentinel: float | None = None) -> LookedAt:
    maps = np.zeros((len(words), 7, 7), np.float32)
    maps[:, place[0], place[1]] = 0.3
    share = None if sentinel is None else np.full(len(words), sentinel, np.float32)
    return LookedAt(np.full((224, 224, 3), 200, np.uint8), words, maps, share)


def drawn(*photos: LookedAt) -> Image.Image:
    return Image.open(io.BytesIO(attention_picture(photos)))


def test_every_photo_has_a_row_and_every_word_a_tile() -> None:
    picture = drawn(looked_at(["a", "dog"], (0, 0)), looked_at(["a", "dog", "runs"], (6, 6)))
    assert picture.size == (GAP + 4 * (TILE + GAP), GAP + 2 * (TILE + LINE + GAP))


@pytest.mark.parametrize("place", [(0, 0), (2, 5), (6, 6)])
def test_light_is_where_was_looked(place: tuple[int, int]) -> None:
    picture = drawn(looked_at(["dog"], place)).convert("L")
    for row in range(7):
        for column in range(7):
            x, y = 2 * GAP + TILE + 32 * column + 16, GAP + 32 * row + 16
            light = 200 if (row, column) == place else 200 * DARK
            assert abs(picture.getpixel((x, y)) - light) < 12  # the next place is near
            assert picture.getpixel((GAP + 32 * column + 16, y)) == 200  # the photo itself, in front


def test_the_sentinels_share_is_told() -> None:
    plain, told = drawn(looked_at(["dog"], (0, 0))), drawn(looked_at(["dog"], (0, 0), 0.25))
    under = (0, GAP + TILE, plain.width, plain.height)
    ink = [int((np.asarray(picture.crop(under).convert("L")) < 128).sum()) for picture in (plain, told)]
    assert ink[1] > ink[0] > 0
