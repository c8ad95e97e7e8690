"""From photo files to captions, or to the line that says why there are none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from carousel.captioning.captions import Caption, Decoding
from carousel.captioning.entities import Entities, entities_in
from carousel.captioning.gallery import Gallery
from carousel.errors import PhotoError
from carousel.vision.photo import read_photo


class PhotoCaptions(NamedTuple):
    """What became of one photo: captions, or the one line that says why there are none."""

    file: str
    captions: list[Caption]
    error: str | None = None
    entities: Entities | None = None  # with a gallery: whom and what of it the photo shows

    def as_json(self) -> dict[str, Any]:
        """As ``carousel caption --json`` prints it."""
        if self.error is not None:
            return {"file": self.file, "error": self.error}
        found: dict[str, Any] = {"file": self.file, "captions": [caption.as_json() for caption in self.captions]}
        return found | ({"entities": self.entities.as_json()} if self.entities else {})


def with_entities(found: PhotoCaptions, gallery: Gallery) -> PhotoCaptions:
    """What became of a photo, with the names of whom and what `gallery` knows in it."""
    if found.error is not None:
        return found
    seen = entities_in(found.file, gallery)
    return found._replace(captions=[seen.name(caption) for caption in found.captions], entities=seen)


class Describing(Protocol):
    """Anything that captions photos, of whichever school."""

    def caption(self, photos: Tensor, decoding: Decoding = ..., /) -> list[list[Caption]]:
        """As `Captioner.caption`."""


def caption_photos(
    captioner: Describing,
    files: Iterable[str | Path],
    decoding: Decoding = Decoding(),  # noqa: B008
    *,
    batch_size: int = 8,
    read: Callable[[str | Path], Tensor] = read_photo,
) -> Iterable[PhotoCaptions]:
    """Caption files in their order, a batch at a time; a photo that cannot be read does not stop the others."""
    batch: list[tuple[str, Tensor | str]] = []
    for file in files:
        try:
            batch.append((str(file), read(file)))
        except PhotoError as error:
            batch.append((str(file), str(error)))
        if len(batch) == batch_size:
            yield from _caption_batch(captioner, batch, decoding)
            batch = []
    yield from _caption_batch(captioner, batch, decoding)


def _caption_batch(
    captioner: Describing, batch: Sequence[tuple[str, Tensor | str]], decoding: Decoding
) -> Iterable[PhotoCaptions]:
    photos = [photo for _, photo in batch if isinstance(photo, Tensor)]
    found = iter(captioner.caption(torch.stack(photos), decoding) if photos else [])
    for file, photo in batch:
        yield PhotoCaptions(file, [], photo) if isinstance(photo, str) else PhotoCaptions(file, next(found))
