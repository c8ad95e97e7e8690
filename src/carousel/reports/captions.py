"""The page of ``carousel caption --report``: each photo, its sentences, and how sure the model was of each word."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carousel.reports.attention import lit
from carousel.reports.page import write_page
from carousel.reports.thumbnails import Thumbnail, thumbnail

UNSURE = 0.2  # a word below this probability is drawn as a guess
TILE = 112  # pixels of a photo that is drawn once for each word


class Sentence(Protocol):
    """What the page reads of one caption; any object with these fields will do."""

    @property
    def text(self) -> str:
        """The sentence as it is to be read."""

    @property
    def logprob(self) -> float:
        """Natural logarithm of the sentence's probability: the sum over its words."""

    @property
    def novel(self) -> bool:
        """Whether the sentence is absent from the training set."""

    @property
    def words(self) -> Sequence[tuple[str, float]]:
        """Each word with its probability given the words before it."""


class Heat(NamedTuple):
    """A photo once for each of some words, bright where the word was seen."""

    what: str
    photo: NDArray[np.uint8]  # (S, S, 3)
    words: Sequence[str]
    maps: NDArray[np.float32]  # (words, 7, 7)
    shares: Sequence[float] | None = None  # to stand beside each word


@dataclass(frozen=True)
class PhotoResult:
    """One photo and what came of it: captions, best first, or the line that says why there are none.

    `image` is the picture or its file's bytes; without it the page shows the name alone. `named` are the people and
    landmarks that a gallery knows in it, None where no gallery was asked.
    """

    file: str | os.PathLike[str]
    captions: Sequence[Sentence] = ()
    image: bytes | Image.Image | None = None
    error: str | None = None
    heat: Sequence[Heat] = ()
    named: Sequence[str] | None = None


def write_caption_report(
    path: str | os.PathLike[str], photos: Sequence[PhotoResult], *, title: str, model_line: str
) -> Path:
    """Write one HTML page that shows `photos`, complete in itself, and return its path.

    `model_line` says in a few words which model spoke. Photos are embedded at 480 pixels, some 40 kB each.

    Raises:
        ConfigError: the page cannot be written; an older page at `path` is still whole.

    >>> import tempfile
    >>> broken = PhotoResult("dog.jpg", error="dog.jpg: not a picture (got 0 bytes)")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_caption_report(f"{folder}/page.html", [broken], title="Captions", model_line="Show and Tell")
    ...     "not a picture (got 0 bytes)" in page.read_text(encoding="utf-8")
    True
    """
    captions = [caption for photo in photos for caption in photo.captions]
    return write_page(
        path,
        "captions.html.j2",
        title=title,
        model_line=model_line,
        photos=[_card(photo) for photo in photos],
        failed=sum(photo.error is not None for photo in photos),
        sentences=len(captions),
        novel=sum(caption.novel for caption in captions),
        unsure=UNSURE,
    )


class _Card(NamedTuple):
    """A photo as the template shows it."""

    name: str
    file: str
    picture: Thumbnail | None
    alt: str
    error: str | None
    sentences: list[_Line]
    heat: list[_Row]
    named: Sequence[str] | None


class _Row(NamedTuple):
    """Maps as the template shows them."""

    what: str
    tiles: list[tuple[str, float | None, Thumbnail | None]]


class _Line(NamedTuple):
    """A sentence as the template shows it: `share` is its probability over that of the photo's most probable."""

    text: str
    words: Sequence[tuple[str, float]]
    probability: float
    logprob: float
    share: float
    novel: bool
    confidence: float | None  # that it is right, where the model has learned to judge
    grade: str | None
    unsure_of: str | None  # the sentence that a hedge replaces
    school: str | None  # who says it
    first: bool  # of its school's

    @property
    def named(self) -> bool:
        """Whether names stand in the text where the model had other words."""
        return bool(self.words) and self.text != " ".join(word for word, _ in self.words)


def _card(photo: PhotoResult) -> _Card:
    name = Path(photo.file).name or str(photo.file)
    alt = photo.captions[0].text if photo.captions else name
    picture, heat = thumbnail(photo.image), [_row(heat) for heat in photo.heat if heat.words]
    return _Card(name, str(photo.file), picture, alt, photo.error, _lines(photo.captions), heat, photo.named)


def _row(heat: Heat) -> _Row:
    plain = Image.fromarray(heat.photo).resize((TILE, TILE))
    pictures = [thumbnail(lit(plain, shares)) for shares in heat.maps]
    shares: Sequence[float | None] = heat.shares or [None] * len(heat.words)
    return _Row(heat.what, list(zip(heat.words, shares, pictures, strict=True)))


def _lines(captions: Sequence[Sentence]) -> list[_Line]:
    schools = [getattr(caption, "school", None) for caption in captions]
    by_school = list(zip(captions, schools, strict=True))
    most = {school: max(c.logprob for c, other in by_school if other == school) for school in schools}
    return [
        _Line(
            c.text,
            c.words,
            math.exp(c.logprob),
            c.logprob,
            math.exp(c.logprob - most[school]),
            c.novel,
            getattr(c, "confidence", None),
            getattr(c, "grade", None),
            getattr(c, "unsure_of", None),
            school,
            schools.index(school) == k,
        )
        for k, (c, school) in enumerate(by_school)
    ]
