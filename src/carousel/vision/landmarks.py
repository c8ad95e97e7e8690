"""The same place in two photos: alike as a whole, and made of the same parts in the same arrangement."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.vision.efficientnet import WEIGHTS_SHA256, EfficientNetLite0

SIDE = 256  # pixels of the longer side, for `carousel.vision.photo.read_upright`
BLOCK = 11  # whose input is the map of local features: 112 channels, one cell for 16 x 16 pixels
SUREST = 60  # matches of which every pair proposes where the other photo lies
TOLERANCE = 1.0  # cells
FINGERPRINT = f"efficientnet-lite0-{SIDE}-block-{BLOCK}-{WEIGHTS_SHA256[:12]}"

Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of the photo


class View(NamedTuple):
    """A photo as it is compared: as a whole (1280,), of length 1, and its parts (112, H, W)."""

    pooled: Tensor
    grid: Tensor


class Agreement(NamedTuple):
    """How many parts of one photo lie in another as one similarity says, and where there."""

    parts: int
    box: Box


def look(photo: Tensor) -> View:
    """The view of 8-bit RGB ``(3, H, W)``."""
    encoder = _encoder()
    with torch.inference_mode():
        grid = encoder.stem_to(photo[None], BLOCK)
        pooled = encoder.from_block(grid, BLOCK).mean((2, 3))
    return View(F.normalize(pooled[0], dim=0), grid[0])


def agreement(known: View, seen: View) -> Agreement:
    """How well `known` is found in `seen`, by geometric verification of matched parts.

        m(i) = argmax_j <a_i, b_j>,   kept where i = argmax_k <a_k, b_m(i)>
        q = z p + t,   z and t complex: turned by at most 35 degrees, 0.4 to 2.5 times as large
        parts = max over (z, t) of |{i: |z p_i + t - q_m(i)| <= 1 cell}|

    a_i and b_j are the cells of both maps less their photo's mean, of length 1; p and q their places. A similarity
    goes through two matches: every pair of the 60 surest proposes one, so that nothing is left to chance. After Philbin
    et al. 2007, "Object retrieval with large vocabularies and fast spatial matching", with a network's cells as parts.

    >>> view = look(torch.arange(3 * 256 * 256).reshape(3, 256, 256).remainder(251).to(torch.uint8))
    >>> agreement(view, view).parts > 100
    True
    """
    (a, p), (b, q) = _cells(known.grid), _cells(seen.grid)
    alike = a @ b.T
    best, match = alike.max(1)
    kept = (alike.argmax(0)[match] == torch.arange(len(a))).nonzero()[:, 0]
    p, q = p[kept], q[match[kept]]
    surest = best[kept].argsort(descending=True, stable=True)[:SUREST]
    i, j = (surest[side] for side in torch.triu_indices(len(surest), len(surest), 1))
    far = (p[j] - p[i]).abs() >= 3
    i, j = i[far], j[far]
    z = (q[j] - q[i]) / (p[j] - p[i])
    likely = (z.abs() > 0.4) & (z.abs() < 2.5) & (z.angle().abs() < 0.6)
    z, i = z[likely], i[likely]
    if not len(z):
        return Agreement(0, (0.0, 0.0, 0.0, 0.0))
    there = (z[:, None] * (p - p[i, None]) + q[i, None] - q).abs() <= TOLERANCE
    fits = there[there.sum(1).argmax()]
    return Agreement(int(fits.sum()), _box(q[fits], seen.grid))


def _cells(grid: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors (N, C) of a map's cells, and their places (N,) as complex numbers."""
    cells = grid.float().flatten(1).T
    down, right = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in grid.shape[1:]), indexing="ij")
    return F.normalize(cells - cells.mean(0), dim=1), torch.complex(right, down).flatten()


def _box(places: Tensor, grid: Tensor) -> Box:
    """The box around these cells."""
    height, width = grid.shape[1:]
    left, right = float(places.real.min()) / width, float(places.real.max() + 1) / width
    top, bottom = float(places.imag.min()) / height, float(places.imag.max() + 1) / height
    return left, top, right, bottom


@cache
def _encoder() -> EfficientNetLite0:
    return EfficientNetLite0.pretrained().folded()
