from __future__ import annotations

import sys
from pathlib import Path

import pytest

from carousel.errors import CarouselError
from carousel.metrics import meteor, why_no_meteor

from .conftest import Scored

# Answers like the official program: the number of fields for SCORE, one line per image and one more for EVAL.
ANSWERS = """
import sys
for line in sys.stdin:
    verb, *fields = line.rstrip("\\n").split(" ||| ")
    if verb == "SCORE":
        print(len(fields), flush=True)
    else:
        print(*(float(field) / 10 for field in fields), 0.5, sep="\\n", flush=True)
"""


@pytest.fixture
def jar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CAROUSEL_METEOR_JAR", raising=False)
    path = tmp_path / "meteor-1.5.jar"
    path.touch()
    return path


def fake_java(folder: Path, program: str) -> str:
    path = folder / "java"
    path.write_text(f"#!{sys.executable}\n{program}")
    path.chmod(0o755)
    return str(path)


def test_the_conversation(jar: Path, tmp_path: Path) -> None:
    java = fake_java(tmp_path, ANSWERS)
    result = meteor(["a ||| dog", "a cat"], [["the dog", "dogs"], ["cats"]], jar=jar, java=java)
    assert result is not None
    assert result.corpus == 0.5
    assert result.scores.tolist() == [0.3, 0.2]  # references and candidate: three fields, then two


def test_the_environment_names_the_jar(jar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = fake_java(tmp_path, ANSWERS)
    assert meteor(["a"], [["a"]], java=java) is None
    monkeypatch.setenv("CAROUSEL_METEOR_JAR", str(jar))
    assert meteor(["a"], [["a"]], java=java) is not None


@pytest.mark.parametrize("program", ["raise SystemExit('no memory')", "print('not a number', flush=True); input()"])
def test_a_program_that_fails_is_an_error(jar: Path, tmp_path: Path, program: str) -> None:
    with pytest.raises(CarouselError, match=r"meteor-1\.5\.jar: METEOR stopped \(.*\); try: "):
        meteor(["a"], [["a"]], jar=jar, java=fake_java(tmp_path, program))


def test_why_not(jar: Path, tmp_path: Path) -> None:
    java = fake_java(tmp_path, "")
    assert why_no_meteor(jar, "no-java") == "METEOR 1.5 not available: Java (no-java) was not found"
    assert why_no_meteor(None, java) == "METEOR 1.5 not available: CAROUSEL_METEOR_JAR does not name meteor-1.5.jar"
    missing = tmp_path / "none.jar"
    assert why_no_meteor(missing, java) == f"METEOR 1.5 not available: there is no file {missing}"
    assert why_no_meteor(jar, java) is None


@pytest.mark.data
def test_equal_to_the_official_score(oracle: Scored) -> None:
    reason = why_no_meteor()
    if reason:
        pytest.skip(reason)
    result = meteor(oracle.candidates, oracle.references)
    assert result is not None
    assert result.corpus == pytest.approx(oracle.scores["METEOR"], abs=1e-9)
