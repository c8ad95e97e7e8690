"""What a person sees of a run."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from carousel.training import Progress, progress
from carousel.training.progress import LiveProgress

RECORD = {"epoch": 2, "loss": 3.25, "clipped": 0.0, "perplexity": 12.3456, "cider": 0.5, "seconds": 75.0}


def run(console: Console) -> None:
    with LiveProgress(console) as live:
        live.tell("[2] photos of /a [b]")
        with live.counting("looking") as counted:
            counted(3, 10)
        live.stepped(Progress(1, 1, 4, 2, 3.5, 1234.0, 61.0))
        live.validated(RECORD, best=True)
        live.validated({**RECORD, "epoch": 3}, best=False)


def test_elsewhere_than_on_a_terminal_it_is_lines() -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=40)
    run(console)
    assert console.file.getvalue().splitlines() == [
        "[2] photos of /a [b]",
        "epoch 2  loss 3.25  clipped 0  perplexity 12.35  cider 0.5  1 min 15 s  best so far",
        "epoch 3  loss 3.25  clipped 0  perplexity 12.35  cider 0.5  1 min 15 s",
    ]


def test_on_a_terminal_there_is_a_bar() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    run(console)
    shown = console.file.getvalue()
    for part in ("looking", "3/10", "epoch 1/2", "loss 3.500", "1,234 words/s", "1 min 1 s left", "cider 0.5"):
        assert part in shown


def test_it_speaks_on_standard_error(capsys) -> None:  # type: ignore[no-untyped-def]
    with LiveProgress() as live:
        live.tell("heard")
    captured = capsys.readouterr()
    assert captured.out == "" and "heard" in captured.err


def test_the_time_to_go_is_told_once_when_some_steps_have_been_measured() -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=40)
    with LiveProgress(console) as live:
        for step in range(1, 31):
            live.stepped(Progress(1, step, 40, 2, 3.5, 1234.0, 100.0 - step))
    assert console.file.getvalue().splitlines() == [
        "about 1 min 30 s to go if it does not stop early, by the first 10 steps"
    ]


def test_what_is_counted_for_long_says_so_elsewhere_too(monkeypatch: pytest.MonkeyPatch) -> None:
    console, now = Console(file=io.StringIO(), force_terminal=False), [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with LiveProgress(console) as live, live.counting("looking at the photos") as counted:
        for done in range(1000, 8001, 50):  # a thousand were there
            counted(done, 8000)
            now[0] += 1.5
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 3 and lines[0] == "looking at the photos: 3,050 of 8,000  2 min 28 s left"
