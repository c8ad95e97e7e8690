"""LLVM IR to functions in this process, by way of a cache on disk.

The cache holds machine code, so it is read with care: a file counts only if it belongs to the user, carries the right
key (of the code, the processor and the versions) and the checksum of its contents. Anything else is built anew.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from carousel.compiler.blocks import Target

MAGIC = b"carousel object 1\n"


@dataclass(frozen=True)
class Processor:
    """The processor code is made for."""

    name: str
    features: str
    target: Target
    has_bfloat16: bool

    @property
    def vectors(self) -> str:
        """What its vectors are called."""
        return {16: "AVX-512", 8: "AVX2"}.get(self.target.lanes, "NEON" if "+neon" in self.features else "128 bits")


@cache
def processor() -> Processor:
    """This machine's processor; `CAROUSEL_VECTORS` = avx512, avx2 or plain makes it pretend to be a lesser one."""
    found = dict(llvm.get_host_cpu_features())
    if not found and sys.platform == "darwin":
        found = {"neon": True}
    wanted = os.environ.get("CAROUSEL_VECTORS", "avx512")
    if found.get("avx512f") and wanted == "avx512":
        target = Target(lanes=16, registers=24)
    elif found.get("avx2") and found.get("fma") and wanted in ("avx512", "avx2"):
        target = Target(lanes=8, registers=12)
        found = {name: has and not name.startswith("avx512") for name, has in found.items()}
    elif found.get("neon"):
        target = Target(lanes=4, registers=24)
    else:
        target = Target(lanes=4, registers=8)
    features = ",".join(f"{'+' if has else '-'}{name}" for name, has in sorted(found.items()))
    if target.lanes == 16:
        features += ",-prefer-256-bit"
    return Processor(llvm.get_host_cpu_name(), features, target, "+avx512bf16" in features)


def _machine() -> Any:
    """A new target machine: each engine owns its own."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    known = processor()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=known.name, features=known.features, opt=2, jit=True)


class Library:
    """Compiled functions, by name."""

    def __init__(self, code: bytes) -> None:
        machine = _machine()
        module = llvm.parse_assembly("")
        module.triple = machine.triple
        self._engine = llvm.create_mcjit_compiler(module, machine)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()

    def function(self, name: str, *arguments: Any) -> Any:
        """The C function of that name, which returns nothing."""
        address = self._engine.get_function_address(name)
        assert address, f"no function {name!r} in this code"
        return ctypes.CFUNCTYPE(None, *arguments)(address)


def text(key: str, make: Callable[[], str]) -> str:
    """What `make` writes, now or at some earlier time; the key says all it depends on but for the compiler itself."""
    digest = _digest(key, _sources())
    path = _path(digest, "txt")
    kept = _read(path, digest) if path else None
    if kept is not None:
        return kept.decode()
    made = make()
    if path:
        _write(path, digest, made.encode())
    return made


@cache
def _sources() -> str:
    """The compiler, as far as it decides what code is written."""
    folder = Path(__file__).parent
    return "".join((folder / f"{name}.py").read_text(encoding="utf-8") for name in _WRITERS)


_WRITERS = ("arithmetic", "bfloat16", "blocks", "graph", "kernel", "matrix", "packing", "plan", "script")


def _digest(*parts: str) -> str:
    known = processor()
    everything = [*parts, known.name, known.features, llvmlite.__version__, str(llvm.llvm_version_info)]
    return hashlib.sha256("\n".join(everything).encode()).hexdigest()


def _path(digest: str, suffix: str) -> Path | None:
    try:
        return directory() / f"{digest[:32]}.{suffix}"
    except RuntimeError:  # a user without a home keeps nothing
        return None


def library(ir: str) -> Library:
    """The functions of a module, compiled now or at some earlier time. They stay for the life of the process."""
    digest = _digest(ir)
    if digest not in _LOADED:
        _LOADED.setdefault(digest, _load(digest, ir))  # another thread may have been faster
    return _LOADED[digest]


_LOADED: dict[str, Library] = {}


def _load(digest: str, ir: str) -> Library:
    path = _path(digest, "o")
    code = _read(path, digest) if path else None
    if code is None:
        code = build(ir)
        if path:
            _write(path, digest, code)
    return Library(code)


def build(ir: str) -> bytes:
    """Machine code of a module.

    LLVM's passes over the code are left out: it is written as it should be run, and they would double the time.
    """
    machine, module = _parsed(ir)
    code: bytes = machine.emit_object(module)
    return code


def assembly(ir: str) -> str:
    """The same for people to read."""
    machine, module = _parsed(ir)
    text: str = machine.emit_assembly(module)
    return text


def _parsed(ir: str) -> tuple[Any, Any]:
    machine = _machine()
    module = llvm.parse_assembly(ir)
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    return machine, module


def directory() -> Path:
    """Where compiled code is kept: `CAROUSEL_CACHE_DIR`, or `carousel` in the user's cache."""
    if chosen := os.environ.get("CAROUSEL_CACHE_DIR"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "carousel"


def _read(path: Path, digest: str) -> bytes | None:
    """What a cache file holds; None, and it is made anew, unless all is as it should be."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode) or (hasattr(os, "getuid") and about.st_uid != os.getuid()):
            return None
        if about.st_mode & 0o022:
            return None
        content = path.read_bytes()
    except OSError:
        return None
    head = _head(digest, content[len(_head(digest, b"")) :])
    return content[len(head) :] if content.startswith(head) else None


def _head(digest: str, code: bytes) -> bytes:
    return MAGIC + f"{digest}\n{hashlib.sha256(code).hexdigest()}\n".encode()


def _write(path: Path, digest: str, code: bytes) -> None:
    """Put something into the cache, whole or not at all."""
    with suppress(OSError):  # a cache that cannot be written is done without: all there is to lose is time
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_head(digest, code) + code)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
