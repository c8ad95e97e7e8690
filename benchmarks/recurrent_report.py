"""What benchmarks/recurrent_cpu.py found: as a table, as JSON, as Markdown and as a picture."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interleave import Timing
from rich.console import Console
from rich.table import Table
from rivals import CELLS, MODES, Shape

COLUMNS = ("row", "what", "measured", "detail", "must", "aim", "verdict")
STYLES = {"PASS, aim": "bold green", "PASS": "green", "MISS": "bold red"}
COLOURS = {
    "carousel": "#d1495b",
    "torch.nn": "#3d5a80",
    "eager loop": "#8d99ae",
    "jax": "#3a9d6e",
    "onnxruntime": "#e0a030",
}


@dataclass(frozen=True)
class Measurement:
    """All sides on one problem, and the rate of torch.mm beside them."""

    cell: str
    mode: str
    shape: Shape
    flops: float
    mm_rate: float  # FLOP/s
    timings: dict[str, Timing]

    def ratio(self, rival: str) -> float:
        return self.timings[rival].median / self.timings["carousel"].median

    def share(self, side: str) -> float:
        """Of torch.mm's rate."""
        return self.flops / self.timings[side].median / self.mm_rate


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    row: int
    what: str
    value: float
    must: float | None = None
    aim: float | None = None
    unit: str = " x"
    less: bool = False  # less is better
    detail: str = ""
    took: dict[str, Timing] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        if self.must is None:
            return ""
        sign = -1 if self.less else 1
        if self.aim is not None and sign * self.value >= sign * self.aim:
            return "PASS, aim"
        return "PASS" if sign * self.value >= sign * self.must else "MISS"

    def cells(self) -> tuple[str, ...]:
        """The line's text, as `COLUMNS`."""
        bound = "≤ " if self.less else ""
        wanted = ("" if target is None else f"{bound}{target:g}{self.unit}" for target in (self.must, self.aim))
        digits = 1 if self.unit == " ms" else 2
        return (str(self.row), self.what, f"{self.value:.{digits}f}{self.unit}", self.detail, *wanted, self.verdict)

    def facts(self) -> dict[str, Any]:
        """The line for JSON."""
        return {
            "row": self.row,
            "what": self.what,
            "value": self.value,
            "must": self.must,
            "aim": self.aim,
            "less_is_better": self.less,
            "verdict": self.verdict,
            "detail": self.detail,
            "took": summaries(self.took),
        }


def against(measurements: list[Measurement], cell: str, mode: str, rival: str) -> dict[Shape, float]:
    """The ratio at each shape where both sides ran."""
    chosen = (m for m in measurements if (m.cell, m.mode) == (cell, mode) and rival in m.timings)
    return {m.shape: m.ratio(rival) for m in chosen}


def mean_figure(
    row: int, what: str, ratios: dict[Shape, float], *, must: float | None = None, aim: float | None = None
) -> Figure:
    """The geometric mean, with the extremes as detail."""
    low, high = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    detail = f"{ratios[low]:.2f} ({low}) to {ratios[high]:.2f} ({high})"
    return Figure(row, what, statistics.geometric_mean(ratios.values()), must=must, aim=aim, detail=detail)


def print_figures(console: Console, title: str, caption: str, figures: list[Figure]) -> None:
    """The table on a terminal, a rule between rows of different numbers."""
    table = Table(title=title, caption=caption)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in ("measured", "must", "aim") else "left")
    for before, figure in zip([None, *figures], figures, strict=False):
        if before is not None and before.row != figure.row:
            table.add_section()
        *plain, verdict = figure.cells()
        table.add_row(*plain, f"[{STYLES[verdict]}]{verdict}[/]" if verdict else "")
    console.print(table)


def markdown_table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in [columns, ["---"] * len(columns), *lines]]


def machine(threads: int) -> dict[str, Any]:
    """What the figures hold for."""
    versions = {}
    for name in ("torch", "jax", "onnxruntime", "torchrecurrent", "llvmlite"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "none"
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions,
        "date": datetime.date.today().isoformat(),
    }


