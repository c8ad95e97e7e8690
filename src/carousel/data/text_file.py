"""Text files, whole or line by line: UTF-8, with a byte order mark or without, plain or gzip; or a line says why."""

from __future__ import annotations

import gzip
import io
import re
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from carousel.errors import DataError


def read_text(path: str | Path) -> str:
    """The text of a file, its line ends untouched.

    Gzip is known by its first bytes, whatever the name. Raises `DataError` for a file that is missing, a folder,
    unreadable, damaged, empty, or not UTF-8 (with the line).
    """
    with _opened(path) as file:
        content = file.read()
    return _decode(content, path)


def text_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """The lines of a file and their numbers from 1, in Unicode's normal form C, without reading it whole.

    Lines end with ``\\n``, ``\\r\\n`` or ``\\r``, and are given without it. Raises `DataError` as `read_text` does, but
    for an empty file, which has no lines.
    """
    # What is not UTF-8 becomes lone surrogates, so that the line that holds it is known.
    with _opened(path) as file, io.TextIOWrapper(file, "utf-8-sig", "surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            if bad := _NOT_UTF8.search(line):
                raise _not_utf8(path, number, ord(bad[0]) & 0xFF)
            yield number, unicodedata.normalize("NFC", line.removesuffix("\n"))


def first_bytes(path: str | Path, count: int) -> bytes:
    """What the file begins with, unzipped."""
    with _opened(path) as file:
        return file.read(count)


_NOT_UTF8 = re.compile("[\udc80-\udcff]")


@contextmanager
def _opened(path: str | Path) -> Iterator[BinaryIO]:
    """The file as bytes, unzipped; whatever happens to it inside the block becomes a `DataError`."""
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if zipped else file
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file (got a path to nothing); a text file is needed; check the path"
        ) from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: not a file (got a folder); a text file is needed; name a file inside it") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: damaged gzip (got {error}); a complete file is needed; copy it again from where it came"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be opened (got {getattr(error, 'strerror', None) or error}); a readable file is needed; "
            "check its permissions"
        ) from error


def _decode(content: bytes, path: str | Path) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from behind the byte order mark, which is on line 1 and so moves no line.
        line = error.object[: error.start].count(b"\n") + 1
        raise _not_utf8(path, line, error.object[error.start]) from error
    if not text.strip():
        raise DataError(f"{path}: the file is empty (got {len(content)} bytes); some text is needed; check the path")
    return text


def _not_utf8(path: str | Path, line: int, byte: int) -> DataError:
    return DataError(f"{path}:{line}: not UTF-8 (got byte 0x{byte:02x}); text files must be UTF-8; save it as UTF-8")
