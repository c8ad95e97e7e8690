"""``carousel doctor`` says what is there, in lines and as JSON, and never fails over what is missing."""

import json
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from carousel.cli import doctor, main


def facts(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert main(["doctor", "--json"]) == 0
    found: dict[str, dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_versions_and_torch(capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys)
    assert found["versions"]["torch"] == torch.__version__
    assert found["torch"]["threads"] == torch.get_num_threads()
    assert str(found["torch"]["build"]).startswith("CUDA" if torch.version.cuda else "CPU")


def test_lines_say_what_the_json_says(capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out
    for title, section in found.items():
        assert f"{title}\n" in lines
        assert all(f"  {name} " in lines for name in section)


def test_the_encoder_of_the_wheel_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = facts(capsys)["weights"]["encoder"]
    assert line.endswith(" MB)")
    assert Path(line.rpartition(" (")[0]).is_file()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : sse2 fma avx2 avx512f avx512_bf16", ["avx2", "fma", "avx512f", "avx512_bf16"]),
        ("Features : fp asimd bf16", ["neon", "bf16"]),
        ("", []),
    ],
)
def test_processor_features(flags: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"model name : Some processor: fast\n{flags}\n", encoding="utf-8")
    read = doctor.read_cpuinfo(cpuinfo)
    monkeypatch.setattr(doctor, "read_cpuinfo", lambda path: read)
    found = doctor.examine()["processor"]
    assert found["name"] == "Some processor: fast"
    assert found["features"] == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CAROUSEL_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/carousel"),
        ({"HOME": "/home/ada"}, "/home/ada/.cache/carousel"),
    ],
)
def test_cache_folder(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CAROUSEL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert doctor.examine()["cache"]["folder"] == expected


def test_the_compiler_says_what_it_compiles_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAROUSEL_CACHE_DIR", str(tmp_path / "none"))
    assert facts(capsys)["compiler"]["kept"] == "0 compiled loops (0.0 MB)"
    monkeypatch.setenv("CAROUSEL_CACHE_DIR", str(tmp_path))
    for name in ("a.o", "b.o", "c.tmp"):
        (tmp_path / name).write_bytes(bytes(100_000))
    found = facts(capsys)["compiler"]
    assert found["cache"] == str(tmp_path)
    assert found["kept"] == "2 compiled loops (0.2 MB)"
    assert str(found["vectors"]).endswith(" numbers at a time")
    assert re.fullmatch(r"1|\d+, now [\d.]+ times as fast as one", str(found["threads"]))


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    monkeypatch.setattr(metadata, "files", absent)
    found = doctor.examine()
    assert found["versions"]["numpy"] is None
    assert found["weights"]["encoder"] == []


def test_a_torch_that_does_not_import_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["doctor"]) == 1
    assert "torch cannot be imported" in capsys.readouterr().out
