"""Files and folders of examples as rows with named columns, read as a stream.

CSV, TSV, ; or |  with a header or without; quotes, also around several lines
JSON Lines        one object a line
Parquet           with the extra `carousel-rnn[parquet]`
CoNLL             a token a line, columns between blanks or tabs, a blank line after each sentence; also CoNLL-U
plain text        one example a line, in the column "text"
parallel text     DIR/train.de and DIR/train.en: line by line, columns "de" and "en"
folders by class  DIR/pos/1.txt, DIR/neg/2.txt: columns "text" and "label"; also DIR/train/pos/1.txt
files by split    DIR/train.csv, DIR/valid.csv, DIR/test.csv, each as above

All may be gzipped but Parquet, which is packed anyway.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from carousel.data.captions import SPLITS, Split
from carousel.data.conll import SUFFIXES, conll_rows, sniff_conll
from carousel.data.delimited import Dialect, delimited_rows, sniff
from carousel.data.rolls import keys_of, read_rolls
from carousel.data.text_file import first_bytes, read_text, text_lines
from carousel.errors import DataError

Kind = Literal["delimited", "json", "parquet", "rolls", "conll", "text", "parallel", "folders"]
NAMES = {
    "delimited": "a table",
    "json": "JSON Lines",
    "parquet": "Parquet",
    "rolls": "piano rolls",
    "conll": "CoNLL columns",
    "text": "plain text",
    "parallel": "parallel text",
    "folders": "folders by class",
}
FILE_SPLITS: Mapping[str, Split] = {**SPLITS, "testa": "val", "testb": "test"}  # CoNLL-2003's names too
DELIMITED = (".csv", ".tsv", ".tab", ".psv", ".ssv")
LOOKED_AT = 1000  # rows from which columns are inferred


class Row(NamedTuple):
    """One example: where it stands, what its columns hold, and its split, if a file or a folder says."""

    place: str  # FILE:LINE
    values: Mapping[str, Any]  # strings; whatever JSON and Parquet have
    split: Split | None = None

    def text(self, column: str) -> str:
        """The column as text, "" where there is nothing; whole numbers without a point.

        Raises `DataError` where it holds a list or an object.
        """
        value = self.values.get(column)
        if value is None:
            return ""
        if isinstance(value, list | dict):
            raise DataError(f"{self.place}: {column} is no text (got {str(value)[:40]}); a string is needed; mend it")
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


class Part(NamedTuple):
    """A file, or with parallel text one for each column, and what is known of all that is in it."""

    files: tuple[Path, ...]
    split: Split | None = None
    label: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows that can be read any number of times, in the order of the files; nothing of them is kept."""

    path: Path
    kind: Kind
    columns: tuple[str, ...]
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()  # what the user should be told, one line each
    dialect: Dialect | None = field(default=None, repr=False)

    def rows(self) -> Iterator[Row]:
        """Every row; blank lines are none. Raises `DataError` with file and line for what is wrong."""
        for part in self.parts:
            for place, values in READERS[self.kind](self, part):
                yield Row(place, values, part.split)

    @cached_property
    def first_rows(self) -> list[Row]:
        """Some rows of each file, from which to infer what the columns are."""
        each = max(1, LOOKED_AT // len(self.parts))
        found = []
        for part in self.parts:
            found += list(islice(replace(self, parts=(part,)).rows(), each))
        return found


def open_table(path: str | Path, val: str | Path | None = None, test: str | Path | None = None) -> Table:
    """The rows of a file or folder, in any of the forms above, found out by name and content.

    Args:
        path: the file or folder.
        val, test: files of the same form with the rows of these splits; the others are for training.

    Raises:
        DataError: there is no such file, nothing is in it, or it is in none of the forms.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     _ = file.write("review;stars\\n\\"Fine;\\nbut long\\";3\\n")
    ...     file.flush()
    ...     table = open_table(file.name)
    ...     table.columns, [dict(row.values) for row in table.rows()]
    (('review', 'stars'), [{'review': 'Fine;\\nbut long', 'stars': '3'}])
    """
    path = Path(path)
    table = _folder(path) if path.is_dir() else _file(path)
    for split, other in (("val", val), ("test", test)):
        if other is not None:
            table = _with_split(table, _folder(Path(other)) if Path(other).is_dir() else _file(Path(other)), split)
    if not table.first_rows:
        raise DataError(f"{path}: no rows (got {NAMES[table.kind]} without any); at least one; check the file")
    return table


def split_named(name: str) -> Split | None:
    """The split that a name speaks of.

    >>> [split_named(name) for name in ("ptb.valid.txt.gz", "test_2016.de", "Dev", "reviews.csv")]
    ['val', 'test', 'val', None]
    """
    return next((FILE_SPLITS[word] for word in re.split(r"[._\-\s]", name.lower()) if word in FILE_SPLITS), None)


def _with_split(table: Table, other: Table, split: Any) -> Table:
    if (table.kind, table.columns) != (other.kind, other.columns):
        raise DataError(
            f"{other.path}: other columns (got {NAMES[other.kind]} with {', '.join(other.columns)}); "
            f"{NAMES[table.kind]} with {', '.join(table.columns)}, as in {table.path}; make them alike"
        )
    kept = [part._replace(split=part.split or "train") for part in table.parts if part.split != split]
    return replace(table, parts=(*kept, *(part._replace(split=split) for part in other.parts)))


def _file(path: Path, split: Split | None = None) -> Table:
    begins = first_bytes(path, 65536)
    part = (Part((path,), split),)
    suffix = next((s for s in reversed(path.suffixes) if s != ".gz"), "").lower()
    if begins.startswith(b"PAR1"):
        return Table(path, "parquet", _parquet_columns(path), part)
    if begins[126:128] == b"IM":  # of MATLAB 5
        return Table(path, "rolls", ("keys", "split"), part)
    if begins.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        objects = islice(_json(Table(path, "json", (), part), part[0]), 100)
        return Table(path, "json", tuple(dict.fromkeys(name for _, one in objects for name in one)), part)
    if not begins.strip(b"\xef\xbb\xbf \t\r\n"):
        raise DataError(f"{path}: the file is empty (got {len(begins)} bytes); some text is needed; check the path")
    if suffix != ".csv" and (columns := sniff_conll(path, sure=suffix in SUFFIXES)):
        return Table(path, "conll", columns.columns, part, dialect=columns)
    if suffix in DELIMITED:
        dialect = sniff(path)
        header = "" if dialect.header else (f"{path}: no header: columns are {', '.join(dialect.columns)}",)
        return Table(path, "delimited", dialect.columns, part, tuple(header), dialect)
    return Table(path, "text", ("text",), part)


def _folder(path: Path) -> Table:
    """Folders by class, or files by split or in parallel; see the top."""
    inside = sorted(p for p in path.iterdir() if not p.name.startswith((".", "README", "LICENSE")))
    folders, files = [p for p in inside if p.is_dir()], [p for p in inside if p.is_file()]
    if folders and not files:
        return _classes(path, folders)
    by_split: dict[Split | None, list[Path]] = {}
    for file in files:
        by_split.setdefault(split_named(file.name), []).append(file)
    if len(by_split) > 1:
        by_split.pop(None, None)  # such as a list of labels beside train, valid and test
    chosen, notes = {}, []
    for split, found in by_split.items():
        sides = _sides(found)
        chosen[split] = next(iter(sides.values()))
        if len(sides) > 1:
            others = ", ".join(sides)
            notes.append(f"{path}: several files for {split or 'the rows'} ({others}); the first is read")
    if not chosen:
        raise DataError(f"{path}: an empty folder (got no files); files or folders of them; check the path")
    endings = {tuple(_ending(file) for file in found) for found in chosen.values()}
    if len(endings) == 1 and len(columns := endings.pop()) > 1:
        parts = [Part(tuple(found), split) for split, found in chosen.items()]
        return Table(path, "parallel", columns, tuple(parts), tuple(notes))
    tables = [_file(found[0], split) for split, found in chosen.items()]
    first = tables[0]
    for other in tables[1:]:
        if (other.kind, other.columns) != (first.kind, first.columns):
            raise DataError(
                f"{other.path}: other columns than {first.path.name} (got {', '.join(other.columns)}); "
                f"{', '.join(first.columns)}; make them alike"
            )
    notes += [note for table in tables for note in table.notes]
    return replace(first, path=path, parts=tuple(part for t in tables for part in t.parts), notes=tuple(notes))


def _sides(files: list[Path]) -> dict[str, list[Path]]:
    """Files of one split by what is before their ending: one for each side of parallel text."""
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(file.name.removesuffix(".gz").rpartition(".")[0], []).append(file)
    return found


def _ending(file: Path) -> str:
    return file.name.removesuffix(".gz").rpartition(".")[2]


def _classes(path: Path, folders: list[Path]) -> Table:
    parts = []
    if all(folder.name.lower() in SPLITS for folder in folders):
        for split in folders:
            below = sorted(p for p in split.iterdir() if p.is_dir())
            parts += [_class(folder, SPLITS[split.name.lower()]) for folder in below]
    else:
        parts = [_class(folder, None) for folder in folders]
    labels = {part.label for part in parts}
    if len(labels) < 2 or not any(part.files for part in parts):
        raise DataError(
            f"{path}: no folders by class (got {len(labels)} with files); two or more, a text file for each "
            "example; check the path"
        )
    return Table(path, "folders", ("text", "label"), tuple(part for part in parts if part.files))


def _class(folder: Path, split: Split | None) -> Part:
    return Part(tuple(sorted(p for p in folder.iterdir() if p.is_file())), split, folder.name)


# --- one reader for each kind: places and values ----------------------------------------------------------------------

Rows = Iterator[tuple[str, Mapping[str, Any]]]


def _delimited(table: Table, part: Part) -> Rows:
    assert table.dialect is not None, "a delimited table was sniffed"
    for line, cells in delimited_rows(part.files[0], table.dialect):
        yield f"{part.files[0]}:{line}", dict(zip(table.columns, cells, strict=True))


def _conll(table: Table, part: Part) -> Rows:
    assert table.dialect is not None, "its columns were found out"
    for line, values in conll_rows(part.files[0], table.dialect):
        yield f"{part.files[0]}:{line}", values


def _json(table: Table, part: Part) -> Rows:
    for number, line in text_lines(part.files[0]):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{part.files[0]}:{number}: not JSON (got {line[:40]!r}: {error}); one object a line; mend the line"
            ) from None
        if not isinstance(found, dict):
            raise DataError(
                f"{part.files[0]}:{number}: not an object (got {line[:40]!r}); one object a line; mend the line"
            )
        yield f"{part.files[0]}:{number}", found


