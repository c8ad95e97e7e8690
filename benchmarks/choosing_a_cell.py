"""The table of docs/choosing-a-cell.md: cells on four problems, at equal parameters and equal time, on one thread.

    python benchmarks/choosing_a_cell.py OUT --mnist PATH/mnist --chorales PATH/polymusic              # 3 hours
    python benchmarks/choosing_a_cell.py OUT --mnist PATH/mnist --chorales PATH/polymusic --seeds 1 --minutes 0.4 \\
        --adding 50 --copy 30 --cells lstm gru lru                                                     # 5 minutes

OUT gets a folder for each problem, with its own table, curves and JSON, and table.md, which has all four. A run that is
there already is not repeated: stopped, it goes on, and with more cells or seeds it grows. By default 14 cells, 3 seeds,
4 problems, 1 minute each. One layer of IndRNN or minGRU has no product but with its few inputs, so these have two.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import interleave
import torch
from recurrent_report import machine, machine_lines, markdown_table

from carousel.tasks.comparison import COLUMNS, Comparison, compare

CELLS = ("elman", "irnn", "lstm", "lstm-peephole", "gru", "mgu", "ugrnn", "antisymmetric", "cornn", "lem", "slstm")
CELLS += ("indrnn layers=2", "mingru layers=2", "lru")


def main() -> None:
    arguments = parse()
    interleave.pin(1)
    torch.set_num_threads(1)
    problems = {
        "adding": {"length": arguments.adding},
        "copy": {"length": arguments.copy},
        "digits": {"data": arguments.mnist},
        "chorales": {"data": arguments.chorales},
    }
    found = {
        task: compare(
            task,
            arguments.cells,
            minutes=arguments.minutes,
            seeds=arguments.seeds,
            learning_rates=arguments.rates,
            out=arguments.out / task,
            **options,
        )
        for task, options in problems.items()
    }
    text = "\n".join([*table(found), "", *(f"{line}  " for line in machine_lines(machine(1))), ""])
    (arguments.out / "table.md").write_text(text)
    print(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--mnist", type=Path, required=True, help="the folder of the four idx files")
    parser.add_argument("--chorales", type=Path, required=True, help="JSB_Chorales.mat or its folder")
    parser.add_argument("--cells", nargs="+", default=CELLS)
    parser.add_argument("--minutes", type=float, default=1.0, help="of training, for each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-3], help="learning rates; the best counts")
    parser.add_argument("--adding", type=int, default=100, metavar="T")
    parser.add_argument("--copy", type=int, default=100, metavar="T")
    return parser.parse_args()


def table(found: dict[str, Comparison]) -> list[str]:
    """A line for each network: its mean score on each problem, the extremes, and its steps."""
    cells: dict[str, dict[str, str]] = {}
    for task, comparison in found.items():
        for place, row in enumerate(comparison.rows, start=1):
            named = dict(zip(COLUMNS, row.cells(), strict=True))
            spread = f" ({named['spread']})" if named["spread"] else ""
            score = f"**{named['test']}**" if place <= 3 else named["test"]
            cells.setdefault(row.network, {})[task] = f"{score}{spread}; {named['steps']}"
        for name, value in comparison.baselines.items():
            cells.setdefault(f"*{name}*", {})[task] = f"{value:.4g}"
    columns = [f"{task}: {comparison.settings['metric']}; steps" for task, comparison in found.items()]
    lines = [(name, *(scores.get(task, "") for task in found)) for name, scores in cells.items()]
    about = [f"- {comparison.about}. {comparison.conditions}" for comparison in found.values()]
    return [*markdown_table(("network", *columns), lines), "", *about]


if __name__ == "__main__":
    main()
