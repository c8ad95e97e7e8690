"""Imports run down the order of the house and never up; the cells import torch and nothing of ours but errors."""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import carousel

SOURCE = Path(carousel.__file__).parent

# A part imports only from the lines above its own, or from itself; parts of one line may import each other, not in a
# circle. "carousel" is the package itself, the public names: only what is below it here may use them.
ORDER = """
    errors
    cells
    compiler
    nn
    vision data metrics reports
    training decoding
    captioning
    tasks
    diagnostics export reading_list
    carousel
    web cli
    __main__
"""
RANK = {part: rank for rank, line in enumerate(ORDER.strip().splitlines()) for part in line.split()}
FOR_CELLS = {"torch", "carousel.errors", "carousel.cells"}


class Import(NamedTuple):
    """A line that imports: `part` is where it stands, `module` what it names in full."""

    place: str
    part: str
    module: str

    @property
    def target(self) -> str | None:
        """The part that is imported; `None` where it is not one of ours or only asks the version."""
        package, _, rest = self.module.partition(".")
        if package != "carousel" or rest == "__version__":
            return None
        part = rest.partition(".")[0]
        return part if part in RANK else "carousel"


def imports(source: Path) -> Iterator[Import]:
    for path in sorted(source.rglob("*.py")):
        module = ("carousel", *path.relative_to(source).with_suffix("").parts)
        package = module[:-1]
        part = "carousel" if module == ("carousel", "__init__") else module[1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for name in full_names(node, package):
                    yield Import(f"{path.relative_to(source)}:{node.lineno}", part, name)


def full_names(node: ast.Import | ast.ImportFrom, package: tuple[str, ...]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    parents = package[: len(package) + 1 - node.level] if node.level else ()
    base = ".".join([*parents, *([node.module] if node.module else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def violations(source: Path) -> list[str]:
    found: list[str] = []
    sideways: dict[str, set[str]] = defaultdict(set)
    for place, part, module in (everything := list(imports(source))):
        target = Import(place, part, module).target
        if part not in RANK:
            found.append(f"{place}: {part} has no place in the order")
        elif part == "cells" and not allowed_in_cells(module):
            found.append(f"{place}: cells may import torch and carousel.errors, not {module}")
        elif target in (None, part):
            continue
        elif RANK[target] > RANK[part]:
            found.append(f"{place}: {part} is below {target} and must not import {module}")
        elif RANK[target] == RANK[part]:
            sideways[part].add(target)
    try:
        TopologicalSorter(sideways).prepare()
    except CycleError as error:
        found.append(f"imports in a circle: {' -> '.join(error.args[1])}")
    assert everything, f"no import found in {source}"
    return found


def allowed_in_cells(module: str) -> bool:
    top, _, rest = module.partition(".")
    ours = ".".join([top, rest.partition(".")[0]])
    return top in sys.stdlib_module_names or top in FOR_CELLS or ours in FOR_CELLS


def test_imports_run_down_the_order() -> None:
    assert violations(SOURCE) == []


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("nn/planted.py", "from carousel.training import loop", "nn is below training"),
        ("nn/planted.py", "import carousel.training.loop", "nn is below training"),
        ("nn/deep/planted.py", "from ...training.loop import train", "nn is below training"),
        ("nn/planted.py", "from .. import captioning", "nn is below captioning"),
        ("errors.py", "from carousel.cells import GRU", "errors is below cells"),
        ("tasks/planted.py", "def f():\n    from carousel.cli import main", "tasks is below cli"),
        ("tasks/planted.py", "from carousel import caption", "tasks is below carousel"),
        ("tasks/planted.py", "import carousel", "tasks is below carousel"),
        ("cells/planted.py", "import numpy as np", "cells may import torch and carousel.errors, not numpy"),
        ("cells/planted.py", "from carousel.nn import unroll", "cells may import torch and carousel.errors"),
        ("helpers/planted.py", "import os", "helpers has no place in the order"),
        ("data/planted.py", "from carousel.vision import photo", "imports in a circle"),
    ],
)
def test_a_planted_violation_is_caught(file: str, line: str, complaint: str, tmp_path: Path) -> None:
    planted = tmp_path / file
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(line, encoding="utf-8")
    (tmp_path / "vision").mkdir()
    (tmp_path / "vision" / "photo.py").write_text("from carousel.data import captions", encoding="utf-8")
    (found,) = violations(tmp_path)
    assert complaint in found


@pytest.mark.parametrize(
    ("file", "line"),
    [
        (
            "cells/planted.py",
            "import math\nfrom torch import nn\nfrom . import cell\nfrom carousel.errors import ConfigError",
        ),
        ("reports/planted.py", "from carousel import __version__"),
        ("cli/planted.py", "import carousel\nfrom carousel import caption"),
        ("__init__.py", "from carousel.tasks import forecast"),
        ("__main__.py", "from carousel.cli import main"),
    ],
)
def test_imports_downwards_pass(file: str, line: str, tmp_path: Path) -> None:
    planted = tmp_path / file
    planted.parent.mkdir(exist_ok=True)
    planted.write_text(line, encoding="utf-8")
    assert violations(tmp_path) == []
