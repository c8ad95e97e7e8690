"""What of a cell's step can leave the time loop, found by tracing the step once.

The step `z = σ(update(x, h)); r = σ(reset(x, h)); a = tanh(candidate(x, r ⊙ h))` becomes

    before the loop, for all time steps at once     p = W x + b          of every map
    in the loop                                     [z r] = σ(p[z r] + U[z r] h)
                                                    a = tanh(p[a] + U[a] (r ⊙ h))

that is, one product with the inputs for the whole sequence, and in the loop one product for each different `h` however
many maps read it. A step that cannot be traced runs as it is written.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx

from carousel.cells import Cell, Packed


@dataclass(frozen=True)
class Run:
    """Neighbouring maps of one packed block that read the same `h`, or none: they are one product."""

    block: str
    first: int
    last: int
    reads_input: bool
    reads_hidden: bool


@dataclass(frozen=True)
class Hoisted:
    """A cell's step with the products of its inputs taken out.

    `step(cell, x, state, *operands)` takes, run by run, the input product (B, K·H) if it reads the input and the
    transposed recurrent weights (H, K·H) if it reads the hidden state. `x` is None unless `reads_x`.
    """

    step: Callable[..., Any]
    runs: tuple[Run, ...]
    reads_x: bool

    def steps(self, cell: Cell, inputs: Tensor) -> Iterator[Callable[[Any], Any]]:
        """For each time step of inputs (T, B, I), the function from the state before it to the state after it."""
        operands: list[Any] = []  # one iterable over time for each operand
        for run in self.runs:
            block: Any = cell.get_submodule(run.block)
            W, U, b = block.rows(run.first, run.last)
            if run.reads_input:
                # Unbinding once gathers the gradients of all steps once; indexing would fill (T, B, K·H) at each step.
                operands.append(torch.nn.functional.linear(inputs, W, b).unbind())
            if run.reads_hidden:
                operands.append([U.t()] * len(inputs))
        xs = inputs.unbind() if self.reads_x else [None] * len(inputs)
        for x, *at_t in zip(xs, *operands, strict=True):
            yield partial(self._step, cell, x, at_t)

    def _step(self, cell: Cell, x: Tensor | None, operands: list[Tensor], state: Any) -> Any:
        return self.step(cell, x, state, *operands)


class _Tracer(fx.Tracer):
    traced_func_name = "step"

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.fields = cell.State._fields

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Packed) or super().is_leaf_module(m, module_qualified_name)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        if obj.node.op == "placeholder" and obj.node.name == "state":  # h, c = state
            return iter([getattr(obj, field) for field in self.fields])
        return super().iter(obj)


def hoisted(cell: Cell) -> Hoisted | None:
    """The cell's step without its input products, or None if the step cannot be traced.

    Traced once for each cell, and again when one of its attributes was assigned anew (`cell.train()` does).
    """
    settings = [v for module in cell.modules() for name, v in vars(module).items() if not name.startswith("_")]
    known = _TRACED.get(cell)
    if known is None or len(known[0]) != len(settings) or not all(map(operator.is_, known[0], settings)):
        known = _TRACED[cell] = (settings, _trace(cell))
    return known[1]


_TRACED: WeakKeyDictionary[Cell, tuple[list[Any], Hoisted | None]] = WeakKeyDictionary()


def _trace(cell: Cell) -> Hoisted | None:
    try:
        graph = _Tracer(cell).trace(cell)
    except Exception:  # control flow on a proxy, a foreign function: whatever it is, the step as written says it better
        return None
    _share_fields(graph)
    runs = _take_out_products(cell, graph)
    reads_x = any(node.users for node in graph.find_nodes(op="placeholder", target="x"))
    graph.lint()
    # The generated function takes its module as `self`: called with the cell, it sees the parameters as they now are.
    return Hoisted(type(fx.GraphModule(cell, graph)).forward, tuple(runs), reads_x)


def _share_fields(graph: fx.Graph) -> None:
    """Read each field of the state once, so that maps of the same `h` are seen to be."""
    seen: dict[str, fx.Node] = {}
    for node in graph.find_nodes(op="call_function", target=getattr):
        first = seen.setdefault(node.args[1], node)
        if node.args[0] is first.args[0] and node is not first:
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def _take_out_products(cell: Cell, graph: fx.Graph) -> list[Run]:
    """Replace the maps of the step's own `x` by runs; rewrites the graph."""
    placeholders = graph.find_nodes(op="placeholder")
    x, after = placeholders[0], placeholders[-1]
    maps = [
        node
        for node in graph.find_nodes(op="call_module")
        if isinstance(cell.get_submodule(str(node.target)), Packed) and node.args[1] in (x, None)
    ]
    order = {node: position for position, node in enumerate(graph.nodes)}
    maps.sort(key=lambda node: (str(node.target), node.args[0], order[node]))
    runs = []
    for _, nodes in groupby(
        enumerate(maps), key=lambda item: (item[1].target, item[1].args[1:], item[1].args[0] - item[0])
    ):
        run_maps = [node for _, node in nodes]
        block, (first, own_x, h) = str(run_maps[0].target), run_maps[0].args
        run = Run(block, first, first + len(run_maps), own_x is x, h is not None)
        runs.append(run)
        names = [
            f"operand_{len(runs)}_{kind}" for kind, reads in (("p", run.reads_input), ("u", run.reads_hidden)) if reads
        ]
        operands = []
        for name in names:
            with graph.inserting_after(after):
                after = graph.placeholder(name)
            operands.append(after)
        earliest = min(run_maps, key=order.__getitem__)
        with graph.inserting_before(earliest):
            product = operands[0]
            if h is not None:
                product = (
                    graph.call_function(torch.addmm, (operands[0], h, operands[1]))
                    if run.reads_input
                    else graph.call_function(torch.mm, (h, operands[0]))
                )
            parts = [product]
            if len(run_maps) > 1:
                chunks = graph.call_method("chunk", (product, len(run_maps), 1))
                parts = [graph.call_function(operator.getitem, (chunks, k)) for k in range(len(run_maps))]
        for node, part in zip(run_maps, parts, strict=True):
            node.replace_all_uses_with(part)
            graph.erase_node(node)
    return runs