def _text(table: Table, part: Part) -> Rows:
    for number, line in text_lines(part.files[0]):
        if line.strip():
            yield f"{part.files[0]}:{number}", {"text": line}


def _parallel(table: Table, part: Part) -> Rows:
    streams = [text_lines(file) for file in part.files]
    while True:
        lines = [next(stream, None) for stream in streams]
        ended = [file for file, line in zip(part.files, lines, strict=True) if line is None]
        found = [line for line in lines if line is not None]
        if not found:
            return
        if ended:
            raise DataError(
                f"{ended[0]}: fewer lines than its other side (got {found[0][0] - 1}); as many lines in "
                f"{', '.join(file.name for file in part.files)}; mend the files"
            )
        if all(text.strip() for _, text in found):
            yield f"{part.files[0]}:{found[0][0]}", dict(zip(table.columns, (t for _, t in found), strict=True))


def _folders(table: Table, part: Part) -> Rows:
    for file in part.files:
        yield f"{file}:1", {"text": read_text(file), "label": part.label}


def _parquet(table: Table, part: Part) -> Rows:
    number = 0
    for batch in _parquet_file(part.files[0]).iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield f"{part.files[0]}:{number}", row


def _rolls(table: Table, part: Part) -> Rows:
    for split, pieces in read_rolls(part.files[0]).items():
        for number, piece in enumerate(pieces, start=1):
            yield f"{part.files[0]}: {split} {number}", {"keys": keys_of(piece), "split": split}


def _parquet_columns(path: Path) -> tuple[str, ...]:
    return tuple(_parquet_file(path).schema_arrow.names)


def _parquet_file(path: Path) -> Any:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise DataError(
            f"{path}: Parquet wants another package (got no pyarrow); CSV and JSON Lines go without; "
            "pip install 'carousel-rnn[parquet]'"
        ) from None
    try:
        return ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise DataError(
            f"{path}: damaged Parquet (got {str(error).splitlines()[0]}); a whole file; copy it again"
        ) from None


READERS = {
    "delimited": _delimited,
    "json": _json,
    "conll": _conll,
    "text": _text,
    "parallel": _parallel,
    "folders": _folders,
    "parquet": _parquet,
    "rolls": _rolls,
}
