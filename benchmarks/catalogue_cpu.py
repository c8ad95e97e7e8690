"""Time every cell of the catalogue on the CPU: against our LSTM, for each FLOP, and against its own eager loop.

    python benchmarks/catalogue_cpu.py --json catalogue.json --plot catalogue.png --markdown catalogue.md
    python benchmarks/catalogue_cpu.py --rows 3 --threads 2               # the scan, on two threads
    python benchmarks/catalogue_cpu.py --quick --cells gru lem mingru

A training call, forward and backward, in float32, over T = 100 steps of B = 32 sequences, as many inputs as units:

    1  time for each FLOP, over the LSTM's
    2  the plain Python loop over `cell.step`, over ours
    3  minGRU at T = 4096, B = 8, H = 256: its scan and its compiled loop with the eager loop
    4  torchrecurrent's layer, over ours, where it is installed and has the cell

FLOPs are those of the matrix products, of inputs and of states, forward and the two gradients of each, as the compiler
counts them (`carousel.explain`); for a cell that is not compiled, as PyTorch counts them in its eager loop. Elementwise
arithmetic is not in them but takes its time, so cells that have few products beside it come out worse; where the loop
holds no product at all (marked *), the FLOPs are those of the inputs alone. The column "all" is the same ratio for
each instruction: half the FLOPs, which are multiplied and added in one, and the loop's elementwise arithmetic as the
compiler reckons it (24 for a tanh, say). What is elementwise in the inputs alone is before the loop, and in neither.

The LSTM takes its turn beside every cell, in random order, after a warm-up, on pinned cores; ratios are those of
medians. Before it is timed, ours must give the gradient of the inputs that the eager loop gives. torchrecurrent starts
from weights of its own and is only timed. Each problem is timed for `--budget` seconds and at least 3 rounds. Verdicts
hold for the worse of H = 128 and 256; `must` and `aim` are what the project wants of itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import interleave
import recurrent_report as report
import rivals
import torch
from interleave import Timing
from recurrent_report import Figure
from rich.console import Console
from rich.progress import track
from rivals import Shape, T
from torch.utils.flop_counter import FlopCounterMode

import carousel
from carousel.cells import CELLS, Cell
from carousel.compiler.engine import known

ROWS = range(1, 5)
SIZES, BATCH, JUDGED = (64, 128, 256), 32, 128
# Gradients through a layer norm of what is still zero are large, and so are their errors in float32: for the LSTM with
# layer norms, at H = 128, 2e-3 of the largest compiled, 6e-4 step by step, against float64.
TOLERANCE = 1e-2
PER_FLOP, EAGER, SCAN, TORCHRECURRENT = (1.3, 1.1), (2.5, 4.0), (2.0, None), (3.0, None)
IN_TORCHRECURRENT = {
    "antisymmetric": "AntisymmetricRNN",
    "antisymmetric-gated": "GatedAntisymmetricRNN",
    "cornn": "coRNN",
    "indrnn": "IndRNN",
    "lem": "LEM",
    "lstm-1997": "OriginalLSTM",
    "lstm-multiplicative": "MultiplicativeLSTM",
    "lstm-peephole": "PeepholeLSTM",
    "mgu": "MGU",
    "mut1": "MUT1",
    "mut2": "MUT2",
    "mut3": "MUT3",
    "ugrnn": "UGRNN",
}


@dataclass(frozen=True)
class Work:
    """What a training call computes, for each sequence and step."""

    flops: float  # of products
    instructions: float | None  # of products and elementwise arithmetic; None where the compiler has not counted
    products_in_loop: bool


@dataclass(frozen=True)
class Measurement:
    """A cell and the LSTM, side by side on one problem."""

    cell: str
    H: int
    work: Work
    lstm: Work
    timings: dict[str, Timing]

    def per_flop(self) -> float:
        """Time for each FLOP over the LSTM's."""
        return self._over_lstm(self.work.flops, self.lstm.flops)

    def per_instruction(self) -> str:
        """The same for each instruction, as text."""
        if self.work.instructions is None or self.lstm.instructions is None:
            return "not counted"
        return f"{self._over_lstm(self.work.instructions, self.lstm.instructions):.2f}"

    def _over_lstm(self, ours: float, theirs: float) -> float:
        return (self.timings["carousel"].median / ours) / (self.timings["lstm"].median / theirs)

    def faster_than(self, side: str) -> float:
        return self.timings[side].median / self.timings["carousel"].median


