"""The one safe file: tensors and plain JSON in a `.safetensors`, checked by a checksum, never any code."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from carousel.errors import ConfigError, DataError, ModelFileError

FORMAT = 1
KEY = "carousel"


def write_model_file(path: str | Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write `tensors` and `facts` (JSON: task, config, vocabulary, scores, ...) to `path`, all or nothing.

    The file is written beside `path`, flushed to the disk and then renamed, so that `path` is at every moment either
    what it was or whole.
    """
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    header = json.loads(json.dumps({**facts, "format": FORMAT}))
    header["checksum"] = checksum(plain, header)
    data = save(plain, metadata={KEY: json.dumps(header, ensure_ascii=False, sort_keys=True)})
    write_atomically(path, data)


def read_model_file(path: str | Path, task: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of a file that `write_model_file` wrote for `task`.

    Raises `ModelFileError` where the file is missing, damaged, foreign, for another task, or of a newer format.
    """
    tensors, header = _read(path)
    if header.get("task") != task:
        raise ModelFileError(f"{path}: a model for another task (got {header.get('task')}); {task}; check the path")
    if header.pop("checksum", None) != checksum(tensors, header):
        raise ModelFileError(f"{path}: damaged (got a wrong checksum); an unaltered file; copy it again")
    return tensors, header


def model_task(path: str | Path) -> str:
    """The task of a model file; errors as of `read_model_file`."""
    return str(_read(path)[1].get("task"))


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file that is one of ours."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        reason = "no such file" if not Path(path).exists() else str(error).splitlines()[0]
        raise ModelFileError(
            f"{path}: cannot be read as a model (got {reason}); a .safetensors file that carousel wrote; check the "
            "path or train again"
        ) from None
    if not isinstance(header, dict) or not isinstance(header.get("format"), int):
        raise ModelFileError(
            f"{path}: not a Carousel model (got no metadata of ours); a file from carousel train; check the path"
        )
    if header["format"] > FORMAT:
        raise ModelFileError(
            f"{path}: made by a newer Carousel (got format {header['format']}); this one reads up to {FORMAT}; upgrade"
        )
    return tensors, header


def checksum(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """SHA-256 over the facts and over the tensors' names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_atomically(path: str | Path, data: bytes) -> None:
    """Put `data` at `path`: write beside it, flush to the disk, rename."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ModelFileError(
            f"{path}: cannot be written (got {error.strerror}); a writable place; choose another"
        ) from None


@contextmanager
def parts_fit(path: str | Path) -> Iterator[None]:
    """Makes a model of what was read from a file; where that fails the file is to blame, a `ModelFileError` says."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError, ConfigError, DataError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelFileError(
            f"{path}: its parts do not fit together (got {reason}); a file from carousel train; train again"
        ) from None


def begin_with(model: nn.Module, trained: nn.Module) -> None:
    """Copy the weights of a trained network. Raises `ConfigError` where the shapes differ."""
    try:
        model.load_state_dict(trained.state_dict())
    except RuntimeError as error:
        raise ConfigError(
            f"start_from: a model of another shape (got{str(error).splitlines()[1]}); the same settings as that "
            "model's; give them with --set"
        ) from None
