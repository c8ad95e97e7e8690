"""The page of a training run: its scores with their intervals, its curves, what the task shows, its configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from carousel.reports.charts import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, line_charts
from carousel.reports.page import write_page
from carousel.reports.section import Section

Score: TypeAlias = float | tuple[float, float, float]


def write_training_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    about: str = "",
    config: Mapping[str, object],
    epochs: Sequence[Mapping[str, object]],
    scores: Mapping[str, Score],
    best_epoch: int | None = None,
    sections: Sequence[Section] = (),
) -> Path:
    """Write one HTML page about a training run, complete in itself, and return its path.

    `epochs` is one record an epoch: the key ``epoch`` and any numbers; each becomes a curve (see `line_charts`).
    `scores` maps a metric to its value, or to ``(value, low, high)`` with the ends of its 95% interval.
    `sections` come before the configuration; each line of `about` is one of the page. `config` may hold further
    mappings, which become ``outer.inner`` rows.

    Raises:
        ConfigError: the page cannot be written; an older page at `path` is still whole.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_training_report(
    ...         f"{folder}/report.html",
    ...         title="Show and Tell",
    ...         config={"cell": "lstm", "seed": 1},
    ...         epochs=[{"epoch": 1, "validation_perplexity": 21.0}, {"epoch": 2, "validation_perplexity": 17.5}],
    ...         scores={"CIDEr": (0.481, 0.452, 0.509)},
    ...     )
    ...     "<svg" in page.read_text(encoding="utf-8")
    True
    """
    return write_page(
        path,
        "training.html.j2",
        title=title,
        about=about,
        charts=line_charts(epochs, marked=best_epoch),
        frame={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "bottom": HEIGHT - BOTTOM},
        scores=_rows(scores),
        config=_flat(config),
        epochs=len(epochs),
        best_epoch=best_epoch,
        sections=sections,
    )


class _Row(NamedTuple):
    """A score as the table shows it."""

    name: str
    value: float
    low: float | None
    high: float | None


def _rows(scores: Mapping[str, Score]) -> list[_Row]:
    return [_Row(n, *s) if isinstance(s, tuple) else _Row(n, s, None, None) for n, s in scores.items()]


def _flat(config: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """`config` as rows, a mapping inside it as ``outer.inner``.

    >>> _flat({"seed": 1, "optimiser": {"name": "adam"}})
    [('seed', 1), ('optimiser.name', 'adam')]
    """
    rows: list[tuple[str, object]] = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value))
    return rows
