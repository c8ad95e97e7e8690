"""What of a cell's step can leave the time loop, found by tracing the step once.

The maps of a step `z = σ(update(x, h)); r = σ(reset(x, h)); a = tanh(candidate(x, r ⊙ h))` fall into two runs, those
that read `h` and that which reads `r ⊙ h`, and the step becomes

    before the loop, for all time steps at once     p = W_zr x + b_zr            q = W_a x + b_a
    in the loop                                     [z r] = σ(p + U_zr h)        a = tanh(q + U_a (r ⊙ h))

that is, one matrix product in the loop for each run, however many maps it has, and none with the inputs. A step that
cannot be traced runs as it is written.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from carousel.cells import Cell, Packed
from carousel.compiler.tracer import StepTracer


@dataclass(frozen=True)
class Run:
    """Neighbouring maps of one packed block that are read with the same `x` and `h`, and so are one product."""

    block: str
    first: int
    last: int  # exclusive
    reads_input: bool
    reads_hidden: bool


@dataclass(frozen=True)
class Hoisted:
    """A cell's step with the products of its inputs taken out.

    `step(cell, x, state, *operands)` takes for each run its input product (B, K·H), if it reads the input, and its
    transposed recurrent weights (H, K·H), if it reads the hidden state. `x` is None unless the step `reads_x` itself.
    """

    step: Callable[..., Any]
    runs: tuple[Run, ...]
    reads_x: bool

    def steps(self, cell: Cell, inputs: Tensor, sizes: list[int]) -> Iterator[Callable[[Any], Any]]:
        """For each time step of packed inputs (Σ sizes, I), the function from the state before it to that after it."""
        operands: list[Any] = []  # each a sequence over time
        for run in self.runs:
            block: Any = cell.get_submodule(run.block)
            W, U, b = block.rows(run.first, run.last)
            if run.reads_input:
                # Split at once, so that backward joins the gradients; slicing would fill (Σ sizes, K·H) at each step.
                operands.append(F.linear(inputs, W, b).split_with_sizes(sizes))
            if run.reads_hidden:
                # Autocast casts it anew at each step. Cast once before, an LSTM would be 5 % faster, but U's gradient
                # would be summed over time in bfloat16: after 200 steps 1.7 % off instead of 0.5 %.
                operands.append([U.t()] * len(sizes))
        xs = inputs.split_with_sizes(sizes) if self.reads_x else [None] * len(sizes)
        for x, *at_t in zip(xs, *operands, strict=True):
            yield partial(self._step, cell, x, at_t)

    def _step(self, cell: Cell, x: Tensor | None, operands: list[Tensor], state: Any) -> Any:
        return self.step(cell, x, state, *operands)


def _is_leaf(module: torch.nn.Module) -> bool:
    return isinstance(module, Packed) or type(module).__module__.startswith("torch.nn")


def hoist(cell: Cell) -> Hoisted | None:
    """The cell's step without its input products, or None if the step cannot be traced."""
    try:
        graph = StepTracer(cell, leaf=_is_leaf).trace(cell)
        _read_fields_once(graph)
        runs = _take_out_products(cell, graph)
        graph.lint()
    except Exception:  # a branch on a tensor, a foreign function: if the step is wrong, running it as written says so
        return None
    x, *_ = graph.find_nodes(op="placeholder")
    # The generated function takes its module as `self`: called with the cell, it sees the parameters as they now are.
    return Hoisted(type(fx.GraphModule(cell, graph)).forward, tuple(runs), reads_x=bool(x.users))


def _read_fields_once(graph: fx.Graph) -> None:
    """Make all reads of a field of the state one node, so that maps of the same `h` are seen to be."""
    _, state = graph.find_nodes(op="placeholder")
    seen: dict[Any, fx.Node] = {}
    for node in graph.find_nodes(op="call_function", target=getattr):
        if node.args[0] is state and seen.setdefault(node.args[1], node) is not node:
            node.replace_all_uses_with(seen[node.args[1]])
            graph.erase_node(node)


def _take_out_products(cell: Cell, graph: fx.Graph) -> list[Run]:
    """Replace the maps of the step's own `x` by runs, each with new placeholders for its operands."""
    x, _ = graph.find_nodes(op="placeholder")
    maps = [
        (str(node.target), *node.args, node)
        for node in graph.find_nodes(op="call_module")
        if isinstance(cell.get_submodule(str(node.target)), Packed) and node.args[1] in (x, None)
    ]
    # Stable: the nodes of each group stay in the order of the graph, but neighbouring maps come together.
    places = enumerate(sorted(maps, key=lambda item: item[:2]))
    runs = []
    for _, group in groupby(places, key=lambda place: (place[1][0], place[1][1] - place[0], *place[1][2:4])):
        members = [item for _, item in group]
        block, first, own_x, h, _ = members[0]
        run = Run(block, first, first + len(members), reads_input=own_x is x, reads_hidden=h is not None)
        _replace(graph, [node for *_, node in members], run, h)
        runs.append(run)
    return runs


def _replace(graph: fx.Graph, maps: list[fx.Node], run: Run, h: Any) -> None:
    operands = [_new_placeholder(graph) for _ in range(run.reads_input + run.reads_hidden)]
    with graph.inserting_before(min(maps)):
        if run.reads_input and run.reads_hidden:
            product = graph.call_function(torch.addmm, (operands[0], h, operands[1]))
        elif run.reads_hidden:
            product = graph.call_function(torch.mm, (h, operands[0]))
        else:
            product = operands[0]
        parts = [product]
        if len(maps) > 1:
            chunks = graph.call_method("chunk", (product, len(maps), 1))
            parts = [graph.call_function(operator.getitem, (chunks, k)) for k in range(len(maps))]
    for node, part in zip(maps, parts, strict=True):
        node.replace_all_uses_with(part)
        graph.erase_node(node)


def _new_placeholder(graph: fx.Graph) -> fx.Node:
    placeholders = graph.find_nodes(op="placeholder")
    with graph.inserting_after(placeholders[-1]):
        return graph.placeholder(f"operand_{len(placeholders)}")
