"""Time Carousel's recurrent cells on the CPU against PyTorch, JAX, ONNX Runtime and the machine's own matrix product.

    python benchmarks/recurrent_cpu.py --threads 1 --json one.json --plot one.png --markdown one.md
    python benchmarks/recurrent_cpu.py --threads 2                      # the same, and two cores over one
    python benchmarks/recurrent_cpu.py --quick                          # about a minute
    python benchmarks/recurrent_cpu.py --rows 3 --cells gru --sizes 128 --batches 8 32

What is compared, in float32, over T = 100 steps with as many inputs as units (I = H); a training call is a forward and
a backward pass, from a random gradient of the outputs to the gradients of the inputs and of every weight:

    1  LSTM with nn.LSTM
    2  GRU with nn.GRU, tanh RNN with nn.RNN
    3  peephole LSTM and reset-before GRU with the plain Python loop over `cell.step`, and with JAX's `lax.scan` under
       jit, its input product hoisted
    4  every cell with torch.mm: the rate of all its products (input, recurrent, and two gradients of each)
    5  ragged LSTM, T = 500, H = 64, B = 32, lengths uniform from T/10 to T: with packed nn.LSTM (packing and unpacking
       included), and with our padded batch times the share of real steps
    6  one streaming LSTM step from Python, B = 1, H = 128, no gradient, with nn.LSTMCell
    7  LSTM at two threads with one, B >= 32, --threads 2 alone; the process keeps freed memory, as training does
    8  the first training call of an LSTM over a steady one, compiled and read from the disk, in fresh processes
    9  LSTM with products of bfloat16 numbers with itself in float32, B >= 8, where the processor has them

Every ratio is the other side's time over ours, so that more is better, unless the row says otherwise. The two sides
take turns within one loop, each round in a random order, after a warm-up, on pinned cores. A turn is as many calls in
a row as fit into 20 ms, after one that is not timed, or a single call that takes longer; a ratio is that of the two
medians. Each pair is timed for `--budget` seconds and at least 3 rounds (5 in row 4; row 8: 5 pairs of processes).
Before it is timed, each side must give the same outputs and the same gradient of the inputs as ours. Over shapes, the
geometric mean. jax, onnxruntime with onnx, and matplotlib are optional. `must` and `aim` are what the project wants of
itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import interleave
import recurrent_report as report
import rivals
import torch
from recurrent_report import Figure, Measurement
from rich.console import Console
from rich.progress import track
from rivals import CELLS, MODES, Shape

from carousel.compiler import objects
from carousel.training import keep_freed_memory

ROWS = range(1, 10)
SIZES, BATCHES = (32, 64, 128, 256, 512), (1, 8, 32, 128)
CELLS_OF_ROW = {1: ("lstm",), 2: ("gru-reset-after", "elman"), 3: ("peephole", "gru"), 4: tuple(CELLS)}
MUST_AIM_3 = {"eager loop": (3.0, 5.0), "jax": (1.5, 2.0)}


def main() -> None:
    arguments = parse()
    interleave.pin(arguments.threads)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    before = report.machine(arguments.threads)
    measurements = list(sweep(arguments))
    figures = [
        figure
        for row, make in {1: row_1, 2: row_2, 3: row_3, 4: row_4}.items()
        if row in arguments.rows
        for figure in make(measurements)
    ]
    for row, make in {5: row_5, 6: row_6, 7: row_7, 8: row_8, 9: row_9}.items():
        if row in arguments.rows:
            figures += make(arguments)
    result = report.Report(before, sys.argv[1:], measurements, figures)
    result.print(Console(width=max(Console().width, 150)))
    if arguments.json:
        arguments.json.write_text(result.json())
    if arguments.markdown:
        arguments.markdown.write_text(result.markdown())
    if arguments.plot:
        report.plot(result, arguments.plot)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, choices=(1, 2), default=1)
    parser.add_argument("--rows", type=int, nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--sizes", type=int, nargs="+", metavar="H", help=f"default: {SIZES}")
    parser.add_argument("--batches", type=int, nargs="+", metavar="B", help=f"default: {BATCHES}")
    parser.add_argument("--budget", type=float, help="seconds for each pair of sides; default: 1")
    parser.add_argument("--quick", action="store_true", help="four shapes and a fifth of the time")
    parser.add_argument("--engine", choices=("auto", "eager", "compiled"), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="every median and spread")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the table, for the documentation")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a PNG: every side's share of torch.mm's rate")
    arguments = parser.parse_args()
    arguments.sizes = arguments.sizes or ([64, 256] if arguments.quick else list(SIZES))
    arguments.batches = arguments.batches or ([1, 32] if arguments.quick else list(BATCHES))
    arguments.budget = arguments.budget or (0.2 if arguments.quick else 1.0)
    return arguments


def rest(arguments: argparse.Namespace) -> float:
    """Seconds between sides: with several threads, for those of the last one to fall asleep."""
    return 0.0 if arguments.threads == 1 else 0.01


def sweep(arguments: argparse.Namespace) -> Iterator[Measurement]:
    """Every cell over every shape, forward and training, for rows 1 to 4."""
    rows = [row for row in CELLS_OF_ROW if row in arguments.rows]
    names = [name for name in arguments.cells if any(name in CELLS_OF_ROW[row] for row in rows)]
    shapes = [Shape(H, B) for H in arguments.sizes for B in arguments.batches]
    problems = [(name, mode, shape) for shape in shapes for name in names for mode in MODES]
    if not problems:
        return
    product = fastest_product(shapes)
    peak = {"torch.mm": product.run}
    rate = product.flops / interleave.interleave(peak, arguments.budget)["torch.mm"].median
    for name, mode, shape in track(problems, "cells x shapes", console=Console(stderr=True), transient=True):
        runs = rivals.sides(CELLS[name], mode, shape, arguments.engine)
        rivals.agree(runs)
        beside = peak if counts_for_row_4(shape) else {}
        least = 5 if beside and not arguments.quick else 3
        timings = interleave.interleave(
            runs | beside, arguments.budget, least=least, rest=rest(arguments), prime=product.run
        )
        if beside:
            rate = product.flops / timings.pop("torch.mm").median
        yield Measurement(name, mode, shape, rivals.flops(CELLS[name], mode, shape), rate, timings)


def counts_for_row_4(shape: Shape) -> bool:
    """Large enough to be held to torch.mm, which then takes its turn among the sides."""
    return shape.H >= 128 and shape.B >= 32


def fastest_product(shapes: Iterable[Shape]) -> rivals.Product:
    """The torch.mm that this machine is best at, among 1024^3 and those that the cells themselves need."""
    sizes = [(1024, 1024, 1024), *((rivals.T * B, H, 4 * H) for H, B in shapes if counts_for_row_4(Shape(H, B)))]
    products = [rivals.Product.of(*size) for size in sizes]
    runs = {str(k): product.run for k, product in enumerate(products)}
    timings = interleave.interleave(runs, 0.0, least=5)
    return max(products, key=lambda product: product.flops / timings[str(products.index(product))].median)


def row_1(measurements: list[Measurement]) -> Iterator[Figure]:
    for mode in MODES:
        found = report.against(measurements, "lstm", mode, "torch.nn")
        if not found:
            continue
        yield report.mean_figure(1, f"LSTM / nn.LSTM, {mode}", found, must=1.0, aim=1.3)
        worst = min(found, key=found.__getitem__)
        yield Figure(1, f"LSTM / nn.LSTM, {mode}, worst shape", found[worst], must=0.85, aim=1.0, detail=str(worst))
    if found := report.against(measurements, "lstm", "forward", "onnxruntime"):
        yield report.mean_figure(1, "LSTM / ONNX Runtime, forward", found)


def row_2(measurements: list[Measurement]) -> Iterator[Figure]:
    for name, layer in (("gru-reset-after", "nn.GRU"), ("elman", "nn.RNN")):
        if found := report.against(measurements, name, "training", "torch.nn"):
            yield report.mean_figure(2, f"{CELLS[name].title} / {layer}, training", found, must=1.5, aim=2.5)


def row_3(measurements: list[Measurement]) -> Iterator[Figure]:
    for name in CELLS_OF_ROW[3]:
        for rival, (must, aim) in MUST_AIM_3.items():
            if found := report.against(measurements, name, "training", rival):
                yield report.mean_figure(3, f"{CELLS[name].title} / {rival}, training", found, must=must, aim=aim)


def row_4(measurements: list[Measurement]) -> Iterator[Figure]:
    large = [m for m in measurements if counts_for_row_4(m.shape) and m.mode == "training"]
    for name in CELLS:
        shares = {m.shape: m.share("carousel") for m in large if m.cell == name}
        if not shares:
            continue
        worst = min(shares, key=shares.__getitem__)
        mean = statistics.geometric_mean(shares.values())
        what = f"{CELLS[name].title}: share of torch.mm's rate, training, worst shape"
        yield Figure(4, what, shares[worst], must=0.75, aim=0.9, unit="", detail=f"{worst}; mean {mean:.2f}")


def row_5(arguments: argparse.Namespace) -> Iterator[Figure]:
    T, H, B = 500, 64, 32
    cell = CELLS["lstm"].cell(H, H)
    layer = rivals.to_torch([cell])
    lengths = torch.randint(T // 10, T + 1, (B,))
    real = float(lengths.sum()) / (T * B)
    inputs, weighting = torch.randn(T, B, H), torch.randn(T, B, H)
    for mode in reversed(MODES):
        ragged, padded = (rivals.outputs_of(cell, arguments.engine, given) for given in (lengths, None))
        runs = {
            "carousel": rivals.torch_run(ragged, cell, mode, inputs, weighting),
            "packed": rivals.packed_run(layer, lengths, mode, inputs, weighting),
        }
        rivals.agree(runs)
        runs["carousel, padded"] = rivals.torch_run(padded, cell, mode, inputs, weighting)
        runs["nn.LSTM, padded"] = rivals.torch_run(lambda x: layer(x)[0], layer, mode, inputs, weighting)
        took = interleave.interleave(runs, 4 * arguments.budget, rest=rest(arguments))
        median = {name: timing.median for name, timing in took.items()}
        must, aim = (8.0, 15.0) if mode == "training" else (1.5, 2.0)
        slower = f"packed is {median['packed'] / median['nn.LSTM, padded']:.1f} x nn.LSTM on the padded batch"
        ratio = median["packed"] / median["carousel"]
        yield Figure(5, f"ragged LSTM / packed nn.LSTM, {mode}", ratio, must=must, aim=aim, detail=slower, took=took)
        cost = median["carousel"] / (real * median["carousel, padded"])
        what = f"ragged LSTM: time over that of its real steps, {mode}"
        yield Figure(5, what, cost, must=1.2, aim=1.05, less=True, detail=f"{real:.0%} of the steps are real")


def row_6(arguments: argparse.Namespace) -> Iterator[Figure]:
    steps, H = 200, 128
    cell, x = CELLS["lstm"].cell(H, H), torch.randn(1, H)
    runs = {"carousel": rivals.stream(cell, x, steps), "nn.LSTMCell": rivals.torch_stream(cell, x, steps)}
    rivals.agree(runs)
    took = interleave.interleave(runs, 2 * arguments.budget, rest=rest(arguments))
    ours, theirs = (took[name].median for name in runs)
    detail = f"{1e6 * ours / steps:.1f} us a step against {1e6 * theirs / steps:.1f}"
    yield Figure(6, "one streaming LSTM step / nn.LSTMCell", theirs / ours, must=4.0, aim=8.0, detail=detail, took=took)


def row_7(arguments: argparse.Namespace) -> Iterator[Figure]:
    if arguments.threads == 1:
        return
    keep_freed_memory()
    for mode in MODES:
        found = {}
        for shape in (Shape(H, B) for H in arguments.sizes for B in arguments.batches if B >= 32):
            run = rivals.sides(CELLS["lstm"], mode, shape, arguments.engine)["carousel"]
            runs = {str(threads): rivals.at_threads(threads, run) for threads in (1, 2)}
            took = interleave.interleave(runs, arguments.budget, rest=rest(arguments))
            found[shape] = took["1"].median / took["2"].median
        torch.set_num_threads(arguments.threads)
        if found:
            yield report.mean_figure(7, f"LSTM at two threads / at one, {mode}", found, must=1.7, aim=1.9)


def row_8(arguments: argparse.Namespace) -> Iterator[Figure]:
    found: dict[str, list[float]] = {"empty": [], "filled": []}
    imports = []
    for _ in range(2 if arguments.quick else 5):
        with tempfile.TemporaryDirectory() as folder:
            for times in found.values():
                extra, imported = first_call(Path(folder))
                times.append(extra)
                imports.append(imported)
    detail = f"and {statistics.median(imports):.0f} ms to import llvmlite"
    for cache, what, must, aim in (
        ("empty", "first training call of an LSTM: compile", 400.0, 150.0),
        ("filled", "first training call of an LSTM: from the disk", 30.0, 5.0),
    ):
        value = statistics.median(found[cache])
        took = {"carousel": interleave.Timing(tuple(ms / 1000 for ms in found[cache]))}
        yield Figure(8, what, value, must=must, aim=aim, less=True, unit=" ms", detail=detail, took=took)


def row_9(arguments: argparse.Namespace) -> Iterator[Figure]:
    if not objects.processor().has_bfloat16:
        return
    for mode in MODES:
        found = {}
        for shape in (Shape(H, B) for H in arguments.sizes for B in arguments.batches if B >= 8):
            run = rivals.sides(CELLS["lstm"], mode, shape, arguments.engine)["carousel"]
            runs = {precision: rivals.at_precision(precision, run) for precision in ("none", "bf16")}
            took = interleave.interleave(runs, arguments.budget, rest=rest(arguments))
            found[shape] = took["none"].median / took["bf16"].median
        rivals.at_precision("none", lambda: None)()
        if found:
            what = f"LSTM with products of bfloat16 / of float32, {mode}"
            yield report.mean_figure(9, what, found, aim=1.6)


def first_call(cache: Path) -> tuple[float, float]:
    """Milliseconds that a fresh process's first call takes over a steady one, and for importing llvmlite."""
    command = [sys.executable, str(Path(__file__).with_name("first_call.py")), "lstm"]
    environment = {**os.environ, "CAROUSEL_CACHE_DIR": str(cache)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    extra, imported = done.stdout.split()
    return float(extra), float(imported)


if __name__ == "__main__":
    main()
