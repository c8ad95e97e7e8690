"""Write what the documents show from what happens: ``python docs/generate.py``; tests tell of drift.

docs/commands.md is the commands' own help, docs/cells/README.md the catalogue of cells, with drawings of some in
docs/cells/drawings. docs/how-the-compiler-works.md is written by hand but for the blocks below a line
``<!-- made: NAME -->``.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import re
from pathlib import Path
from typing import Any

from carousel.cli import VERBS, main
from carousel.cli.train import all_settings

HEAD = """# Commands

Made by `python docs/generate.py` from the commands' own help.
"""
CELLS = Path(__file__).parent / "cells"
CELLS_HEAD = """# The cells

Made by `python docs/generate.py` from what `carousel cells` says. Weights and FLOPs are for input size 64 and hidden
size 128; FLOPs are those of the matrix products of one step of one sequence, forward. On the CPU a cell is compiled, or
else runs by its scan; one that is both has a scan for where there is no compiled loop.

With its recurrent weights at zero, each cell is a feed-forward unit: every gate and candidate is a function of this
step's input alone. The last column says what is still carried over, by a map that is affine in it; "–" is nothing, and
the cell a layer of an ordinary network. (What sLSTM and mLSTM carry is affine but for its scale, exp(m); which units of
a clockwork network are replaced is up to the clock; what diffuses in the antisymmetric ones is squashed, with γ = 0
they are as the others.) A test holds all of them to it.

`carousel cells NAME` prints a cell's equations, its options and what the compiler understood;
`carousel cells NAME --draw FILE.svg` (or `.png`) draws it, as below.
"""
DRAWN = {
    "lstm": "The gates of the LSTM, read from the trace of its `step`, and the network unfolded in time.",
    "lstm-feed-forward": "What remains of the LSTM with recurrent weights of zero: U and its arrows are gone, and each "
    "gate is a feed-forward unit, a function of this step's input alone. The memory c is still carried over, by a map "
    "that is affine in it.",
    "lstm-peephole": "The LSTM with peepholes, by which the gates see the memory.",
    "gru": "The gated recurrent unit.",
    "mut1": "The first mutation of Jozefowicz et al.",
    "lem": "The long expressive memory.",
}
COMPILER_PAGE = Path(__file__).parent / "how-the-compiler-works.md"
MADE = re.compile(r"(<!-- made: (\w+) -->\n```\w*\n)(.*?)(\n```)", re.DOTALL)
OF_THIS_MACHINE = {"ir", "assembly"}  # these follow the processor and LLVM, and are not tested


def commands() -> str:
    """The page: every verb's help, and the settings of training."""
    os.environ["COLUMNS"] = os.environ["TERMINAL_WIDTH"] = "100"
    parts = [HEAD]
    for verb in VERBS:
        with contextlib.redirect_stdout(io.StringIO()) as text:
            main([verb.__name__, "--help"])
        help_text = "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())
        parts.append(f"## carousel {verb.__name__}\n\n```\n{help_text}\n```\n")
    parts.append(f"## Settings of `carousel train`\n\n```\n{all_settings()}\n```\n")
    return "\n".join(parts)


def cells_page() -> str:
    """The page: every cell on a line, and the drawings."""
    from carousel.reports.cells import catalogue

    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(CELLS.glob("[a-z]*.md"))}
    titles = {name: "\n".join(re.findall("^#.*", text, re.MULTILINE)) for name, text in texts.items()}
    lines = ["| cell | | paper | weights | FLOPs | runs | carried over if U = 0 |", "|---|---|---|---|---|---|---|"]
    for facts in catalogue():
        page = next((page for page, text in [*titles.items(), *texts.items()] if f"`{facts.name}`" in text), None)
        name = f"[`{facts.name}`]({page})" if page else f"`{facts.name}`"
        runs = ", ".join(dict.fromkeys([str(facts.engine), *(["scan"] if facts.scan else [])]))
        numbers = f"{facts.parameters:,} | {facts.flops:,}"
        paper, carried = f"{facts.author} {facts.year}", ", ".join(carried_over(facts.name)) or "–"
        lines.append(f"| {name} | {facts.description} | {paper} | {numbers} | {runs} | {carried} |")
    figures = [f"{text}\n\n![{name}](drawings/{name}.svg)\n" for name, text in DRAWN.items()]
    return "\n".join([CELLS_HEAD, *lines, "", "## Drawings", "", *figures])


