"""A face finder for tests without the extra `faces`: squares of known colours are faces, their shades the person."""

from collections.abc import Sequence

import torch
from torch import Tensor

from carousel.vision.faces import FOUND, Face

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}


def find_colours(photo: Tensor, least: float = FOUND, blurs: Sequence[float] = (0.0,)) -> list[Face]:
    """A face where a colour stands on grey. Its point is its colour: the darker, the farther from the full one."""
    found = []
    height, width = photo.shape[1:]
    for pattern in COLOURS.values():
        wanted = torch.tensor(pattern, dtype=torch.bool)[:, None, None]
        there = ((photo > 90) & (photo.float() - photo.float().amin(0) > 60) == wanted).all(0)
        if there.float().mean() < 0.01:
            continue
        rows, columns = there.nonzero().T
        box = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)
        left, top, right, bottom = (float(x) for x in box)
        point = torch.zeros(128)
        point[:3] = (photo[:, there].float().mean(1) / 255).where(wanted[:, 0, 0], torch.zeros(3))
        found.append(Face((left, top, right, bottom), 1.0, point.repeat(len(blurs), 1)))
    return sorted(found, key=lambda face: face.box)
