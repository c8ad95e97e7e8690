"""Arrays in the idx format, in which MNIST and its like are published."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from carousel.errors import DataError

UNSIGNED_BYTES = 0x08


def read_idx(folder: str | Path, name: str) -> Tensor:
    """The array of bytes in a file `name` of the folder, or in `name`.gz.

    The format: two zero bytes, the type, the number of dimensions, each as four bytes, the most significant first, and
    then the data.

    Raises:
        DataError: there is no such file, or it is not idx.
    """
    path = Path(folder) / name
    path = path if path.exists() else path.with_name(f"{name}.gz")
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise DataError(
            f"{folder}: no {name} in it (got none, nor {name}.gz); MNIST's four idx files; --data names their folder"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read (got {error}); an idx file, plain or gzip; copy it again") from None
    dimensions = content[3] if len(content) > 3 else 0
    start = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(content[k : k + 4], "big") for k in range(4, start, 4))
    expected = start + int(np.prod(shape, dtype=np.int64))
    if content[:3] != bytes([0, 0, UNSIGNED_BYTES]) or not dimensions or len(content) != expected:
        raise DataError(
            f"{path}: not idx (got {len(content)} bytes from {content[:4].hex()} on); unsigned bytes; copy it again"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())
