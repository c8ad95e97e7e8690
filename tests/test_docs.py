"""What the documents show is what happens."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "benchmarks").glob("*.md"))]


@pytest.fixture(scope="module")
def generate() -> Any:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_commands_is_their_help(generate: Any) -> None:
    written = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    assert generate.commands() == written, "docs/commands.md has drifted; run: python docs/generate.py"


def test_the_page_on_the_compiler_shows_what_it_makes(generate: Any) -> None:
    page, made = generate.COMPILER_PAGE.read_text(encoding="utf-8"), generate.stages()
    shown = {block[2]: block[3] for block in generate.MADE.finditer(page)}
    assert shown.keys() == made.keys()
    for name in made.keys() - generate.OF_THIS_MACHINE:
        assert shown[name] == made[name], f"{name} has drifted; run: python docs/generate.py"


def test_the_catalogue_and_its_drawings_are_made_from_the_cells(generate: Any) -> None:
    page = (generate.CELLS / "README.md").read_text(encoding="utf-8")
    assert generate.cells_page() == page, "docs/cells/README.md has drifted; run: python docs/generate.py"
    for name, svg in generate.drawings().items():
        written = (generate.CELLS / "drawings" / f"{name}.svg").read_text(encoding="utf-8")
        assert svg == written, f"docs/cells/drawings/{name}.svg has drifted; run: python docs/generate.py"
        assert len(written) < 30_000


def test_the_readme_code_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert "dog" in capsys.readouterr().out  # three sentences about a photo of dogs


def links(page: Path) -> list[Path]:
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"\]\(([^)#]+)\)", prose)
    return [(page.parent / link).resolve() for link in found if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert [link for link in links(page) if not link.exists()] == []


def test_every_page_can_be_come_to_from_the_readme() -> None:
    reached, new = set(), {ROOT / "README.md"}
    while new:
        reached |= new
        new = {link for page in new for link in links(page) if link.suffix == ".md" and link.exists()} - reached
    assert set(PAGES) <= reached | set((ROOT / "benchmarks/reading_list").glob("*.md"))  # a folder that is linked
