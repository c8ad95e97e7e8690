"""Machine code on disk: found again, and never trusted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from carousel.compiler import objects

PROGRAM = """
import sys
from carousel.compiler import objects
built = []
build = objects.build
objects.build = lambda ir: built.append(ir) or build(ir)
import torch
from carousel.cells import GRU
from carousel.nn import unroll
torch.manual_seed(0)
cell, inputs = GRU(3, 21), torch.randn(5, 7, 3, requires_grad=True)
results = []
for engine in ("compiled", "eager"):
    outputs, _ = unroll(cell, inputs, lengths=torch.tensor([5, 1, 2, 3, 4, 5, 2]), engine=engine)
    results.append((outputs, torch.autograd.grad(outputs.square().sum(), inputs)[0]))
for one, other in zip(*results):
    torch.testing.assert_close(one, other, rtol=0, atol=2e-6)
print(objects.processor().target.lanes, len(built))
"""


def run(cache: Path, **options: str) -> tuple[int, int]:
    """Lanes, and how many modules were built, of a process that checks a compiled loop against the eager one."""
    settings = {"CAROUSEL_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"} | options
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lanes, built = map(int, done.stdout.split())
    return lanes, built


def test_a_second_process_finds_the_code(tmp_path: Path) -> None:
    cache = tmp_path / "not" / "there" / "yet"
    _, first = run(cache)
    assert first > 0 and len(list(cache.glob("*.o"))) == first
    assert cache.stat().st_mode & 0o777 == 0o700
    assert run(cache)[1] == 0


@pytest.mark.parametrize("vectors", ["avx2", "plain"])
def test_code_for_lesser_processors_is_right(vectors: str, tmp_path: Path) -> None:
    if vectors == "avx2" and objects.processor().target.lanes < 8:
        pytest.skip("this processor has no AVX2")
    lanes, _ = run(tmp_path, CAROUSEL_VECTORS=vectors)
    assert lanes == {"avx2": 8, "plain": 4}[vectors]


MODULE = "define void @f(ptr %x) {\n  store float 2.5, ptr %x\n  ret void\n}\n"


def two_and_a_half() -> float:
    import ctypes

    number = ctypes.c_float(0)
    objects._LOADED.clear()
    code = objects.library(MODULE)
    code.function("f", ctypes.c_void_p)(ctypes.addressof(number))
    return number.value


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def of_another_key(path: Path) -> None:
    digest = path.read_bytes().splitlines()[1]
    path.write_bytes(path.read_bytes().replace(digest, b"0" * 64))


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "flipped": flip,
    "of another key": of_another_key,
    "empty": lambda path: path.write_bytes(b""),
    "a directory": directory,
    "writable by all": lambda path: path.chmod(0o666),
    "unreadable": lambda path: path.chmod(0o000),
}


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What is built, in a cache of its own."""
    built: list[str] = []
    build = objects.build
    monkeypatch.setenv("CAROUSEL_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(objects, "_LOADED", {})
    monkeypatch.setattr(objects, "build", lambda ir: built.append(ir) or build(ir))
    return built


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_ignored_and_made_anew(damage: str, builds: list[str], tmp_path: Path) -> None:
    if damage == "unreadable" and os.getuid() == 0:
        pytest.skip("root reads everything")
    assert two_and_a_half() == 2.5 and two_and_a_half() == 2.5 and len(builds) == 1
    (path,) = tmp_path.glob("*.o")
    DAMAGE[damage](path)
    assert two_and_a_half() == 2.5 and len(builds) == 2
    if damage not in ("a directory", "writable by all"):
        assert two_and_a_half() == 2.5 and len(builds) == 2


def test_a_file_of_another_user_is_ignored(builds: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert two_and_a_half() == 2.5
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert two_and_a_half() == 2.5 and len(builds) == 2


def test_a_cache_that_cannot_be_written_is_no_error(
    builds: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("CAROUSEL_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert two_and_a_half() == 2.5 and two_and_a_half() == 2.5 and len(builds) == 2


def test_without_a_home_nothing_is_kept(builds: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CAROUSEL_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert two_and_a_half() == 2.5 and len(builds) == 1


def test_another_processor_or_version_is_another_file(builds: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert two_and_a_half() == 2.5
    monkeypatch.setattr(objects.llvmlite, "__version__", "another")
    assert two_and_a_half() == 2.5 and len(builds) == 2


def test_every_module_that_writes_code_is_part_of_the_key() -> None:
    folder = Path(objects.__file__).parent
    writers = {
        path.stem
        for path in folder.glob("*.py")
        if "objects.text(" in path.read_text() or "Vectors" in path.read_text()
    }
    assert writers <= {*objects._WRITERS}
