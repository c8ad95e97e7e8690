"""Rows of tensors on disk under keys: a folder of safetensors shards, each written once and whole.

A shard carries the keys of its rows and a checksum. What cannot be read, or has changed, is deleted and counts as
absent: a store never raises on damage, it only forgets.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

_ABANDONED = 3600.0  # seconds after which a temporary file cannot be one that is being written


class FeatureStore:
    """Named tensors with one row for every key.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = FeatureStore(Path(folder))
        ...     store.write(["a", "b"], {"pooled": torch.tensor([[1.0], [2.0]])})
        ...     [(rows, tensors["pooled"].tolist()) for rows, tensors in store.read({"b", "c"})]
        [({'b': 1}, [[1.0], [2.0]])]
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, keys: Collection[str]) -> Iterator[tuple[dict[str, int], dict[str, Tensor]]]:
        """The shards that hold any of ``keys``: in which rows, and the tensors ``(rows, ...)``; each key once."""
        wanted = set(keys)
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                with safe_open(path, framework="pt") as shard:
                    metadata = shard.metadata() or {}
                    rows = {key: i for i, key in enumerate(metadata.get("keys", "").split()) if key in wanted}
                    tensors = {name: shard.get_tensor(name) for name in shard.keys()} if rows else {}  # noqa: SIM118
            except (SafetensorError, OSError):
                _forget(path)
                continue
            if rows and metadata.get("crc32") != _checksum(metadata["keys"], tensors):
                _forget(path)
            elif rows:
                wanted -= rows.keys()
                yield rows, tensors

    def write(self, keys: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        """Add one shard with a row of every tensor ``(len(keys), ...)`` for each key. Raises `OSError`."""
        joined = " ".join(keys)
        metadata = {"keys": joined, "crc32": _checksum(joined, tensors)}
        path = self.folder / f"{hashlib.blake2b(joined.encode(), digest_size=16).hexdigest()}.safetensors"
        temporary = path.with_suffix(f".{secrets.token_hex(8)}.tmp")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        try:
            # No fsync: a shard torn by a power cut fails its checksum and is computed again.
            temporary.write_bytes(save(dict(tensors), metadata=metadata))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def _sweep(self) -> None:
        for path in self.folder.glob("*.tmp"):
            if time.time() - path.stat().st_mtime > _ABANDONED:
                path.unlink(missing_ok=True)


def _forget(path: Path) -> None:
    with suppress(OSError):  # a cache that cannot be written is still read
        path.unlink()


def _checksum(keys: str, tensors: Mapping[str, Tensor]) -> str:
    """Over all that a bit flip could turn into other features: keys, names, types, shapes and values."""
    crc = zlib.crc32(keys.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.contiguous().flatten().view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"
