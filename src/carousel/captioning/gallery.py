"""A gallery: a plain folder with photos of the people and landmarks that its owner wants named.

    GALLERY/people/NAME/*.jpg       photos of one face each
    GALLERY/landmarks/NAME/*.jpg

Beside the photos of each NAME, `embeddings.safetensors` keeps what the encoders made of them, and nothing else is kept
anywhere. It follows the photos: what is added, changed or deleted by hand is so there too when it is next read.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from carousel.errors import ConfigError, DataError, ModelFileError, PhotoError
from carousel.training.model_file import parts_fit, read_model_file, write_model_file
from carousel.vision import faces, landmarks
from carousel.vision.landmarks import View
from carousel.vision.photo import SUFFIXES, find_photos, read_file, read_upright

EMBEDDINGS = "embeddings.safetensors"
ENLARGE = 1.5  # of small photos: less than of those to be captioned, so that a face here is found again there
KINDS = {"people": faces.FINGERPRINT, "landmarks": landmarks.FINGERPRINT}

Row = Mapping[str, Tensor]


class Entity(NamedTuple):
    """Someone or something with a name: its folder, in "people" or "landmarks", and the photos in it."""

    kind: str
    name: str
    folder: Path
    photos: list[Path]


class Gallery(NamedTuple):
    """What captions are to name: points (N, 128) of each person, two a photo, and the views of each landmark."""

    people: dict[str, Tensor]
    landmarks: dict[str, list[View]]

    @classmethod
    def load(cls, folder: str | Path) -> Gallery:
        """Read a gallery, and look at the photos that are new. Raises `DataError`, `PhotoError`, `ModelFileError`."""
        found = entities(folder)
        if not found:
            raise DataError(
                f"{folder}: an empty gallery (got no photos in people/NAME/ or landmarks/NAME/); at least one; run: "
                "carousel gallery add people/NAME/*.jpg"
            )
        gallery = cls({}, {})
        for kind, name, *_ in found:
            rows = [row for e in found if (e.kind, e.name) == (kind, name) for row in embedded(e)]
            with parts_fit(folder):
                if kind == "people":
                    gallery.people[name] = torch.cat([row["points"] for row in rows])
                else:
                    gallery.landmarks[name] = [View(row["pooled"], row["grid"]) for row in rows]
        return gallery


def entities(folder: str | Path) -> list[Entity]:
    """Whoever and whatever has photos in the gallery, by kind and name. Raises `DataError` where there is no folder."""
    if not Path(folder).is_dir():
        raise DataError(
            f"{folder}: no such gallery (got {'a file' if Path(folder).exists() else 'a path to nothing'}); a folder "
            "with people/NAME/ or landmarks/NAME/; make it with carousel gallery add"
        )
    places = [(kind, place) for kind in KINDS for place in sorted(Path(folder, kind).glob("[!.]*")) if place.is_dir()]
    found = [Entity(kind, _name(place.name), place, _photos(place)) for kind, place in places]
    return [entity for entity in found if entity.photos]


def add_photos(
    folder: str | Path,
    photos: str | Path | Iterable[str | Path],
    *,
    person: str | None = None,
    landmark: str | None = None,
) -> list[Entity]:
    """Copy photos into a gallery, which begins to exist; all of them, or where one will not do none.

    A photo's own place, people/NAME/ or landmarks/NAME/, says whose it is, or else `person` or `landmark` does. Photos
    that lie in the gallery already are looked at where they are. Returns what was added to. Raises `PhotoError` for a
    photo that cannot be read, or of a person that does not have exactly one face, and `ConfigError`.
    """
    content: dict[Path, bytes] = {}
    rows: dict[str, Row] = {}
    for photo in find_photos(photos):
        kind, name = _whose(photo, person, landmark)
        data = read_file(photo)
        rows[_key(data)] = _embed(kind, photo, data)
        path = Path(folder, kind, name, photo.name)
        if content.get(path, path.read_bytes() if path.exists() else data) != data:  # another photo of this name
            path = path.with_stem(f"{path.stem}-{_key(data)[:8]}")
        content[path] = data
    try:
        for path, data in content.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_bytes(data)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written (got {error.strerror}); a writable folder; choose another with --gallery"
        ) from None
    touched = {path.parent for path in content}
    added = [entity for entity in entities(folder) if entity.folder in touched]
    for entity in added:
        embedded(entity, rows)
    return added


def remove(folder: str | Path, name: str) -> list[Entity]:
    """Delete a person or landmark, photos and embeddings. Raises `DataError` where there is none of this name."""
    known = entities(folder)
    gone = [entity for entity in known if entity.name == _name(name)]
    if not gone:
        names = ", ".join(entity.name for entity in known[:5]) + (", ..." if len(known) > 5 else "")
        raise DataError(
            f"{folder}: nobody and nothing of this name (got {name!r}); {names or 'the gallery is empty'}; "
            "carousel gallery list shows all"
        )
    for entity in gone:
        entity.folder.unlink() if entity.folder.is_symlink() else shutil.rmtree(entity.folder)
    return gone


def embedded(entity: Entity, made: Mapping[str, Row] = {}) -> list[Row]:
    """What the encoder makes of each photo: `made` already, or kept beside them, or made now; all of it is kept."""
    path = entity.folder / EMBEDDINGS
    kept = _read(path, KINDS[entity.kind])
    rows: dict[str, Row] = {}
    for photo in entity.photos:
        data = read_file(photo)
        key = _key(data)
        rows[key] = kept.get(key) or made.get(key) or _embed(entity.kind, photo, data)
    if rows.keys() != kept.keys():
        tensors = {f"{key}.{name}": tensor for key, row in rows.items() for name, tensor in row.items()}
        write_model_file(path, tensors, {"task": "gallery", "encoder": KINDS[entity.kind]})
    return list(rows.values())


def _read(path: Path, encoder: str) -> dict[str, Row]:
    """The rows that were kept, by their photos' content; none where the file is missing or damaged."""
    try:
        tensors, facts = read_model_file(path, "gallery")
    except ModelFileError:
        return {}
    if facts.get("encoder") != encoder:
        raise ModelFileError(
            f"{path}: made with another encoder (got {facts.get('encoder')}); {encoder}; delete this file, and it is "
            "made again from the photos"
        )
    rows: dict[str, dict[str, Tensor]] = {}
    with parts_fit(path):
        for name, tensor in tensors.items():
            key, part = name.split(".")
            rows.setdefault(key, {})[part] = tensor
    return dict(rows)


