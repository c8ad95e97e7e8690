"""METEOR 1.5, by the official Java program and by nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.errors import CarouselError
from carousel.metrics.words import check_pairs

JAR_VARIABLE = "CAROUSEL_METEOR_JAR"


class Meteor(NamedTuple):
    """METEOR 1.5 of the corpus and of every image, fractions of 1; the corpus score is not the mean of the others."""

    corpus: float
    scores: NDArray[np.float64]


def meteor(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    jar: Path | None = None,
    java: str = "java",
) -> Meteor | None:
    """METEOR 1.5 of one candidate per image, or None where the program is not available (`why_no_meteor` says why).

    jar: the official `meteor-1.5.jar` with its `data/paraphrase-en.gz` beside it; by default the path in the
    environment variable CAROUSEL_METEOR_JAR. Other implementations differ by up to 10 points, so none stands in.
    About 10 s per 1,000 captions. Raises `CarouselError` when the program starts but does not answer.

    Denkowski and Lavie 2014, "Meteor universal". Called as pycocoevalcap 1.2 does (English, -norm).

    >>> meteor(["a dog"], [["the dog"]], jar=Path("no/such.jar")) is None
    True
    """
    check_pairs(candidates, references)
    path = _jar_path(jar)
    if path is None or why_no_meteor(path, java):
        return None
    command = [java, "-Xmx2G", "-jar", path.name, "-", "-", "-stdio", "-l", "en", "-norm"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints,
        subprocess.Popen(
            command,
            cwd=path.parent,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            encoding="utf-8",
        ) as program,
    ):
        assert program.stdin is not None and program.stdout is not None
        try:
            return _converse(program.stdin, program.stdout, candidates, references)
        except (OSError, ValueError) as error:
            program.kill()
            with contextlib.suppress(OSError):  # what is still unsent has nobody to read it
                program.stdin.close()
            complaints.seek(0)
            reason = (complaints.read().strip().splitlines() or ["no message"])[-1]
            raise CarouselError(f"{path}: METEOR stopped ({reason}); try: {' '.join(command)}") from error


def why_no_meteor(jar: Path | None = None, java: str = "java") -> str | None:
    """Why METEOR is not available, in one line, or None when it is.

    >>> why_no_meteor(Path("no/such.jar"), java="no-such-java")
    'METEOR 1.5 not available: Java (no-such-java) was not found'
    """
    path = _jar_path(jar)
    if shutil.which(java) is None:
        return f"METEOR 1.5 not available: Java ({java}) was not found"
    if path is None:
        return f"METEOR 1.5 not available: {JAR_VARIABLE} does not name meteor-1.5.jar"
    if not path.is_file():
        return f"METEOR 1.5 not available: there is no file {path}"
    return None


def _jar_path(jar: Path | None) -> Path | None:
    named = os.environ.get(JAR_VARIABLE)
    return jar if jar is not None else Path(named) if named else None


def _converse(
    questions: IO[str], answers: IO[str], candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> Meteor:
    """Ask for the statistics of every image, then for the scores of all of them together."""

    def ask(*fields: str) -> None:
        questions.write(" ||| ".join(fields) + "\n")
        questions.flush()

    statistics = []
    for candidate, captions in zip(candidates, references, strict=True):
        ask("SCORE", *map(_field, captions), _field(candidate))
        statistics.append(answers.readline().strip())
    ask("EVAL", *statistics)
    scores = [float(answers.readline()) for _ in candidates]
    return Meteor(float(answers.readline()), np.array(scores))


def _field(text: str) -> str:
    return " ".join(text.replace("|||", "").split())
