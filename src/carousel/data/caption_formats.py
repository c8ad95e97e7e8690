"""The files that captions come in, told apart by their content, each as one stream of `Record`.

JSON Lines     {"file": "a.jpg", "captions": ["A dog .", "Two dogs ."], "split": "train"}
table          a header, then one or more rows a photo; commas, tabs, semicolons or bars
token file     a.jpg#0<TAB>A dog .                           (Flickr8k and Flickr30k)
split JSON     {"images": [{"filename", "sentences": [{"raw"}], "split"}]}      (Karpathy)
COCO JSON      {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from carousel.data.text_file import read_text
from carousel.errors import DataError

FILE_NAMES = (
    "file",
    "image",
    "filename",
    "file_name",
    "image_name",
    "image_file",
    "image_path",
    "photo",
    "img",
    "path",
)
CAPTION_NAMES = ("captions", "caption", "text", "sentences", "sentence", "comment", "description")
SPLIT_NAMES = ("split", "set", "subset", "partition")

_TOKEN_LINE = re.compile(r"(?P<file>.+)#(?P<number>\d+)\t(?P<caption>.*)")
_DELIMITERS = ("\t", ",", ";", "|")


class Record(NamedTuple):
    """What one line or entry says of a photo."""

    place: str  # where in the file, to go behind its name: "12" for a line, "images[3]" for an entry
    file: str
    captions: list[str]
    split: str | None = None  # as written
    whole: bool = False  # it claims to hold all captions of the photo, so that a second one is a mistake


def read_records(path: str | Path) -> Iterator[Record]:
    """Read a caption file of any of the formats above. Raises `DataError` with the line of what is wrong."""
    text = read_text(path)
    if text.lstrip().startswith(("{", "[")):
        return _json(text, path)
    if _TOKEN_LINE.match(text.lstrip().partition("\n")[0]):
        return _token_file(text, path)
    return _table(text, path)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, numbered from 1. Not ``splitlines``, which also splits at U+2028 inside a caption."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.strip()


def _json(text: str, path: str | Path) -> Iterator[Record]:
    number, line = next(_lines(text))
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        first = None
    if isinstance(first, dict) and "images" not in first:
        for number, line in _lines(text):
            yield _record(_load(line, path, first_line=number), path, str(number))
        return
    document = _load(text, path)
    if isinstance(document, list):
        for i, entry in enumerate(document):
            yield _record(entry, path, f"[{i}]")
    elif isinstance(document, dict) and "annotations" in document:
        yield from _coco(document, path)
    else:
        yield from _karpathy(document, path)


def _load(text: str, path: str | Path, first_line: int = 1) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        got = error.doc[error.pos : error.pos + 20].partition("\n")[0]
        raise DataError(
            f"{path}:{first_line + error.lineno - 1}: not JSON: {error.msg} (got {got!r} at column {error.colno}); "
            'JSON Lines is one {"file": ..., "captions": [...]} a line; mend the line'
        ) from error
    except RecursionError as error:
        raise DataError(f"{path}:{first_line}: JSON nested too deep to read; check the file") from error


def _record(entry: object, path: str | Path, place: str) -> Record:
    entry = _mapping(entry, path, place)
    file = _get(entry, FILE_NAMES, path, place)
    captions = _get(entry, CAPTION_NAMES, path, place)
    split = next((entry[name] for name in SPLIT_NAMES if entry.get(name) is not None), None)
    whole = not isinstance(captions, str)
    texts = captions if isinstance(captions, list) else [captions]
    return Record(
        place,
        _text(file, "file name", path, place),
        [_text(caption, "caption", path, place) for caption in texts],
        None if split is None else _text(split, "split", path, place),
        whole,
    )


def _karpathy(document: object, path: str | Path) -> Iterator[Record]:
    for i, entry in enumerate(_entries(_mapping(document, path, "1"), "images", path)):
        place = f"images[{i}]"
        image = _mapping(entry, path, place)
        file = _text(_get(image, ("filename", "file_name"), path, place), "file name", path, place)
        folder = image.get("filepath")
        captions = []
        for sentence in _entries(image, "sentences", path, place):
            raw = _get(_mapping(sentence, path, place), ("raw",), path, place)
            captions.append(_text(raw, "caption", path, place))
        split = None if image.get("split") is None else _text(image["split"], "split", path, place)
        yield Record(place, f"{folder}/{file}" if folder else file, captions, split, whole=True)


def _coco(document: Mapping[str, object], path: str | Path) -> Iterator[Record]:
    files = {}
    for i, entry in enumerate(_entries(document, "images", path)):
        place = f"images[{i}]"
        image = _mapping(entry, path, place)
        file = _get(image, ("file_name", "filename"), path, place)
        files[str(_get(image, ("id",), path, place))] = _text(file, "file name", path, place)
    for i, entry in enumerate(_entries(document, "annotations", path)):
        place = f"annotations[{i}]"
        annotation = _mapping(entry, path, place)
        image_id = str(_get(annotation, ("image_id",), path, place))
        if image_id not in files:
            raise DataError(
                f"{path}:{place}: a caption of no photo (got image_id {image_id}); ids of 'images' are allowed; "
                "add the image or remove the caption"
            )
        caption = _get(annotation, ("caption",), path, place)
        yield Record(place, files[image_id], [_text(caption, "caption", path, place)])


def _entries(mapping: Mapping[str, object], name: str, path: str | Path, place: str = "1") -> list[object]:
    value = _get(mapping, (name,), path, place)
    if not isinstance(value, list):
        raise DataError(f"{path}:{place}: {name!r} is no list (got {_shown(value)}); a list is needed; mend the file")
    return value


def _mapping(value: object, path: str | Path, place: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise DataError(
            f"{path}:{place}: not a JSON object (got {_shown(value)}); "
            '{"file": ..., "captions": [...]} is needed; mend the entry'
        )
    return value


def _get(mapping: Mapping[str, object], names: Sequence[str], path: str | Path, place: str) -> object:
    for name in names:
        if mapping.get(name) is not None:
            return mapping[name]
    raise DataError(
        f"{path}:{place}: no {names[0]!r} (got {', '.join(map(repr, mapping)) or 'nothing'}); "
        f"{_either(names)} is needed; add it"
    )


def _text(value: object, what: str, path: str | Path, place: str) -> str:
    if not isinstance(value, str):
        raise DataError(
            f"{path}:{place}: {what} is no text (got {_shown(value)}); a string is needed; put it in quotes"
        )
    return value


def _token_file(text: str, path: str | Path) -> Iterator[Record]:
    seen: dict[tuple[str, str], int] = {}
    for number, line in _lines(text):
        match = _TOKEN_LINE.fullmatch(line)
        if match is None:
            raise DataError(
                f"{path}:{number}: not a token line (got {_shown(line)}); "
                "'name.jpg#0', a tab and a caption are needed; mend the line"
            )
        file, caption_number, caption = match.group("file", "number", "caption")
        first = seen.setdefault((file, caption_number), number)
        if first != number:
            raise DataError(
                f"{path}:{number}: a caption twice (got {file}#{caption_number}, also on line {first}); "
                "each number once a photo is allowed; remove one"
            )
        yield Record(str(number), file, [caption])


def _table(text: str, path: str | Path) -> Iterator[Record]:
    header, delimiter = _header(re.split(r"[\r\n]", text, maxsplit=1)[0], path)
    file = _column(header, FILE_NAMES, path)
    captions = [i for i, name in enumerate(header) if name.rstrip("_0123456789") in CAPTION_NAMES]
    if not captions:
        captions = [_column(header, CAPTION_NAMES, path)]
    split = next((header.index(name) for name in SPLIT_NAMES if name in header), None)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    line = 1
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise DataError(
                f"{path}:{line}: not a table row (got {error}); quotes must pair and stand around whole cells; "
                "mend the line"
            ) from error
        if row is None:
            return
        if row and line > 1:
            if len(row) != len(header):
                raise DataError(
                    f"{path}:{line}: wrong number of cells (got {len(row)}); the header has {len(header)}; "
                    "put quotes around cells that contain the delimiter"
                )
            texts = [row[i].strip() for i in captions]
            yield Record(
                str(line),
                row[file].strip(),
                [caption for caption in texts if caption] or [""],
                None if split is None else row[split],
            )
        line = rows.line_num + 1


def _header(line: str, path: str | Path) -> tuple[list[str], str]:
    """The column names in a header line, in lower case, and the delimiter that finds the most of them."""
    found: dict[str, list[str]] = {}
    for delimiter in _DELIMITERS:
        try:
            cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error as error:
            raise DataError(
                f"{path}:1: not a header (got {error}); names of columns are needed; check the file"
            ) from error
        found[delimiter] = [re.sub(r"[\s-]+", "_", cell.strip().lower()) for cell in cells]
    delimiter = max(_DELIMITERS, key=lambda delimiter: len(found[delimiter]))
    return found[delimiter], delimiter


def _column(header: Sequence[str], names: Sequence[str], path: str | Path) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise DataError(
        f"{path}:1: no column {names[0]!r} (got {', '.join(map(repr, header))}); {_either(names)} is needed; "
        "rename a column or add a header line"
    )


def _either(names: Sequence[str]) -> str:
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}" if others else last


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
