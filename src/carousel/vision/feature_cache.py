"""Encode every photo once: features are kept on disk under the photo's content and the encoder's weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from carousel.errors import PhotoError
from carousel.vision.feature_store import FeatureStore
from carousel.vision.photo import read_file, read_photo

VERSION = 1  # to be raised whenever the same photo and weights would give other features
SHARD = 512  # photos a file: what an interrupted run can lose, and the unit of reading

Encoder = Callable[[Tensor], Mapping[str, Tensor]]
OnError = Literal["raise", "skip"] | Callable[[PhotoError], None]


class Features(NamedTuple):
    """Features of the photos that could be read, in the order asked for."""

    files: list[Path]
    tensors: dict[str, Tensor]  # each (len(files), ...); floating-point features in half precision
    broken: list[PhotoError]  # one for every photo left out
    computed: int  # photos that were not in the cache
    notes: list[str]  # what the user should be told, such as a cache that cannot be written


def cache_folder() -> Path:
    """``$CAROUSEL_CACHE``, or else ``$XDG_CACHE_HOME/carousel``, or else ``~/.cache/carousel``."""
    if chosen := os.environ.get("CAROUSEL_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "carousel"


def encoder_fingerprint(encoder: nn.Module, outputs: str, size: int = 224) -> str:
    """Name what an encoder computes: its weights, which of its ``outputs`` are kept, and the photos' size in pixels.

    >>> layer = nn.Linear(1, 1)
    >>> before = encoder_fingerprint(layer, "pooled")
    >>> layer.weight.data += 1
    >>> before == encoder_fingerprint(layer, "pooled")
    False
    """
    digest = hashlib.blake2b(f"{VERSION} {size} {outputs}".encode(), digest_size=16)
    for name, tensor in encoder.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def cached_features(
    paths: Iterable[str | Path],
    encoder: Encoder,
    fingerprint: str,
    *,
    size: int = 224,
    batch_size: int = 4,
    progress: Callable[[int, int], None] | None = None,
    on_error: OnError = "raise",
) -> Features:
    """Encode photos, or take from the cache what the same encoder made of the same content before.

    It equals ``encoder(torch.stack([read_photo(path, size) for path in paths]))``, in half precision. A photo that was
    renamed or copied is found; an interrupted run goes on where it stopped; damaged cache files are computed again; a
    cache that cannot be written costs time and a note, nothing else.

    Args:
        paths: the photos.
        encoder: 8-bit RGB ``(N, 3, size, size)`` -> named tensors ``(N, ...)``; runs without gradients.
        fingerprint: what `encoder_fingerprint` says of the encoder. Other outputs need another fingerprint.
        size: the photos' side in pixels.
        batch_size: photos a call of the encoder.
        progress: called with the photos done and the photos in all.
        on_error: "raise" stops at the first photo that cannot be read, "skip" leaves such photos out, and a function is
            told of each and then it is left out.

    Raises `PhotoError` for a photo as ``on_error`` says, and where no photo can be read at all.

    Example:
        >>> def encode(photos: Tensor) -> dict[str, Tensor]:
        ...     return {"mean": photos.float().mean((2, 3))}
        >>> cached_features(["missing.jpg"], encode, "mean colour")
        Traceback (most recent call last):
        carousel.errors.PhotoError: missing.jpg: no such file (got a path to nothing); ...
    """
    files = [Path(path) for path in paths]
    broken: list[PhotoError] = []

    def refuse(error: PhotoError) -> None:
        if on_error == "raise":
            raise error
        if callable(on_error):
            on_error(error)
        broken.append(error)

    def tell() -> None:
        if progress is not None:
            progress(sum(table.filled) + len(broken), len(files))

    keys = _keys(files, refuse)
    table = _Table(len(files))
    store = FeatureStore(cache_folder() / "features" / fingerprint)
    for rows, tensors in store.read(set(keys.values())):
        hits = {i: rows[key] for i, key in keys.items() if key in rows}
        table.put(list(hits), {name: tensor[list(hits.values())] for name, tensor in tensors.items()})
    tell()
    missing = [i for i in keys if not table.filled[i]]
    shard = _Shard(store)
    try:
        for batch in _decoded({i: files[i] for i in missing}, size, batch_size, refuse):
            with torch.no_grad():
                tensors = {name: _compact(tensor) for name, tensor in encoder(torch.stack([*batch.values()])).items()}
            table.put(list(batch), tensors)
            shard.add([keys[i] for i in batch], tensors)
            tell()
    finally:
        shard.flush()
    kept = [i for i in range(len(files)) if table.filled[i]]
    if files and not kept:
        raise broken[0]
    computed = sum(table.filled[i] for i in missing)
    return Features([files[i] for i in kept], table.rows(kept), broken, computed, shard.notes)


def _keys(files: Sequence[Path], refuse: Callable[[PhotoError], None]) -> dict[int, str]:
    """The hash of every file that can be read, by its place in ``files``."""
    keys = {}
    for i, file in enumerate(files):
        try:
            keys[i] = hashlib.blake2b(read_file(file), digest_size=16).hexdigest()
        except PhotoError as error:
            refuse(error)
    return keys


def _decoded(
    files: Mapping[int, Path], size: int, batch_size: int, refuse: Callable[[PhotoError], None]
) -> Iterator[dict[int, Tensor]]:
    """Photos ``(3, size, size)`` by place, a batch at a time; the next batch is read while this one is encoded."""
    places = iter(files)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:

        def start() -> dict[int, Future[Tensor]]:
            return {i: pool.submit(read_photo, files[i], size) for i in islice(places, batch_size)}

        coming = start()
        while coming:
            current, coming = coming, start()
            photos = {}
            for i, future in current.items():
                try:
                    photos[i] = future.result()
                except PhotoError as error:
                    refuse(error)
            if photos:
                yield photos


def _compact(tensor: Tensor) -> Tensor:
    return tensor.to("cpu", torch.float16 if tensor.is_floating_point() else tensor.dtype).contiguous()


class _Table:
    """The result as it fills: named tensors with a row for every photo."""

    def __init__(self, length: int) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.filled = [False] * length

    def put(self, places: Sequence[int], tensors: Mapping[str, Tensor]) -> None:
        if not self.tensors:
            self.tensors = {name: t.new_empty((len(self.filled), *t.shape[1:])) for name, t in tensors.items()}
        if {name: t.shape[1:] for name, t in tensors.items()} != {
            name: t.shape[1:] for name, t in self.tensors.items()
        }:
            raise ValueError("the cache holds other features under this fingerprint; name the outputs in it")
        for name, tensor in tensors.items():
            self.tensors[name][places] = tensor
        for i in places:
            self.filled[i] = True

    def rows(self, places: Sequence[int]) -> dict[str, Tensor]:
        if len(places) == len(self.filled):
            return self.tensors
        return {name: tensor[places] for name, tensor in self.tensors.items()}


class _Shard:
    """What was computed and not yet written. The first time that writing fails leaves a note, and ends all writing."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self.keys: list[str] = []
        self.batches: list[Mapping[str, Tensor]] = []
        self.notes: list[str] = []

    def add(self, keys: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        self.keys += keys
        self.batches.append(tensors)
        if len(self.keys) >= SHARD:
            self.flush()

    def flush(self) -> None:
        keys, batches = self.keys, self.batches
        self.keys, self.batches = [], []
        if not keys or self.notes:
            return
        try:
            self.store.write(keys, {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]})
        except OSError as error:
            self.notes.append(
                f"{self.store.folder}: features are not kept (got {error.strerror or error}); a writable folder is "
                "needed; set CAROUSEL_CACHE to one"
            )
