"""What a person sees of a run."""

from __future__ import annotations

import io

from rich.console import Console

from carousel.training import Progress
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
