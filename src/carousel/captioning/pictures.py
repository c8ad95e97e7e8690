"""The captioner's data: photos as the encoder's frozen part sees them, with their captions as words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from carousel.captioning.photo_encoder import ALL_FROZEN, Kept, Looked, PhotoEncoder
from carousel.data.captions import CaptionedPhoto, CaptionSet, Split, read_captions
from carousel.data.vocabulary import caption_words
from carousel.errors import DataError
from carousel.training.progress import LiveProgress
from carousel.vision.feature_cache import cached_features

Tell = Callable[[str], None]


class Pictures(NamedTuple):
    """The photos of one split as the encoder's frozen part sees them, with their captions as word lists."""

    files: list[str]
    lower: Kept  # half precision; see `rows`
    mirrored: Kept | None
    captions: list[list[list[str]]]


def load_pictures(
    photos: Sequence[CaptionedPhoto],
    folder: Path,
    encoder: PhotoEncoder,
    *,
    mirror: bool,
    live: LiveProgress,
    grid: bool = False,
) -> Pictures:
    """Run the frozen part of the encoder over `photos`, or take from the cache what it made of them before.

    Of an encoder that is frozen as a whole the pooled features are kept, and the grid where it is asked for.
    A photo that cannot be read is told about and left out. Raises `PhotoError` where none can be read.
    """

    def look(batch: Tensor) -> dict[str, Tensor]:
        views = {"plain": batch} | ({"mirrored": batch.flip(3)} if mirror else {})
        return {name: tensor for view in views for name, tensor in _named(view, encoder.lower(views[view]), grid)}

    kind = ("-mirrored" if mirror else "") + ("-grid" if grid and encoder.finetune_from == ALL_FROZEN else "")
    with live.counting("looking at the photos") as counted:
        found = cached_features(
            [folder / photo.file for photo in photos],
            look,
            encoder.fingerprint + kind,
            progress=counted,
            on_error=lambda error: live.tell(str(error)),
        )
    for note in found.notes:
        live.tell(note)
    by_file = {folder / photo.file: photo for photo in photos}
    kept = [by_file[file] for file in found.files]
    captions = [[caption_words(caption) for caption in photo.captions] for photo in kept]
    plain, mirrored = (_view(view, found.tensors) for view in ("plain", "mirrored"))
    assert plain is not None
    return Pictures([p.file for p in kept], plain, mirrored, captions)


def _named(view: str, kept: Kept, grid: bool) -> Iterator[tuple[str, Tensor]]:
    """The tensors to keep of a view, under names that `_view` knows."""
    if not isinstance(kept, Looked):
        yield view, kept
    elif not grid:
        yield view, kept.pooled
    else:
        yield from ((f"{view}.{field}", tensor) for field, tensor in kept._asdict().items())


def _view(view: str, tensors: Mapping[str, Tensor]) -> Kept | None:
    if f"{view}.grid" in tensors:
        return Looked(*(tensors[f"{view}.{field}"] for field in Looked._fields))
    return tensors.get(view)


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