def main() -> None:
    arguments = parse()
    interleave.pin(arguments.threads)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    machine = report.machine(arguments.threads)
    measurements = list(sweep(arguments)) if {1, 2, 4} & set(arguments.rows) else []
    figures = [figure for figure in judged(measurements) if figure.row in arguments.rows]
    if 3 in arguments.rows:
        figures += scans(arguments)
    figures.sort(key=lambda figure: figure.row)
    heading = report.machine_lines(machine)
    console = Console(width=max(Console().width, 150))
    report.print_figures(console, "The catalogue on the CPU", "\n".join(heading), figures)
    if arguments.json:
        arguments.json.write_text(as_json(machine, figures, measurements))
    if arguments.markdown:
        arguments.markdown.write_text(markdown(heading, figures, measurements))
    if arguments.plot and measurements:
        plot(measurements, heading, arguments.plot)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, choices=(1, 2), default=1)
    parser.add_argument("--rows", type=int, nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--sizes", type=int, nargs="+", metavar="H", help=f"default: {SIZES}; quick: {JUDGED}")
    parser.add_argument("--budget", type=float, help="seconds for each problem; default: 1.5; quick: 0.3")
    parser.add_argument("--quick", action="store_true", help="one size, a fifth of the time, a shorter scan")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every median and spread")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the tables, for the documentation")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a PNG of rows 1 and 2")
    arguments = parser.parse_args()
    arguments.sizes = arguments.sizes or ([JUDGED] if arguments.quick else list(SIZES))
    arguments.budget = arguments.budget or (0.3 if arguments.quick else 1.5)
    return arguments


def sweep(arguments: argparse.Namespace) -> Iterator[Measurement]:
    """Every cell at every size."""
    problems = [(name, H) for H in arguments.sizes for name in arguments.cells]
    for name, H in track(problems, "cells x sizes", console=Console(stderr=True), transient=True):
        cell, lstm = CELLS[name](H, H), CELLS["lstm"](H, H)
        inputs, grown = torch.randn(T, BATCH, H), torch.randn(T, BATCH, cell.output_size)
        runs = {
            "carousel": rivals.torch_run(rivals.outputs_of(cell, "auto"), cell, "training", inputs, grown),
            "eager loop": rivals.torch_run(
                lambda x, cell=cell: rivals.plain_loop(cell, x), cell, "training", inputs, grown
            ),
        }
        rivals.agree(runs, TOLERANCE)
        weighting = torch.randn(T, BATCH, H)
        runs["lstm"] = rivals.torch_run(rivals.outputs_of(lstm, "auto"), lstm, "training", inputs, weighting)
        if 4 in arguments.rows and name in IN_TORCHRECURRENT and importlib.util.find_spec("torchrecurrent"):
            layer = theirs(name, H)
            runs["torchrecurrent"] = rivals.torch_run(
                lambda x, layer=layer: layer(x)[0], layer, "training", inputs, weighting
            )
        yield Measurement(name, H, work(cell), work(lstm), interleave.interleave(runs, arguments.budget))


def theirs(name: str, H: int) -> Any:
    import torchrecurrent

    return getattr(torchrecurrent, IN_TORCHRECURRENT[name])(H, H)


