"""Read a text file whole: UTF-8 with or without a byte order mark, plain or gzip, and one line where it is neither."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from carousel.errors import DataError


def read_text(path: str | Path) -> str:
    """The text of a file, its line ends untouched.

    Gzip is known by its first bytes, whatever the name. Raises `DataError` for a file that is missing, a folder,
    unreadable, damaged, empty, or not UTF-8 (with the line).
    """
    try:
        content = Path(path).read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
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
    return _decode(content, path)


def _decode(content: bytes, path: str | Path) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from behind the byte order mark, which is on line 1 and so moves no line.
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}:{line}: not UTF-8 (got byte 0x{error.object[error.start]:02x}); text files must be UTF-8; "
            "save it as UTF-8"
        ) from error
    if not text.strip():
        raise DataError(f"{path}: the file is empty (got {len(content)} bytes); some text is needed; check the path")
    return text
