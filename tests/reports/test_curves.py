"""Learning curves as a picture."""

import io

import numpy as np
from PIL import Image

from carousel.reports.curves import curves_png


def picture(**options: object) -> np.ndarray:
    some = {"gru": [[(0.0, 3.0), (1.0, 1.0)], [(0.0, 2.0), (1.0, 0.5)]], "lstm": [[(0.0, 2.5), (1.0, float("nan"))]]}
    png = curves_png(some, title="adding", x="steps", y="loss", **options)  # type: ignore[arg-type]
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_each_curve_has_its_colour() -> None:
    pixels = picture().reshape(-1, 3)
    for colour in ((31, 119, 180), (255, 127, 14)):
        assert (np.abs(pixels - colour).max(1) < 8).any()


def test_levels_and_a_logarithmic_axis_change_the_picture() -> None:
    plain, level, logarithmic = picture(), picture(levels={"the mean": 1.5}), picture(log=True)
    assert (plain != level).any()
    assert (plain != logarithmic).any()


def test_a_logarithm_of_what_is_not_positive_is_not_taken() -> None:
    levels = {"nothing": 0.0}
    assert (picture(levels=levels, log=True) == picture(levels=levels)).all()
