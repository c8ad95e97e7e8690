"""The captioner's data: photos as the encoder's frozen part sees them, with their captions as words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from carousel.captioning.photo_encoder import PhotoEncoder
from carousel.data.captions import CaptionedPhoto, CaptionSet, Split, read_captions
from carousel.data.vocabulary import caption_words
from carousel.errors import DataError
from carousel.training.progress import LiveProgress
from carousel.vision.feature_cache import cached_features

Tell = Callable[[str], None]


class Pictures(NamedTuple):
    """The photos of one split as the encoder's frozen part sees them, with their captions as word lists."""

    files: list[str]
    lower: Tensor  # (N, ...) half precision
    mirrored: Tensor | None
    captions: list[list[list[str]]]


def load_pictures(
    photos: Sequence[CaptionedPhoto],
    folder: Path,
    encoder: PhotoEncoder,
    *,
    mirror: bool,
    live: LiveProgress,
) -> Pictures:
    """Run the frozen part of the encoder over `photos`, or take from the cache what it made of them before.

    A photo that cannot be read is told about and left out. Raises `PhotoError` where none can be read.
    """

    def look(batch: Tensor) -> dict[str, Tensor]:
        seen = {"plain": encoder.lower(batch)}
        return seen | {"mirrored": encoder.lower(batch.flip(3))} if mirror else seen

    with live.counting("looking at the photos") as counted:
        found = cached_features(
            [folder / photo.file for photo in photos],
            look,
            encoder.fingerprint + ("-mirrored" if mirror else ""),
            progress=counted,
            on_error=lambda error: live.tell(str(error)),
        )
    for note in found.notes:
        live.tell(note)
    by_file = {folder / photo.file: photo for photo in photos}
    kept = [by_file[file] for file in found.files]
    captions = [[caption_words(caption) for caption in photo.captions] for photo in kept]
    return Pictures([p.file for p in kept], found.tensors["plain"], found.tensors.get("mirrored"), captions)


def training_set(
    path: str | Path,
    images: str | Path,
    *,
    lists: Mapping[Split, str | Path] | None,
    seed: int,
    tell: Tell,
) -> CaptionSet:
    """The captions, with a seeded tenth for validation where the file names no validation photos."""
    found = read_captions(path, photos=images, lists=lists)
    if not found.part("val"):
        tell("no validation photos are named: a seeded 10 % of the photos without a split are kept for validation")
        found = read_captions(path, photos=images, lists=lists, fractions={"val": 0.1}, seed=seed)
    for note in found.notes:
        tell(note)
    for split in ("train", "val"):
        if not any(photo.split == split for photo in found.photos):
            raise DataError(
                f"{path}: no {split} photos (got {len(found.photos)} photos in all); at least one; name a split"
            )
    return found
