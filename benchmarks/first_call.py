"""How long the first training call of a cell takes over a steady one, in this fresh process.

    CAROUSEL_CACHE_DIR=DIR python benchmarks/first_call.py CELL

With an empty DIR it is the cell's compilation, with a filled one its reading from the disk. Imports, and torch's own
first calls, come before and do not count. Prints two figures, both in ms: the first call less a
steady one, and the import of llvmlite.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time

import torch
from rivals import CELLS, outputs_of, plain_loop, torch_run


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    began = time.perf_counter()
    importlib.import_module("llvmlite.binding")
    imported = 1000 * (time.perf_counter() - began)
    for name in ("function", "matrix", "eager"):
        importlib.import_module(f"carousel.compiler.{name}")
    cell = CELLS[sys.argv[1]].cell(128, 128)
    inputs = torch.randn(20, 8, 128)
    torch_run(lambda x: plain_loop(cell, x), cell, "training", inputs, inputs)()
    run = torch_run(outputs_of(cell, "compiled"), cell, "training", inputs, inputs)
    times = []
    for _ in range(11):
        began = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - began))
    print(times[0] - statistics.median(times[1:]), imported)


if __name__ == "__main__":
    main()
