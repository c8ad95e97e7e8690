"""Faces in photos, each as a point: photos of one person lie near each other. Wants the extra `faces`."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from carousel.errors import ConfigError

SIDE, ENLARGE = 1024, 3  # what `carousel.vision.photo.read_upright` is to make of a photo
SMALLEST = 80  # pixels: the detector's window
FOUND = 0.2  # the detector's score from which on it is a face; below it, one in three is none
POSSIBLE = -0.2  # from which on it may be one, of somebody known
BLUR = 3.0  # pixels of the face's 150, for a second point that blurred photos are near to
PACKAGE = "face_recognition_models"
WEIGHTS = {
    "shape_predictor_5_face_landmarks.dat": "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
    "dlib_face_recognition_resnet_model_v1.dat": "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
}
FINGERPRINT = (
    f"dlib-resnet-v1-lit-mirrored-blurred-{BLUR:g}-" + WEIGHTS["dlib_face_recognition_resnet_model_v1.dat"][:12]
)
_ADVICE = "run: pip install 'carousel-rnn[faces]'"


class Face(NamedTuple):
    """Where a face is, as shares of the photo's width and height, the detector's score, and its points (N, 128)."""

    box: tuple[float, float, float, float]  # left, top, right, bottom
    score: float
    points: Tensor


def find_faces(photo: Tensor, least: float = FOUND, blurs: Sequence[float] = (0.0,)) -> list[Face]:
    """The upright faces of 8-bit RGB ``(3, H, W)`` from `SMALLEST` pixels on, from left to right, one point a blur.

    Histograms of oriented gradients find them (Dalal and Triggs 2005); five landmarks turn each upright; a residual
    network of 29 layers makes it a point, trained so that points of one person are within 0.6 of each other (King 2017,
    dlib 19.3). The point is the mean of the face's and of its mirror image's.

    Raises `ConfigError` where dlib or the weights are not installed.
    """
    dlib, detect, landmarks, network = _models()
    pixels = _lit(photo.permute(1, 2, 0).contiguous().numpy())
    height, width = pixels.shape[:2]
    found = []
    for box, score in zip(*detect.run(pixels, 0, least)[:2], strict=True):
        edges = (box.left() / width, box.top() / height, (box.right() + 1) / width, (box.bottom() + 1) / height)
        left, top, right, bottom = (min(max(edge, 0.0), 1.0) for edge in edges)
        chip = Image.fromarray(dlib.get_face_chip(pixels, landmarks(pixels, box), size=150))
        points = [_point(network, chip.filter(ImageFilter.GaussianBlur(blur)) if blur else chip) for blur in blurs]
        found.append(Face((left, top, right, bottom), score, torch.stack(points)))
    return sorted(found, key=lambda face: face.box)


def _lit(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A dark photo up to four times as bright, so that one in a hundred of its values is white."""
    white = float(np.percentile(pixels[::4, ::4], 99))
    if white > 240:
        return pixels
    return (pixels * min(255 / max(white, 1.0), 4.0)).clip(0, 255).astype(np.uint8)


def _point(network: Any, chip: Image.Image) -> Tensor:
    both = [np.asarray(chip), np.asarray(chip.transpose(Image.Transpose.FLIP_LEFT_RIGHT))]
    return torch.tensor([list(network.compute_face_descriptor(np.ascontiguousarray(one))) for one in both]).mean(0)


@cache
def _models() -> tuple[Any, Any, Any, Any]:
    """dlib, its detector, the landmarks and the network."""
    try:
        import dlib
    except ImportError:
        raise ConfigError(
            f"faces: people are recognised by another package (got no dlib); dlib-bin; {_ADVICE}"
        ) from None
    landmarks, network = (_weights(name) for name in WEIGHTS)
    return (
        dlib,
        dlib.get_frontal_face_detector(),
        dlib.shape_predictor(landmarks),
        dlib.face_recognition_model_v1(network),
    )


def _weights(name: str) -> str:
    """The file of these weights, unaltered. Their package is not imported: it wants a module that is no more."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"faces: the weights are not installed (got no {PACKAGE}); version 0.3.0; {_ADVICE}")
    path = Path(spec.submodule_search_locations[0]) / "models" / name
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if found != WEIGHTS[name]:
        raise ConfigError(f"{path}: not the known weights (got SHA-256 {found[:12]}); {WEIGHTS[name][:12]}; {_ADVICE}")
    return str(path)
