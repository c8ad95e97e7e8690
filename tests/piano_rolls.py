"""MATLAB 5 files of cell arrays, written by hand."""

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"


def element(kind: int, data: bytes) -> bytes:
    if 0 < len(data) <= 4:
        return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")
    return struct.pack("<II", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")


def variable(name: str, flag: int, shape: tuple[int, int], *values: bytes) -> bytes:
    flags, sizes = struct.pack("<II", flag, 0), struct.pack("<ii", *shape)
    return element(14, b"".join([element(6, flags), element(5, sizes), element(1, name.encode()), *values]))


def mat(cells: Mapping[str, Sequence[np.ndarray]], *, packed: bool = True) -> bytes:
    """A file; matrices of uint8 are written as such, all others as doubles."""
    content = HEADER
    for name, matrices in cells.items():
        values = []
        for matrix in matrices:
            small = matrix.dtype == np.uint8
            numbers = matrix.tobytes("F") if small else matrix.astype("<f8").tobytes("F")
            values.append(variable("", 9 if small else 6, matrix.shape, element(2 if small else 9, numbers)))
        whole = variable(name, 1, (1, len(values)), *values)
        compressed = zlib.compress(whole)
        content += struct.pack("<II", 15, len(compressed)) + compressed if packed else whole
    return content


def rolls(*lengths: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [(random.random((length, 88)) < 0.1).astype(np.uint8) for length in lengths]