def carried_over(name: str) -> list[str]:
    """The fields of the state that a cell reads when its recurrent weights are zero."""
    from carousel.cells import cell_class
    from carousel.reports.step_graph import BEFORE, step_graph

    cell = cell_class(name)(64, 128)
    boxes = step_graph(cell, feed_forward=True)
    read = {box.label[0].removesuffix(BEFORE) for box in boxes if box.kind == "source" and not box.is_input}
    return [field for field in cell.State._fields if field in read]


def drawings() -> dict[str, str]:
    """The drawings of that page, by name, as SVG."""
    from carousel.cells import cell_class
    from carousel.reports.cells import cell_picture

    found = {}
    for name in DRAWN:
        kind = name.removesuffix("-feed-forward")
        found[name] = cell_picture(kind, cell_class(kind)(64, 128), feed_forward=kind != name).svg() + "\n"
    return found


def stages() -> dict[str, str]:
    """A GRU with 64 inputs and 128 hidden units, at every stage of its compilation."""
    import carousel
    from carousel.cells import GRU
    from carousel.compiler import kernel, objects
    from carousel.compiler.derive import derive
    from carousel.compiler.explain import Plans
    from carousel.compiler.trace import trace
    from carousel.compiler.tracer import StepTracer

    cell = GRU(64, 128)
    nodes = StepTracer(cell, leaf=lambda module: False).trace(cell).nodes
    recurrence = trace(cell)
    prologue = "".join(linecache.getlines(recurrence.prologue.__code__.co_filename))
    backward = derive(recurrence.graph, recurrence.state)
    plans: Any = Plans(recurrence)
    ir = kernel.emit("training", plans.training, plans.target, backward=False).ir
    explained = str(carousel.explain(cell).cells[0])
    return {
        "trace": "\n".join(filter(None, (node.format_node() for node in nodes))),
        "prologue": re.sub(r";  .* = None", "", prologue).strip(),
        "graph": "\n".join(map(str, recurrence.graph.used(recurrence.state))),
        "backward": "\n".join(
            [
                *map(str, backward.graph.used(backward.results)),
                f"gradient of the state   {_names(backward.state)}",
                f"gradient of the input   {', '.join(f'{key[1]}: n{n.index}' for key, n in backward.inputs.items())}",
                *(f"gradient of U[{g.start}:{g.start + g.rows}]   n{g.adjoint.index} ⊗ forward n{g.operand.index}"
                  for g in backward.weights),
                f"kept by the forward loop   {_names(backward.kept)}",
            ]
        ),
        "passes": "\n".join([*_passes("forward", plans.training), *_passes("backward", plans.backward)]),
        "explanation": explained[explained.index("\n") + 1 :],
        "ir": _loop(ir, "llvm.fma"),
        "assembly": _loop(objects.assembly(ir), "vfmadd|fmla"),
    }  # fmt: skip


def _names(nodes: Any) -> str:
    return ", ".join(f"n{node.index}" for node in nodes)


def _passes(title: str, planned: Any) -> list[str]:
    lines = []
    for number, one in enumerate(planned.passes, start=1):
        lines.append(f"{title} {number}, {one.width} columns")
        for call in one.calls:
            lines.append(f"  {len(call.weights)} x {call.inner} -> {one.width}, of {_buffer(call.operand)}")
        lines += [f"  store n{node.index} in {_buffer(buffer)}" for node, buffer in one.stores]
    return lines


def _buffer(buffer: Any) -> str:
    return f"{buffer.kind}{list(buffer.key)} by {buffer.rows}"


def _loop(code: str, multiply: str) -> str:
    """Of the loops of a product, that over four vectors of one row, up to its jump."""
    blocks = re.split(r"\n(?=[\w.$]+:)", code)
    loops = [block for block in blocks if len(re.findall(multiply, block)) == 4]
    if not loops:
        return "not for this processor"
    return re.sub(r"(\n\tj\w+\t\S+\n).*", r"\1", min(loops, key=len), flags=re.DOTALL).rstrip()


def compiler_page(page: str) -> str:
    """The page on the compiler with its made blocks as they would be made now."""
    made = stages()
    return MADE.sub(lambda block: block[1] + made[block[2]] + block[4], page)


if __name__ == "__main__":
    (CELLS / "drawings").mkdir(exist_ok=True)
    for name, svg in drawings().items():
        (CELLS / "drawings" / f"{name}.svg").write_text(svg, encoding="utf-8")
    (CELLS / "README.md").write_text(cells_page(), encoding="utf-8")
    (Path(__file__).parent / "commands.md").write_text(commands(), encoding="utf-8")
    COMPILER_PAGE.write_text(compiler_page(COMPILER_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
