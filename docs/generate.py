"""Write what the documents show from what happens: ``python docs/generate.py``; tests tell of drift.

docs/commands.md is the commands' own help. docs/how-the-compiler-works.md is written by hand but for the blocks below
a line ``<!-- made: NAME -->``.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import re
from pathlib import Path
from typing import Any

from carousel.captioning.settings import describe_settings
from carousel.cli import VERBS, main

HEAD = """# Commands

Made by `python docs/generate.py` from the commands' own help.
"""
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
    parts.append(f"## Settings of `carousel train`\n\n```\n{describe_settings()}\n```\n")
    return "\n".join(parts)


def stages() -> dict[str, str]:
    """A GRU with 64 inputs and 128 hidden units, at every stage of its compilation."""
    import carousel
    from carousel.cells import GRU
    from carousel.compiler import kernel, objects
    from carousel.compiler.derive import derive
    from carousel.compiler.explain import Plans
    from carousel.compiler.trace import StepTracer, trace

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
    (Path(__file__).parent / "commands.md").write_text(commands(), encoding="utf-8")
    COMPILER_PAGE.write_text(compiler_page(COMPILER_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