def work(cell: Cell) -> Work:
    """From what the compiler found, or for a cell that is not compiled from PyTorch's own counter."""
    counted = carousel.explain(cell).cells[0].work
    if counted is not None:
        graph, state = known(cell).recurrence.graph, known(cell).recurrence.state
        flops = float(counted.forward + counted.backward)
        elementwise = counted.pointwise_forward + counted.pointwise_backward
        in_loop = any(node.op == "product" for node in graph.used(state))
        return Work(flops, flops / 2 + elementwise, in_loop)
    steps, batch = 2, 2  # the first step has no gradient of a state to pass on, a long loop hardly differs
    x = torch.randn(steps, batch, cell.input_size, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        rivals.plain_loop(cell, x).sum().backward()
    return Work(counter.get_total_flops() / (steps * batch), None, True)


def judged(measurements: list[Measurement]) -> Iterator[Figure]:
    """For each cell the worse of the sizes that count."""
    for name in dict.fromkeys(m.cell for m in measurements):
        sizes = [m for m in measurements if m.cell == name]
        large = [m for m in sizes if m.H >= JUDGED] or sizes
        worst = max(large, key=Measurement.per_flop)
        mark = "" if worst.work.products_in_loop else " *"
        detail = f"H={worst.H}; for each instruction {worst.per_instruction()}"
        must, aim = PER_FLOP
        yield Figure(
            1, f"{name}{mark}: time per FLOP / the LSTM's", worst.per_flop(), must, aim, less=True, detail=detail
        )
        for row, side, (must, aim) in ((2, "eager loop", EAGER), (4, "torchrecurrent", TORCHRECURRENT)):
            if side in large[0].timings:
                worst = min(large, key=lambda m: m.faster_than(side))
                yield Figure(row, f"{name} / {side}", worst.faster_than(side), must, aim, detail=f"H={worst.H}")


def scans(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Row 3: one training call, by every engine."""
    steps, B, H = (512 if arguments.quick else 4096), 8, 256
    cell = CELLS["mingru"](H, H)
    inputs, weighting = torch.randn(steps, B, H), torch.randn(steps, B, H)
    runs = {
        side: rivals.torch_run(rivals.outputs_of(cell, engine), cell, "training", inputs, weighting)
        for side, engine in (("carousel", "compiled"), ("scan", "scan"))
    }
    runs["eager loop"] = rivals.torch_run(lambda x: rivals.plain_loop(cell, x), cell, "training", inputs, weighting)
    rivals.agree(runs)
    took = interleave.interleave(runs, 4 * arguments.budget)
    what = f"minGRU, T={steps} B={B} H={H}, {arguments.threads} thread(s)"
    stepping, (must, aim) = took["eager loop"].median, SCAN
    detail = f"{1000 * took['scan'].median:.0f} ms against {1000 * stepping:.0f}"
    yield Figure(
        3, f"{what}: scan / eager stepping", stepping / took["scan"].median, must, aim, detail=detail, took=took
    )
    detail = f"{1000 * took['carousel'].median:.0f} ms"
    yield Figure(3, f"{what}: compiled / eager stepping", stepping / took["carousel"].median, detail=detail)


COLUMNS = ("cell", "FLOPs", "per FLOP, H=64", "128", "256", "all", "verdict")
COLUMNS += ("over eager, H=64", "128", "256", "verdict", "over torchrecurrent")


def lines(figures: list[Figure], measurements: list[Measurement]) -> Iterator[tuple[str, ...]]:
    """One for each cell, as `COLUMNS`."""
    verdicts = {(figure.row, figure.what.split()[0].rstrip(":")): figure.verdict for figure in figures}
    for name in dict.fromkeys(m.cell for m in measurements):
        at = {m.H: m for m in measurements if m.cell == name}
        one = at[max(at)]
        per_flop = [f"{at[H].per_flop():.2f}" if H in at else "" for H in SIZES]
        eager = [f"{at[H].faster_than('eager loop'):.1f}" if H in at else "" for H in SIZES]
        there = [f"{m.faster_than('torchrecurrent'):.1f}" for m in at.values() if "torchrecurrent" in m.timings]
        yield (
            name if one.work.products_in_loop else f"{name} *",
            f"{one.work.flops / one.lstm.flops:.2f}",
            *per_flop,
            one.per_instruction(),
            verdicts.get((1, name), ""),
            *eager,
            verdicts.get((2, name), ""),
            ", ".join(there),
        )


def markdown(heading: list[str], figures: list[Figure], measurements: list[Measurement]) -> str:
    """The tables for the documentation, with how to repeat them."""
    command = " ".join(["python benchmarks/catalogue_cpu.py", *sys.argv[1:]])
    text = ["```sh", command, "```", "", *(f"{line}  " for line in heading), ""]
    if measurements:
        text += [
            f"A training call, T = {T}, B = {BATCH}, I = H. FLOPs, and time for each FLOP, over the LSTM's: less is",
            f"better (must {PER_FLOP[0]}, aim {PER_FLOP[1]}, from H = {JUDGED} on). Over the eager loop: more is",
            f"better (must {EAGER[0]:g}, aim {EAGER[1]:g}). *all*: for each instruction, elementwise ones in the loop",
            "included, at the largest H. \\*: no product in the loop.",
            "",
            *report.markdown_table(COLUMNS, lines(figures, measurements)),
            "",
        ]
    scan = [figure.cells() for figure in figures if figure.row == 3]
    if scan:
        text += [*report.markdown_table(report.COLUMNS, scan), ""]
    return "\n".join(text)


def as_json(machine: dict[str, Any], figures: list[Figure], measurements: list[Measurement]) -> str:
    found = {
        "machine": machine,
        "options": sys.argv[1:],
        "figures": [figure.facts() for figure in figures],
        "measurements": [
            {
                "cell": m.cell,
                **Shape(m.H, BATCH)._asdict(),
                "flops": m.work.flops,
                "instructions": m.work.instructions,
                "products_in_loop": m.work.products_in_loop,
                "per_flop": m.per_flop(),
                "took": report.summaries(m.timings),
            }
            for m in measurements
        ],
    }
    return json.dumps(found, indent=1)


def plot(measurements: list[Measurement], heading: list[str], path: Path) -> None:
    """Two panels, a line for each cell in both, a dot for each size."""
    from matplotlib.figure import Figure as Picture

    names = list(dict.fromkeys(m.cell for m in measurements))
    picture = Picture(figsize=(11.0, 2.2 + 0.24 * len(names)), layout="constrained")
    left, right = picture.subplots(1, 2, sharey=True)
    colours = dict(zip(sorted({m.H for m in measurements}), ("#e0a030", "#d1495b", "#3d5a80", "#3a9d6e"), strict=False))
    for m in measurements:
        place, colour = names.index(m.cell), colours.get(m.H, "#8d99ae")
        left.plot(m.per_flop(), place, "o", color=colour, markersize=5)
        right.plot(m.faster_than("eager loop"), place, "o", color=colour, markersize=5)
    for axes, (must, aim), title in (
        (left, PER_FLOP, "time per FLOP over the LSTM's (less is better)"),
        (right, EAGER, "times as fast as the eager loop (more is better)"),
    ):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "235" else "")
        axes.axvline(must, color="#333333", linewidth=1)
        axes.axvline(aim, color="#333333", linewidth=1, linestyle=":")
        axes.set_title(title, fontsize=11)
        axes.grid(color="#d8d4cc", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_yticks(range(len(names)), names, fontsize=9)
    left.set_ylim(len(names) - 0.3, -0.7)
    for H, colour in colours.items():
        right.plot([], [], "o", color=colour, label=f"H = {H}")
    right.legend(frameon=False)
    picture.suptitle("The catalogue on the CPU, training; lines: must, dotted: aim", fontsize=13)
    picture.supxlabel("\n".join(heading), fontsize=8, color="#555555")
    picture.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
