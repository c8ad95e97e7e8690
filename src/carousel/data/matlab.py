"""Lists of matrices from a MATLAB 5 file, the format in which the polyphonic music sets are handed around.

MathWorks, "MAT-File Format", version 5: a header of 128 bytes, then elements, each a type and a size of four bytes and
its data, padded to eight; what is four bytes or less stands in the second word. A variable is an element that holds its
flags, shape, name and values; zlib may have compressed it. Only numbers and cells of numbers are read: nothing in the
file is ever run.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from carousel.errors import DataError

MATRIX, COMPRESSED, CELLS = 14, 15, 1
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}


def read_cells(path: str | Path) -> dict[str, list[Tensor]]:
    """The cell arrays of a file by name, each a list of float32 matrices.

    Raises:
        DataError: there is no such file, or it is not of that format.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be opened (got {error.strerror}); a MATLAB 5 file; check the path") from None
    try:
        if content[126:128] != b"IM":
            raise ValueError(f"{len(content)} bytes with no MATLAB 5 header")
        return dict(_variables(content[128:]))
    except (ValueError, KeyError, IndexError, struct.error, zlib.error) as error:
        raise DataError(f"{path}: not readable (got {error}); a little-endian MATLAB 5 file; copy it again") from None


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The type and the data of each element."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind >> 16:  # a small element: size and type in one word, the data in the next
            yield kind & 0xFFFF, data[at + 4 : at + 4 + (kind >> 16)]
            at += 8
            continue
        if at + 8 + size > len(data):
            raise ValueError(f"an element of {size} bytes where {len(data) - at - 8} are left")
        yield kind, data[at + 8 : at + 8 + size]
        at += 8 + (size if kind == COMPRESSED else -(-size // 8) * 8)


def _variables(data: bytes) -> Iterator[tuple[str, list[Tensor]]]:
    for kind, content in _elements(data):
        if kind == COMPRESSED:
            yield from _variables(zlib.decompress(content))
        elif kind == MATRIX:
            (_, flags), _, (_, name), *values = _elements(content)
            if flags[0] == CELLS:
                yield name.decode("ascii"), [_matrix(value) for _, value in values]


def _matrix(content: bytes) -> Tensor:
    _, (_, shape), _, (kind, values), *_ = _elements(content)
    columns_first = np.frombuffer(values, "<" + TYPES[kind]).reshape(np.frombuffer(shape, "<i4"), order="F")
    return torch.from_numpy(np.ascontiguousarray(columns_first, dtype=np.float32))
