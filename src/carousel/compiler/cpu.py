"""The CPU backend: a recurrence's time loops as compiled functions over tensors in memory.

A `Program` has three loops, each made when it is first needed: forward for inference, forward for training, which also
keeps what the third, backward, reads. What is left after the loops, the gradients of the weights, is one product each.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from carousel.compiler import kernel, matrix, objects, threads
from carousel.compiler.derive import Backward, derive
from carousel.compiler.extent import Extent
from carousel.compiler.graph import Graph, Node
from carousel.compiler.plan import ALL, BEFORE, CARRY, STEP, Buffer, plan
from carousel.compiler.trace import Operands, Recurrence

WORD = ctypes.c_int64
Memory = dict[tuple[str, int], Tensor]  # what a loop reads and writes, by kind and number


class Loop:
    """A compiled time loop."""

    def __init__(self, emitted: kernel.Kernel) -> None:
        self.panels = [entry for entry in emitted.entries if entry[0] == "panel"]
        self.scratch = [entry for entry in emitted.entries if _is_scratch(entry)]
        self.sums = [entry[1] for entry in emitted.entries if _kind(entry) in ("column_sum", "column_total")]
        self._words = [_resolver(entry) for entry in emitted.entries]
        library = objects.library(emitted.ir)
        self._call = library.function(emitted.name, ctypes.c_void_p)

    def __call__(self, memory: Memory, weights: Sequence[Tensor], extent: Extent, parts: int) -> None:
        """Run it on what is in memory, the batch shared by so many threads."""
        lanes = objects.processor().target.lanes
        here: dict[Any, Any] = {("rows",): extent.rows, ("steps",): extent.steps, ("batch",): extent.batch}
        here["sizes",] = ctypes.addressof(extent.words)
        here |= {entry: packed(weights, entry, lanes) for entry in self.panels}
        for entry in self.scratch:
            buffer = entry[1]
            here[entry] = torch.empty(extent.batch, lanes if entry[0] == "lanes" else buffer.width)
        here["shares",] = shares = extent.shares(parts)
        for buffer in self.sums:
            memory[buffer.kind, buffer.key] = torch.zeros(parts, buffer.width)
        size = len(self._words)
        tables = [(WORD * size)(*[w(memory, here, part) for w in self._words]) for part in range(len(shares))]
        threads.share(self._call, tables, (id(self), extent.batch, extent.steps))


def _kind(entry: kernel.Entry) -> str:
    return entry[1].kind if entry[0] == "address" else ""


def _is_scratch(entry: kernel.Entry) -> bool:
    return entry[0] == "lanes" or _kind(entry) == "scratch"


def _resolver(entry: kernel.Entry) -> Callable[[Memory, dict[Any, Any], int], int]:
    """The function that finds a word of the table: an address, the length of rows, a width."""
    if entry[0] == "width":
        width = int(entry[1])
        return lambda memory, here, part: width
    if entry[0] in ("rows", "steps", "batch", "sizes"):
        return lambda memory, here, part: here[entry]
    if entry[0] in ("first", "last"):
        end = ("first", "last").index(entry[0])
        return lambda memory, here, part: here["shares",][part][end]
    if entry[0] == "panel" or _is_scratch(entry):
        return lambda memory, here, part: here[entry].data_ptr()
    if entry[0] == "stride":
        place = entry[1:]
        return lambda memory, here, part: memory[place].stride(0)
    buffer: Buffer = entry[1]
    if entry[0] == "initial":
        key = ("initial", buffer.key[0])
        return lambda memory, here, part: memory[key].data_ptr()
    if buffer.kind in ("column_sum", "column_total"):
        whole: Any = (buffer.kind, buffer.key)
        return lambda memory, here, part: memory[whole][part].data_ptr()
    key, column = (buffer.kind, buffer.key[0]), 4 * (buffer.key[1] if len(buffer.key) > 1 else 0)
    return lambda memory, here, part: memory[key].data_ptr() + column


def packed(weights: Sequence[Tensor], entry: kernel.Entry, lanes: int) -> Tensor:
    """The weights that an entry of the table asks for, as products read them."""
    _, members, inner, width, vectors = entry
    pack, _ = matrix.functions()
    block = vectors * lanes
    step = len(members) * block
    panel = torch.empty(-(-width // block) * inner * step)
    for place, (tensor, start, transposed) in enumerate(members):
        weight = weights[tensor]
        by_row, by_column = weight.stride()
        strides = (by_column, by_row) if transposed else (by_row, by_column)
        address = weight.data_ptr() + 4 * start * by_row
        pack(address, *strides, width, inner, vectors, step, panel.data_ptr() + 4 * place * block)
    return panel


@dataclass(frozen=True)
class WeightRun:
    """Neighbouring rows of a weight whose gradient is one product."""

    tensor: int
    start: int
    rows: int
    operand: Node
    kind: str  # "input_gradient" or "product_gradient": where the adjoint of the product is
    source: int
    column: int

    def followed_by(self, other: WeightRun) -> bool:
        place = (self.tensor, self.start + self.rows, self.operand, self.kind, self.source, self.column + self.rows)
        return place == (other.tensor, other.start, other.operand, other.kind, other.source, other.column)


class Program:
    """A recurrence compiled for its widths."""

    def __init__(self, recurrence: Recurrence) -> None:
        self.recurrence = recurrence
        self.widths = [node.width for node in recurrence.state]
        self.target = objects.processor().target
        nodes = recurrence.graph.used(recurrence.state)
        self.states = [node for node in nodes if node.op == "state"]
        self.leaves = {
            node: Buffer(node.op, node.attr, STEP if node.op == "input" else ALL, node.width)
            for node in nodes
            if node.op in ("input", "vector")
        }

    # The loops.

    @cached_property
    def derivative(self) -> Backward:
        return derive(self.recurrence.graph, self.recurrence.state)

    @cached_property
    def inference(self) -> Loop:
        """Forward, keeping the outputs alone: other fields of the state take turns in two places."""
        fields = [Buffer("field", (f,), STEP if f == 0 else CARRY, width) for f, width in enumerate(self.widths)]
        reads = dict(self.leaves)
        for node in self.states:
            reads[node] = fields[node.attr] if node.attr else Buffer("field_before", (0,), BEFORE, node.width)
        writes = list(zip(self.recurrence.state, fields, strict=True))
        return self._compile("inference", self.recurrence.graph, reads, writes)

    @cached_property
    def training(self) -> Loop:
        """Forward, keeping what the backward loop reads."""
        reads = dict(self.leaves)
        for node in self.states:
            reads[node] = Buffer("field_before", (node.attr,), BEFORE, node.width)
        writes = [(node, Buffer("field", (f,), STEP, node.width)) for f, node in enumerate(self.recurrence.state)]
        writes += [(node, Buffer("kept", (node.index,), STEP, node.width)) for node in self.derivative.kept]
        return self._compile("training", self.recurrence.graph, reads, writes)

    @cached_property
    def backward(self) -> Loop:
        back = self.derivative
        reads: dict[Node, Buffer] = {}
        for node in back.graph.used(back.results):
            if node.op == "vector":
                reads[node] = Buffer("vector", node.attr, ALL, node.width)
            elif node.op == "adjoint":
                reads[node] = Buffer("adjoint", (node.attr,), CARRY, node.width)
            elif node.op == "grad":
                reads[node] = Buffer("grad", (0,), STEP, node.width)
            elif node.op == "saved":
                reads[node] = self._saved(self.recurrence.graph.nodes[node.attr])
        writes = [(node, Buffer("adjoint", (f,), CARRY, self.widths[f])) for f, node in enumerate(back.state)]
        for key, node in back.inputs.items():
            writes.append((node, Buffer("input_gradient", key, STEP, self.leaf_widths["input", *key])))
        writes += self._after_loop[1]
        sums = [(node, Buffer("column_sum", key, ALL, max(node.width, 1))) for key, node in back.vectors.items()]
        return self._compile("backward", back.graph, reads, writes, sums)

    def _compile(
        self,
        name: str,
        graph: Graph,
        reads: dict[Node, Buffer],
        writes: list[tuple[Node, Buffer]],
        sums: list[tuple[Node, Buffer]] | None = None,
    ) -> Loop:
        planned = plan(graph, reads, writes, sums)
        return Loop(kernel.emit(name, planned, self.target, backward=name == "backward"))

    @cached_property
    def input_columns(self) -> int:
        """How many numbers each step of each sequence reads."""
        return sum(node.width for node in self.leaves if node.op == "input")

    @cached_property
    def leaf_widths(self) -> dict[tuple[str, int, int], int]:
        return {(node.op, *node.attr): node.width for node in self.leaves}

    def _saved(self, node: Node) -> Buffer:
        """Where a value of the forward loop is."""
        if node in self.leaves:
            return self.leaves[node]
        if node.op == "state":
            return Buffer("field_before", (node.attr,), BEFORE, node.width)
        if node in self.recurrence.state:
            return Buffer("field", (self.recurrence.state.index(node),), STEP, node.width)
        return Buffer("kept", (node.index,), STEP, node.width)

    @cached_property
    def _after_loop(self) -> tuple[list[WeightRun], list[tuple[Node, Buffer]], list[int]]:
        """The products that give weights' gradients, what the loop must store for them, columns of each such buffer.

        The adjoint of a product often is the gradient of an input as well; what is stored anyway is not stored twice.
        """
        stored = {node: key for key, node in reversed(self.derivative.inputs.items())}
        runs: list[WeightRun] = []
        stores: list[tuple[Node, Buffer]] = []
        columns: list[int] = []
        for gradient in sorted(self.derivative.weights, key=lambda g: (g.tensor, g.operand.index, g.start)):
            of = (gradient.tensor, gradient.start, gradient.rows, gradient.operand)
            if gradient.adjoint in stored:
                run = WeightRun(*of, "input_gradient", *stored[gradient.adjoint])
            else:
                run = WeightRun(*of, "product_gradient", len(columns) - 1, columns[-1] if columns else 0)
                if not (runs and runs[-1].followed_by(run)):
                    run = WeightRun(*of, "product_gradient", len(columns), 0)
                    columns.append(0)
                columns[-1] += run.rows
                stores.append((gradient.adjoint, Buffer(run.kind, (run.source, run.column), STEP, run.rows)))
            if runs and runs[-1].followed_by(run):
                last = runs.pop()
                of = (last.tensor, last.start, last.rows + run.rows, last.operand)
                run = WeightRun(*of, last.kind, last.source, last.column)
            runs.append(run)
        return runs, stores, columns

    # Running them.

    def run_inference(
        self, operands: Operands, state: Sequence[Tensor], extent: Extent, parts: int, into: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Outputs (N, w), and the state after each sequence's own last step."""
        outputs = torch.empty(extent.rows, self.widths[0]) if into is None else into
        halves = [torch.stack([field, field]) for field in state[1:]]
        memory = _given(operands, state)
        memory["field", 0] = memory["field_before", 0] = outputs
        memory |= {("field", f): field for f, field in enumerate(halves, start=1)}
        self.inference(memory, operands.weights, extent, parts)
        return outputs, [extent.ends(outputs), *map(extent.carried, halves)]

    def run_training(
        self, operands: Operands, state: Sequence[Tensor], extent: Extent, parts: int, *, apart: bool = False
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The fields of all steps, (N, w) each, and what was kept, in one piece of memory or `apart`."""
        fields = [torch.empty(extent.rows, width) for width in self.widths]
        shapes = [(extent.rows, node.width) for node in self.derivative.kept]
        kept = [torch.empty(shape) for shape in shapes] if apart else _in_one(shapes)
        self.training(self._forward_memory(operands, state, fields, kept), operands.weights, extent, parts)
        return fields, kept

    def run_backward(
        self,
        operands: Operands,
        state: Sequence[Tensor],
        fields: Sequence[Tensor],
        kept: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        extent: Extent,
        parts: int,
        wanted: Callable[[str, int], bool] = lambda kind, k: True,
    ) -> tuple[list[Tensor], list[Tensor | None], list[Tensor | None], list[Tensor]]:
        """Gradients of inputs, weights, vectors and initial state.

        Args:
            fields, kept: as `run_training` gave them.
            grads: with respect to the outputs (N, w) and the fields of the final state, None for zero.
            wanted: whether the k-th "weight" or "vector" needs its gradient.
        """
        memory = self._forward_memory(operands, state, fields, kept)
        gradients = [self._new_gradient(k, given) for k, given in enumerate(operands.inputs)]
        adjoints = [
            torch.zeros(2, extent.batch, width) if end is None else torch.stack([end, end])
            for end, width in zip(grads[1:], self.widths, strict=True)
        ]
        memory |= {("input_gradient", k): gradient for k, gradient in enumerate(gradients)}
        memory |= {("adjoint", f): adjoint for f, adjoint in enumerate(adjoints)}
        for k, columns in enumerate(self._after_loop[2]):
            memory["product_gradient", k] = torch.empty(extent.rows, columns)
        grad = grads[0]
        memory["grad", 0] = torch.zeros(extent.rows, self.widths[0]) if grad is None else grad.contiguous()
        self.backward(memory, operands.weights, extent, parts)
        weights = [
            self._weight_gradient(k, weight, memory, extent, parts) if wanted("weight", k) else None
            for k, weight in enumerate(operands.weights)
        ]
        vectors = [
            self._vector_gradient(k, vector, memory) if wanted("vector", k) else None
            for k, vector in enumerate(operands.vectors)
        ]
        return gradients, weights, vectors, [adjoint[0] for adjoint in adjoints]

    def _forward_memory(
        self, operands: Operands, state: Sequence[Tensor], fields: Sequence[Tensor], kept: Sequence[Tensor]
    ) -> Memory:
        memory = _given(operands, state)
        for f, field in enumerate(fields):
            memory["field", f] = memory["field_before", f] = field
        return memory | {("kept", node.index): k for node, k in zip(self.derivative.kept, kept, strict=True)}

    def _new_gradient(self, k: int, given: Tensor) -> Tensor:
        """Room for an input's gradient; zeros if the loop does not write all of it."""
        written = sum(self.leaf_widths["input", *key] for key in self.derivative.inputs if key[0] == k)
        return torch.empty(given.shape) if written == given.shape[1] else torch.zeros(given.shape)

    def _weight_gradient(self, k: int, weight: Tensor, memory: Memory, extent: Extent, parts: int) -> Tensor:
        runs = [run for run in self._after_loop[0] if run.tensor == k]
        gradient = torch.empty(weight.shape)
        once = sum(run.rows for run in runs) == len(weight) and len({run.start for run in runs}) == len(runs)
        if not once:
            gradient.zero_()
        for run in runs:
            add = not once
            into = gradient[run.start : run.start + run.rows]
            adjoint = memory[run.kind, run.source][:, run.column : run.column + run.rows]
            for left, right in self._factors(adjoint, run.operand, memory, extent):
                matrix.product(left.t(), right, into=into, add=add, parts=parts)
                add = True
        return gradient

    def _factors(self, adjoint: Tensor, operand: Node, memory: Memory, extent: Extent) -> list[tuple[Tensor, Tensor]]:
        """Pairs (N', rows), (N', K), the products of which add up to a weight's gradient."""
        if operand.op != "state":
            buffer = self._saved(operand)
            return [(adjoint, memory[buffer.kind, buffer.key[0]])]
        B = extent.batch
        first = (adjoint[:B], memory["initial", operand.attr])
        later = (adjoint[B:], extent.before(memory["field", operand.attr]))
        return [later, first] if extent.steps > 1 else [first]

    def _vector_gradient(self, k: int, vector: Tensor, memory: Memory) -> Tensor:
        gradient = torch.zeros(vector.numel())
        for key, node in self.derivative.vectors.items():
            if key[0] == k:
                sums: Any = ("column_total", key)
                total, width = memory[sums].sum(0), self.leaf_widths["vector", *key]
                gradient[key[1] : key[1] + width] += total.sum() if width < node.width else total
        return gradient.view(vector.shape)


def _in_one(shapes: list[tuple[int, int]]) -> list[Tensor]:
    """Matrices in one allocation: many that are freed together, malloc gives back, to be faulted in again."""
    sizes = [rows * width for rows, width in shapes]
    pieces = torch.empty(sum(sizes)).split_with_sizes(sizes)
    return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]


def _given(operands: Operands, state: Sequence[Tensor]) -> Memory:
    memory: Memory = {("input", k): tensor for k, tensor in enumerate(operands.inputs)}
    memory |= {("vector", k): tensor for k, tensor in enumerate(operands.vectors)}
    return memory | {("initial", f): field for f, field in enumerate(state)}
