"""What a newcomer installs: pinned, complete, and begun with the two commands that the README begins with."""

import fnmatch
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import carousel

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"].values()
WRITTEN = [*PROJECT["project"]["dependencies"], *(line for extra in EXTRAS for line in extra)]
DIRECT = [requirement for requirement in map(Requirement, WRITTEN) if requirement.name != PROJECT["project"]["name"]]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    exact = [line.split("#")[0].strip().partition("==") for line in lines if line.split("#")[0].strip()]
    return {canonicalize_name(name): version for name, _, version in exact}


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_every_direct_dependency_is_pinned_within_its_range(requirement: Requirement) -> None:
    version = pins().get(canonicalize_name(requirement.name))
    assert version, f"{requirement.name} is not in constraints.txt; add {requirement.name}==VERSION"
    assert requirement.specifier.contains(version), f"constraints.txt pins {requirement.name} outside its range"


def test_every_pin_is_exact() -> None:
    assert [name for name, version in pins().items() if not re.fullmatch(r"[0-9][\w.]*", version)] == []


def test_every_file_of_the_package_is_installed() -> None:
    source = Path(carousel.__file__).parent
    patterns = ["*.py", "*.pyc", *PROJECT["tool"]["setuptools"]["package-data"]["*"]]
    files = [path for path in source.rglob("*") if path.is_file()]
    assert [str(path) for path in files if not any(fnmatch.fnmatch(path.name, p) for p in patterns)] == []


def test_the_version_is_said_once() -> None:
    assert PROJECT["project"]["version"] == carousel.__version__
    changes = re.search(r"^## (.*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert changes, "CHANGELOG.md has no section"
    assert carousel.__version__ in changes[1]


@pytest.mark.parametrize("name", ["LICENSE", "NOTICE", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", ".ci/run"])
def test_the_papers_are_there(name: str) -> None:
    assert (ROOT / name).stat().st_size > 0


def test_every_photo_is_small_and_credited() -> None:
    credits = (ROOT / "examples/photos/CREDITS.md").read_text(encoding="utf-8")
    photos = sorted((ROOT / "examples/photos").glob("*.jpg"))
    assert photos
    assert [photo.name for photo in photos if f"`{photo.name}`" not in credits] == []
    assert [photo.name for photo in photos if photo.stat().st_size > 80_000] == []


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_readme_begins_with_the_two_commands(command: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = re.search(r"^```\w*\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert first, "README.md has no code block"
    assert command in [line.partition("#")[0].strip() for line in first[1].splitlines()]
    assert re.search(
        rf"^{command.removeprefix('make ')}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