def cpu() -> str:
    """The processor's name and widest vectors; the bare name is the same for many generations."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    flags = facts.get("flags", "").split()
    vectors = next((name for name in ("avx512f", "avx2", "avx") if name in flags), "")
    model = f"family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"
    return f"{facts.get('model name', platform.machine())} ({model}, {vectors})"


def machine_lines(m: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    return [
        f"{m['threads']} thread(s) of {m['cores']} on {m['cpu']}; load before: {m['load']}",
        f"Python {m['python']}, {versions}; {m['date']}",
    ]


@dataclass(frozen=True)
class Report:
    """Everything one run found."""

    machine: dict[str, Any]
    options: list[str]
    measurements: list[Measurement]
    figures: list[Figure]

    def heading(self) -> list[str]:
        lines = machine_lines(self.machine)
        if self.measurements:
            rate = statistics.median(found.mm_rate for found in self.measurements) / 1e9
            shapes = sorted({found.shape for found in self.measurements})
            sizes, batches = (sorted({shape[k] for shape in shapes}) for k in (0, 1))
            lines.append(f"torch.mm: {rate:.0f} GFLOP/s; H in {sizes}, B in {batches}")
        return lines

    def print(self, console: Console) -> None:
        print_figures(console, "Recurrent cells on the CPU", "\n".join(self.heading()), self.figures)

    def markdown(self) -> str:
        """The table for the documentation, with how to repeat it."""
        command = " ".join(["python benchmarks/recurrent_cpu.py", *self.options])
        table = markdown_table(COLUMNS, (figure.cells() for figure in self.figures))
        return "\n".join(["```sh", command, "```", "", *(f"{line}  " for line in self.heading()), "", *table, ""])

    def json(self) -> str:
        found = {
            "machine": self.machine,
            "options": self.options,
            "figures": [figure.facts() for figure in self.figures],
            "measurements": [
                {
                    "cell": m.cell,
                    "mode": m.mode,
                    **m.shape._asdict(),
                    "flops": m.flops,
                    "mm_rate": m.mm_rate,
                    "took": summaries(m.timings),
                }
                for m in self.measurements
            ],
        }
        return json.dumps(found, indent=1)


def summaries(timings: dict[str, Timing]) -> dict[str, dict[str, float]]:
    """Milliseconds of every side."""
    return {
        name: {
            "median": 1000 * timing.median,
            "quartile_1": 1000 * timing.quartiles[0],
            "quartile_3": 1000 * timing.quartiles[1],
            "least": 1000 * min(timing.seconds),
            "rounds": len(timing.seconds),
        }
        for name, timing in timings.items()
    }


def plot(report: Report, path: Path) -> None:
    """Each side's share of torch.mm's rate: a panel per cell and mode, in it a block per H, in that a point per B."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = [name for name in CELLS if any(m.cell == name for m in report.measurements)]
    size = (1.2 + 3.6 * len(names), 8.0)
    figure, panels = plt.subplots(len(MODES), len(names), figsize=size, sharex=True, sharey=True, squeeze=False)
    shares = [m.share(side) for m in report.measurements for side in m.timings]
    lowest, highest = min(shares), max(*shares, 1.0)
    for mode, row in zip(MODES, panels, strict=True):
        for name, axes in zip(names, row, strict=True):
            chosen = [m for m in report.measurements if (m.cell, m.mode) == (name, mode)]
            _panel(axes, chosen)
            axes.set_ylim(0.6 * lowest, 1.8 * highest)
        row[0].set_ylabel(mode, fontsize=13, weight="bold")
    for name, axes in zip(names, panels[0], strict=True):
        axes.set_title(CELLS[name].title, fontsize=13, weight="bold")
    _legend(figure, report)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axes: Any, measurements: list[Measurement]) -> None:
    sizes, batches = (sorted({m.shape[k] for m in measurements}) for k in (0, 1))
    places = {Shape(H, B): i * (len(batches) + 1.2) + j for i, H in enumerate(sizes) for j, B in enumerate(batches)}
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}" if share >= 0.01 else f"{share:.1%}")
    axes.axhline(1.0, color="#333333", linewidth=1)
    for i, H in enumerate(sizes):
        block = sorted((m for m in measurements if m.shape.H == H), key=lambda m: m.shape.B)
        left = places[block[0].shape] - 0.6
        axes.axvspan(left, left + len(batches) + 0.2, color="#f3f1ec" if i % 2 == 0 else "#faf9f6", zorder=0)
        for side in COLOURS:
            points = [(places[m.shape], m.share(side)) for m in block if side in m.timings]
            ours = side == "carousel"
            style = {"color": COLOURS[side], "zorder": 4 if ours else 3, "linewidth": 2.2 if ours else 1.4}
            if points:
                axes.plot(*zip(*points, strict=True), marker="o" if ours else "s", markersize=5 if ours else 4, **style)
    middles = [statistics.mean(places[Shape(H, B)] for B in batches) for H in sizes]
    axes.set_xticks(middles, [f"H={H}" for H in sizes], fontsize=9)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color="#d8d4cc", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Any, report: Report) -> None:
    from matplotlib.lines import Line2D

    shown = [side for side in COLOURS if any(side in m.timings for m in report.measurements)]
    handles = [
        Line2D([], [], color=COLOURS[side], marker="o" if side == "carousel" else "s", label=side) for side in shown
    ]
    batches = sorted({m.shape.B for m in report.measurements})
    figure.suptitle("Recurrent cells on the CPU: share of torch.mm's rate", fontsize=15)
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.965), ncols=len(shown), frameon=False)
    notes = [
        f"In each block, left to right: B = {', '.join(map(str, batches))}. Dark line: torch.mm.",
        *report.heading(),
    ]
    figure.text(0.5, 0.012, "\n".join(notes), ha="center", va="bottom", fontsize=9, color="#555555")
    figure.tight_layout(rect=(0, 0.1, 1, 0.95))