def _embed(kind: str, photo: Path, data: bytes) -> Row:
    if kind == "landmarks":
        view = landmarks.look(read_upright(data, landmarks.SIDE, enlarge=ENLARGE, name=str(photo)))
        return {"pooled": view.pooled, "grid": view.grid.half()}
    found = faces.find_faces(read_upright(data, faces.SIDE, enlarge=ENLARGE, name=str(photo)), blurs=(0.0, faces.BLUR))
    if len(found) != 1:
        got = "no face was found (got 0" if not found else f"more than one face (got {len(found)}"
        raise PhotoError(
            f"{photo}: {got}); exactly one upright face, of at least {faces.SMALLEST / ENLARGE:.0f} pixels and "
            f"{faces.SMALLEST / faces.SIDE:.0%} of the longer side; crop the photo or choose another"
        )
    return {"points": found[0].points}


def _whose(photo: Path, person: str | None, landmark: str | None) -> tuple[str, str]:
    """The kind and the folder's name for a photo."""
    if person is not None and landmark is not None:
        raise ConfigError("--person: has no meaning with --landmark (got both); one of the two; leave one out")
    given = person if person is not None else landmark
    if given is not None:
        if not given.strip(". ") or not given.isprintable() or set(given) & set('/\\:*?"<>|'):
            raise ConfigError(
                f"the name: not one that a folder can have (got {given!r}); letters and spaces; change it"
            )
        return "people" if person is not None else "landmarks", given.strip()
    *_, kind, name, _ = ["", *photo.absolute().parts]
    if kind not in KINDS:
        raise ConfigError(
            f"{photo}: it is not said whose photo this is (got the folder {kind}/{name}); people/NAME/ or "
            "landmarks/NAME/; move it, or give --person NAME or --landmark NAME"
        )
    return kind, name


def _key(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _photos(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("[!.]*")) if file.suffix.lower() in SUFFIXES and file.is_file()]


def _name(folder: str) -> str:
    return folder.replace("_", " ").strip()
