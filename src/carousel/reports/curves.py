"""Learning curves of several networks as a picture."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TypeAlias

Line: TypeAlias = Sequence[tuple[float, float]]  # x and y, x the same in all lines of a name


def curves_png(
    curves: Mapping[str, Sequence[Line]],
    *,
    title: str,
    x: str,
    y: str,
    levels: Mapping[str, float] | None = None,
    log: bool = False,
    log_x: bool = False,
) -> bytes:
    """A PNG with a curve for each name: the mean of its lines, and a band between the extremes.

    A line that ends early counts for as long as it goes.

    Args:
        levels: horizontal lines by name, such as baselines.
        log, log_x: whether y, or x, is logarithmic; y only where all is positive.

    >>> curves_png({"gru": [[(0, 1.0), (1, 0.5)]]}, title="adding", x="steps", y="loss")[1:4]
    b'PNG'
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.2), layout="constrained")
    axes = figure.subplots()
    palette, styles = colormaps["tab10"].colors, ("-", "--", ":")  # type: ignore[attr-defined]
    smallest = []
    for k, (name, lines) in enumerate(curves.items()):
        by_x: dict[float, list[float]] = {}
        for line in lines:
            for at, value in line:
                by_x.setdefault(at, []).append(value)
        places = sorted(at for at, values in by_x.items() if all(map(isfinite, values)))
        low, mean, high = ([found(by_x[at]) for at in places] for found in (min, statistics.fmean, max))
        colour, style = palette[k % 10], styles[k // 10 % 3]
        axes.plot(places, mean, label=name, color=colour, linestyle=style, linewidth=1.8)
        axes.fill_between(places, low, high, color=colour, alpha=0.12, linewidth=0)
        smallest += low
    for name, level in (levels or {}).items():
        axes.axhline(level, color="#555555", linewidth=0.9, linestyle=(0, (6, 3)))
        axes.annotate(name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="#555555")
    if log and min([*smallest, *(levels or {}).values()], default=0.0) > 0:
        axes.set_yscale("log")
    if log_x:
        axes.set_xscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    figure.suptitle(title, fontsize=11)
    axes.grid(color="#d8d4cc", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if curves:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
