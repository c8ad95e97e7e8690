"""Photos with their captions, from any of the usual files, in one shape and with known splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from carousel.data.caption_formats import Record, read_records
from carousel.data.text_file import read_text
from carousel.data.vocabulary import caption_words
from carousel.errors import ConfigError, DataError

Split = Literal["train", "val", "test"]
Held = Literal["val", "test"]

FEW_MISSING = 0.02  # the share of photos that may be absent; Flickr8k itself lists one that does not exist

SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "restval": "train",  # Karpathy's name for the rest of COCO's validation photos, which everyone trains on
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class CaptionedPhoto:
    """One photo: its file, relative to the folder of photos, its captions, and the split it belongs to, if any."""

    file: str
    captions: list[str]
    split: Split | None = None


class CaptionSet(NamedTuple):
    """What was read, in the order of the file, and what the user should be told about it, one line each."""

    photos: list[CaptionedPhoto]
    notes: list[str]

    def part(self, split: Split) -> list[CaptionedPhoto]:
        """The photos of one split."""
        return [photo for photo in self.photos if photo.split == split]


def read_captions(
    path: str | Path,
    *,
    photos: str | Path | None = None,
    lists: Mapping[Split, str | Path] | None = None,
    fractions: Mapping[Held, float] | None = None,
    seed: int = 0,
) -> CaptionSet:
    """Read a captioned-photo data set; `carousel.data.caption_formats` shows the formats, found out by content.

    Args:
        path: the captions.
        photos: the folder of photos. Up to 2 % of them may be absent: these are left out, with a note.
        lists: a text file of photo names, one a line, for each split. They rule over what the captions say, and photos
            in no list are left out.
        fractions: such as ``{"val": 0.1, "test": 0.1}``, for photos whose split is not given; the rest are for
            training. Where a photo falls depends on ``seed`` and its file name alone.

    Raises `DataError` with file and line for whatever is wrong with a file, `ConfigError` for wrong fractions.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        ...     _ = file.write("image,caption\\na.jpg,A dog .\\na.jpg,Two dogs .\\nb.jpg,A cat .\\n")
        ...     file.flush()
        ...     read_captions(file.name).photos[0]
        CaptionedPhoto(file='a.jpg', captions=['A dog .', 'Two dogs .'], split=None)
    """
    found = _merged(read_records(path), path)
    notes: list[str] = []
    if lists is not None:
        found = _listed(found, lists, path, notes)
    if fractions is not None:
        found = _divided(found, fractions, seed)
    if photos is not None:
        found = _present(found, Path(photos), path, notes)
    return CaptionSet(found, notes)


def _merged(records: Iterable[Record], path: str | Path) -> list[CaptionedPhoto]:
    """Bring the records of each photo together, in the order in which photos first occur."""
    found: dict[str, CaptionedPhoto] = {}
    places: dict[str, Record] = {}
    for record in records:
        where = f"{path}:{record.place}"
        if not record.file or not record.file.isprintable():
            raise DataError(f"{where}: no file name (got {record.file!r}); the name of a photo is needed; mend it")
        for caption in record.captions or [""]:
            if not caption_words(caption):
                raise DataError(
                    f"{where}: an empty caption of {record.file} (got {caption!r}); at least one word is needed; "
                    "add one or remove the caption"
                )
        captions = [" ".join(caption.split()) for caption in record.captions]
        split = _split(record.split, where)
        earlier = places.setdefault(record.file, record)
        if earlier is record:
            found[record.file] = CaptionedPhoto(record.file, captions, split)
        elif record.whole or earlier.whole:
            raise DataError(
                f"{where}: a photo twice (got {record.file}, also at {earlier.place}); one entry a photo is allowed; "
                "join the two"
            )
        elif found[record.file].split != split:
            raise DataError(
                f"{where}: a photo in two splits (got {record.file} in {record.split!r}, at {earlier.place} in "
                f"{earlier.split!r}); one split a photo is allowed; choose one"
            )
        else:
            found[record.file].captions.extend(captions)
    if not found:
        raise DataError(f"{path}: no captions (got 0 photos); at least one is needed; check the file")
    return list(found.values())


def _split(name: str | None, where: str) -> Split | None:
    name = (name or "").strip()
    if not name:
        return None
    if name.lower() not in SPLITS:
        raise DataError(
            f"{where}: an unknown split (got {name!r}); {', '.join(SPLITS)} are allowed; rename or remove it"
        )
    return SPLITS[name.lower()]


def _listed(
    found: list[CaptionedPhoto], lists: Mapping[Split, str | Path], path: str | Path, notes: list[str]
) -> list[CaptionedPhoto]:
    """Keep the photos that the lists name, with the split of the list."""
    captioned = {photo.file for photo in found}
    places: dict[str, tuple[Split, str]] = {}
    for split, listing in lists.items():
        for number, line in enumerate(read_text(listing).split("\n"), start=1):
            file, where = line.strip(), f"{listing}:{number}"
            if not file:
                continue
            if file not in captioned:
                raise DataError(
                    f"{where}: a photo without captions (got {file}); photos in {path} are allowed; "
                    "remove the line or add captions"
                )
            if file in places:
                raise DataError(
                    f"{where}: a photo listed twice (got {file}, also at {places[file][1]}); once is allowed; "
                    "remove one of the lines"
                )
            places[file] = split, where
    if len(places) < len(found):
        notes.append(f"{path}: {len(found) - len(places)} of {len(found)} photos are in no list and left out")
    return [replace(photo, split=places[photo.file][0]) for photo in found if photo.file in places]


def _divided(found: list[CaptionedPhoto], fractions: Mapping[Held, float], seed: int) -> list[CaptionedPhoto]:
    """Give the photos without a split one, in the order of a hash of seed and name."""
    shares = fractions.values()
    if set(fractions) - set(get_args(Held)) or min(shares, default=0) < 0 or not sum(shares) < 1:
        raise ConfigError(
            f"fractions: wrong shares (got {dict(fractions)}); 'val' and 'test' from 0 up, together below 1, are "
            "allowed; change them"
        )
    open_ones = sorted(
        (photo.file for photo in found if photo.split is None),
        key=lambda file: hashlib.blake2b(f"{seed}:{file}".encode()).digest(),
    )
    splits: dict[str, Split] = dict.fromkeys(open_ones, "train")
    start = 0
    for split in get_args(Held):
        stop = start + round(fractions.get(split, 0.0) * len(open_ones))
        splits |= dict.fromkeys(open_ones[start:stop], split)
        start = stop
    return [replace(photo, split=splits.get(photo.file, photo.split)) for photo in found]


def _present(found: list[CaptionedPhoto], folder: Path, path: str | Path, notes: list[str]) -> list[CaptionedPhoto]:
    """Leave out photos that are not in the folder, as long as they are few."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of photos (got {folder.name!r}); a folder is needed; check the path")
    missing = [photo.file for photo in found if not (folder / photo.file).is_file()]
    if not missing:
        return found
    shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    if len(missing) > FEW_MISSING * len(found):
        raise DataError(
            f"{path}: {len(missing)} of {len(found)} photos are not in {folder} (got none of {shown}); at most "
            f"{FEW_MISSING:.0%} may be absent; check the folder or remove their captions"
        )
    notes.append(f"{path}: {len(missing)} of {len(found)} photos are not in {folder} and left out: {shown}")
    absent = set(missing)
    return [photo for photo in found if photo.file not in absent]
