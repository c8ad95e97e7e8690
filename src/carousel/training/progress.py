"""What a person sees while training runs: a live bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from carousel.training.loop import Progress as Standing

EVERY = 60.0  # seconds between lines where there is no terminal
MEASURED = 10  # steps by which the time to go is told


class LiveProgress:
    """A `Watcher` that shows epoch, loss, speed and time left, and a line for every validation.

    Use it as a context; everything is printed on standard error, so that standard output stays for results.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[facts]}"), console=self.console
        )
        self._task: TaskID | None = None
        self._told = time.monotonic()
        self._steps = 0

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:  # elsewhere stopping a bar prints an empty line
            self._bar.stop()

    def tell(self, line: str) -> None:
        """Print a line above the bar."""
        self.console.print(line, markup=False, soft_wrap=True)

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A bar for work that is counted, such as ``3 of 8000 photos``; gone when it is done."""
        if not self.console.is_terminal:
            yield self._counted_in_lines(what)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"))
        self._bar.stop()
        with Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True) as bar:
            task = bar.add_task(what, total=0)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        self._bar.start()

    def _counted_in_lines(self, what: str) -> Callable[[int, int], None]:
        began = told = time.monotonic()
        first: int | None = None

        def counted(done: int, total: int) -> None:
            nonlocal told, first
            now, first = time.monotonic(), done if first is None else first
            if now - told > EVERY and done > first:
                told = now
                left = (now - began) * (total - done) / (done - first)
                self.tell(f"{what}: {done:,} of {total:,}  {duration(left)} left")

        return counted

    def stepped(self, progress: Standing) -> None:
        """Move the bar."""
        if self._task is None:
            self._task = self._bar.add_task("", total=progress.epochs * progress.steps, facts="")
        where = f"epoch {progress.epoch}/{progress.epochs}"
        facts = f"loss {progress.loss:.3f}  {progress.rate:,.0f} words/s  {duration(progress.left)} left"
        done = (progress.epoch - 1) * progress.steps + progress.step
        self._bar.update(self._task, completed=done, description=where, facts=facts)
        self._steps += 1
        if self._steps == MEASURED:
            self.tell(f"about {duration(progress.left)} to go if it does not stop early, by the first {MEASURED} steps")
        if not self.console.is_terminal and time.monotonic() - self._told > EVERY:
            self._told = time.monotonic()
            self.tell(f"{where}  step {progress.step}/{progress.steps}  {facts}")

    def validated(self, record: Mapping[str, float], best: bool) -> None:
        """One line for an epoch."""
        scores = "  ".join(f"{name} {value:.4g}" for name, value in record.items() if name not in ("epoch", "seconds"))
        mark = "  best so far" if best else ""
        self.tell(f"epoch {record['epoch']:.0f}  {scores}  {duration(record['seconds'])}{mark}")


def duration(seconds: float) -> str:
    """A time as a person says it.

    >>> duration(4.2), duration(75), duration(7300)
    ('4 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
