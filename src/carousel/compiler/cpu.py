"""The CPU backend: a recurrence's time loop as compiled functions over tensors in memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from carousel.compiler import kernel, objects
from carousel.compiler.blocks import write_pack
from carousel.compiler.derive import Backward, derive
from carousel.compiler.graph import Node
from carousel.compiler.plan import ALL, BEFORE, CARRY, STEP, Buffer, plan
from carousel.compiler.trace import Operands, Recurrence

WORD = ctypes.c_int64


@dataclass(frozen=True)
class Extent:
    """Where the rows of a packed batch are: the sequences alive at each step."""

    sizes: tuple[int, ...]

    @cached_property
    def rows(self) -> int:
        return sum(self.sizes)

    @cached_property
    def words(self) -> Any:
        return (WORD * len(self.sizes))(*self.sizes)

    @property
    def batch(self) -> int:
        return self.sizes[0]

    @property
    def uniform(self) -> bool:
        return self.sizes[-1] == self.sizes[0]

    @cached_property
    def lengths(self) -> np.ndarray[Any, Any]:
        """(B,) the steps of each sequence."""
        falling = -np.asarray(self.sizes)
        return np.searchsorted(falling, -np.arange(self.batch), side="left")

    @cached_property
    def last_rows(self) -> Tensor:
        """(B,) the row of each sequence's last step."""
        bases = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        return torch.from_numpy(bases[self.lengths - 1] + np.arange(self.batch))

    @cached_property
    def rows_before(self) -> Tensor:
        """For each row from the second step on, the row of the same sequence one step before."""
        steps = np.asarray(self.sizes)
        return torch.from_numpy(np.arange(self.batch, self.rows) - np.repeat(steps[:-1], steps[1:]))

    def ends(self, field: Tensor) -> Tensor:
        """(B, w) of (N, w): the rows of the last steps."""
        if self.uniform:
            return field[self.rows - self.batch :].clone()
        return field.index_select(0, self.last_rows)

    def shares(self, threads: int) -> list[tuple[int, int]]:
        """The sequences in that many parts with about equally many steps."""
        steps = list(accumulate(self.lengths.tolist(), initial=0))
        bounds = np.searchsorted(steps, [steps[-1] * part / threads for part in range(threads + 1)])
        return [(int(a), int(b)) for a, b in pairwise(bounds) if b > a]


class Loop:
    """A compiled time loop."""

    def __init__(self, emitted: kernel.Kernel) -> None:
        self.entries = emitted.entries
        self.panels = [entry for entry in emitted.entries if entry[0] == "panel"]
        self._library = objects.library(emitted.ir)
        self._call = self._library.function(emitted.name, ctypes.c_void_p, WORD, ctypes.c_void_p, WORD, WORD, WORD)

    def __call__(self, word: Callable[[Any, int], int], extent: Extent, threads: int) -> None:
        """Run it; `word(entry, thread)` gives each word of the table."""
        shares = extent.shares(threads) if threads > 1 else [(0, extent.batch)]

        def run(thread: int) -> None:
            table = (WORD * len(self.entries))(*[word(entry, thread) for entry in self.entries])
            first, last = shares[thread]
            self._call(table, len(extent.sizes), extent.words, extent.batch, first, last)

        if len(shares) == 1:
            run(0)
        else:
            _in_parallel(run, len(shares))


def _in_parallel(run: Callable[[int], None], count: int) -> None:
    from carousel.compiler.threads import pool

    waiting = [pool().submit(run, thread) for thread in range(1, count)]
    run(0)
    for one in waiting:
        one.result()


_PACK: list[Any] = []


def _pack() -> Any:
    if not _PACK:
        from llvmlite import ir

        module = ir.Module("pack")
        write_pack(module, objects.processor().target.lanes)
        library = objects.library(str(module))
        arguments = [ctypes.c_void_p, *[WORD] * 6, ctypes.c_void_p]
        _PACK.append((library, library.function("pack", *arguments)))
    return _PACK[0][1]


def packed(weights: Sequence[Tensor], entry: Any, lanes: int) -> Tensor:
    """The panel that an entry of the table asks for."""
    _, parts, inner, width, vectors = entry
    block = vectors * lanes
    blocks = -(-width // block)
    panel = torch.empty(blocks * inner * len(parts) * block)
    step = len(parts) * block
    for place, (tensor, start, transposed) in enumerate(parts):
        weight = weights[tensor]
        by_row, by_column = weight.stride()
        address = weight.data_ptr() + 4 * start * by_row
        by_width, by_inner = (by_column, by_row) if transposed else (by_row, by_column)
        _pack()(address, by_width, by_inner, width, inner, vectors, step, panel.data_ptr() + 4 * place * block)
    return panel


@dataclass(frozen=True)
class WeightRun:
    """Neighbouring rows of a weight whose gradient is one product."""

    tensor: int
    start: int
    rows: int
    operand: Node
    kind: str  # "input_gradient" or "product_gradient": where the left factor is
    source: int
    column: int


class Program:
    """A recurrence compiled for some widths."""

    def __init__(self, recurrence: Recurrence) -> None:
        self.recurrence = recurrence
        self.widths = [node.width for node in recurrence.state]
        self.target = objects.processor().target
        self.lanes = self.target.lanes
        self.leaves = {
            node: Buffer(node.op, node.attr, STEP if node.op == "input" else ALL, node.width)
            for node in recurrence.graph.used(recurrence.state)
            if node.op in ("input", "vector")
        }

    # The loops, each compiled when it is first needed.

    @cached_property
    def backward_step(self) -> Backward:
        return derive(self.recurrence.graph, self.recurrence.state)

    @cached_property
    def inference(self) -> Loop:
        """Forward, keeping the outputs alone."""
        reads, writes = dict(self.leaves), []
        fields = [Buffer("field", (f,), STEP if f == 0 else CARRY, w) for f, w in enumerate(self.widths)]
        for f, node in enumerate(self.recurrence.state):
            writes.append((node, fields[f]))
        for node in self.state_leaves:
            before = Buffer("before", (0,), BEFORE, node.width)
            reads[node] = before if node.attr == 0 else fields[node.attr]
        return self.compile("inference", self.recurrence.graph, reads, writes)

    @cached_property
    def training(self) -> Loop:
        """Forward, keeping what the backward loop reads."""
        reads = dict(self.leaves)
        for node in self.state_leaves:
            reads[node] = Buffer("before", (node.attr,), BEFORE, node.width)
        writes = [(node, Buffer("field", (f,), STEP, node.width)) for f, node in enumerate(self.recurrence.state)]
        writes += [(node, Buffer("kept", (node.index,), STEP, node.width)) for node in self.backward_step.kept]
        return self.compile("training", self.recurrence.graph, reads, writes)

    @cached_property
    def backward(self) -> Loop:
        back, forward = self.backward_step, self.recurrence
        reads: dict[Node, Buffer] = {}
        for node in back.graph.used(back.results):
            if node.op == "vector":
                reads[node] = Buffer("vector", node.attr, ALL, node.width)
            elif node.op == "adjoint":
                reads[node] = Buffer("adjoint", (node.attr,), CARRY, node.width)
            elif node.op == "grad":
                reads[node] = Buffer("grad", (0,), STEP, node.width)
            elif node.op == "saved":
                reads[node] = self.saved(forward.graph.nodes[node.attr])
        writes = [(node, Buffer("adjoint", (f,), CARRY, self.widths[f])) for f, node in enumerate(back.state)]
        writes += [
            (node, Buffer("input_gradient", key, STEP, self.input_widths[key])) for key, node in back.inputs.items()
        ]
        writes += self.product_gradients
        sums = [(node, Buffer("column_sum", key, ALL, max(node.width, 1))) for key, node in back.vectors.items()]
        return self.compile("backward", back.graph, reads, writes, sums)

    def compile(self, name: str, graph: Any, reads: Any, writes: Any, sums: Any = None) -> Loop:
        planned = plan(graph, reads, writes, sums)
        return Loop(kernel.emit(name, planned, self.target, backward=name == "backward"))

    @property
    def state_leaves(self) -> list[Node]:
        return [node for node in self.recurrence.graph.used(self.recurrence.state) if node.op == "state"]

    @cached_property
    def input_widths(self) -> dict[tuple[int, int], int]:
        return {node.attr: node.width for node in self.leaves if node.op == "input"}

    def saved(self, node: Node) -> Buffer:
        """Where a value of the forward loop is."""
        if node in self.leaves:
            return self.leaves[node]
        if node.op == "state":
            return Buffer("before", (node.attr,), BEFORE, node.width)
        if node in self.recurrence.state:
            return Buffer("field", (self.recurrence.state.index(node),), STEP, node.width)
        return Buffer("kept", (node.index,), STEP, node.width)

    @cached_property
    def _runs(self) -> tuple[list[WeightRun], list[tuple[Node, Buffer]], list[int]]:
        """The products after the loop, what they need stored, and the columns of each buffer for that."""
        by_node = {node: key for key, node in reversed(self.backward_step.inputs.items())}
        runs: list[WeightRun] = []
        stores: list[tuple[Node, Buffer]] = []
        columns: list[int] = []
        ordered = sorted(self.backward_step.weights, key=lambda g: (g.tensor, g.operand.index, g.start))
        for gradient in ordered:
            shared = by_node.get(gradient.adjoint)
            before = runs[-1] if runs else None
            follows = before is not None and (before.tensor, before.operand, before.start + before.rows) == (
                gradient.tensor,
                gradient.operand,
                gradient.start,
            )
            if shared is not None:
                kind, source, column = "input_gradient", *shared
            else:
                kind = "product_gradient"
                if follows and before is not None and before.kind == kind:
                    source, column = before.source, before.column + before.rows
                else:
                    source, column = len(columns), 0
                    columns.append(0)
                columns[source] += gradient.rows
                stores.append((gradient.adjoint, Buffer(kind, (source, column), STEP, gradient.rows)))
            place = (kind, source, column)
            if follows and before is not None and (before.kind, before.source, before.column + before.rows) == place:
                runs[-1] = WeightRun(
                    before.tensor, before.start, before.rows + gradient.rows, before.operand, *place[:2], before.column
                )
            else:
                runs.append(WeightRun(gradient.tensor, gradient.start, gradient.rows, gradient.operand, *place))
        return runs, stores, columns

    @property
    def weight_runs(self) -> list[WeightRun]:
        return self._runs[0]

    @property
    def product_gradients(self) -> list[tuple[Node, Buffer]]:
        return self._runs[1]

    # Running them.

    def run_inference(self, operands: Operands, state: Sequence[Tensor], extent: Extent, threads: int) -> list[Tensor]:
        """Outputs (N, w) and the final state."""
        outputs = torch.empty(extent.rows, self.widths[0])
        carried = [torch.stack([field, field]) for field in state[1:]]
        memory = {("field", 0): outputs, ("before", 0): outputs}
        memory |= {("field", f): field for f, field in enumerate(carried, start=1)}
        self.call(self.inference, memory, operands, state, extent, threads)
        lengths = torch.from_numpy(extent.lengths)
        ends = [extent.ends(outputs)]
        for field in carried:
            if extent.uniform:
                ends.append(field[(len(extent.sizes) - 1) & 1].clone())
            else:
                ends.append(field[(lengths - 1) & 1, torch.arange(extent.batch)])
        return [outputs, *ends]

    def run_training(
        self, operands: Operands, state: Sequence[Tensor], extent: Extent, threads: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The fields of all steps, (N, w) each, and what was kept."""
        fields = [torch.empty(extent.rows, width) for width in self.widths]
        kept = [torch.empty(extent.rows, node.width) for node in self.backward_step.kept]
        memory = {("field", f): field for f, field in enumerate(fields)}
        memory |= {("before", f): field for f, field in enumerate(fields)}
        memory |= {("kept", node.index): k for node, k in zip(self.backward_step.kept, kept, strict=True)}
        self.call(self.training, memory, operands, state, extent, threads)
        return fields, kept

    def run_backward(
        self,
        operands: Operands,
        state: Sequence[Tensor],
        fields: Sequence[Tensor],
        kept: Sequence[Tensor],
        grad: Tensor | None,
        grad_ends: Sequence[Tensor | None],
        extent: Extent,
        threads: int,
        wanted: Callable[[str, int], bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None], list[Tensor]]:
        """Gradients of inputs, weights, vectors and initial state."""
        back = self.backward_step
        covered = [0] * len(operands.inputs)
        for (tensor, _), width in self.input_widths.items():
            covered[tensor] += width if (tensor, _) in back.inputs else 0
        gradients = [
            (torch.empty if covered[k] == given.shape[1] else torch.zeros)(given.shape)
            for k, given in enumerate(operands.inputs)
        ]
        products = [torch.empty(extent.rows, columns) for columns in self._runs[2]]
        adjoints = [
            torch.zeros(2, extent.batch, width) if end is None else torch.stack([end, end])
            for end, width in zip(grad_ends, self.widths, strict=True)
        ]
        memory: dict[Any, Tensor] = {("field", f): field for f, field in enumerate(fields)}
        memory |= {("before", f): field for f, field in enumerate(fields)}
        memory |= {("kept", node.index): k for node, k in zip(back.kept, kept, strict=True)}
        memory |= {("adjoint", f): adjoint for f, adjoint in enumerate(adjoints)}
        memory |= {("input_gradient", k): gradient for k, gradient in enumerate(gradients)}
        memory |= {("product_gradient", k): product for k, product in enumerate(products)}
        memory[("grad", 0)] = torch.zeros(extent.rows, self.widths[0]) if grad is None else grad.contiguous()
        sums = self.call(self.backward, memory, operands, state, extent, threads)
        sources = {"input_gradient": gradients, "product_gradient": products}
        weights: list[Tensor | None] = [None] * len(operands.weights)
        for k, weight in enumerate(operands.weights):
            if wanted("weight", k):
                weights[k] = self.weight_gradient(k, weight, sources, state, fields, memory, extent)
        vectors: list[Tensor | None] = [None] * len(operands.vectors)
        for k, vector in enumerate(operands.vectors):
            if wanted("vector", k):
                vectors[k] = self.vector_gradient(k, vector, sums)
        return list(gradients), weights, vectors, [adjoint[0] for adjoint in adjoints]

    def weight_gradient(
        self,
        k: int,
        weight: Tensor,
        sources: dict[str, list[Tensor]],
        state: Sequence[Tensor],
        fields: Sequence[Tensor],
        memory: dict[Any, Tensor],
        extent: Extent,
    ) -> Tensor:
        gradient = torch.empty(weight.shape)
        done: set[tuple[int, int]] = set()
        runs = [run for run in self.weight_runs if run.tensor == k]
        if sum(run.rows for run in runs) != weight.shape[0] or len({run.start for run in runs}) != len(runs):
            gradient.zero_()
            done = {(run.start, run.rows) for run in runs}
        for run in runs:
            into = gradient[run.start : run.start + run.rows]
            adjoint = sources[run.kind][run.source][:, run.column : run.column + run.rows]
            add = (run.start, run.rows) in done
            for left, right in self.factors(adjoint, run.operand, state, fields, memory, extent):
                if add:
                    into.addmm_(left.t(), right)
                else:
                    torch.mm(left.t(), right, out=into)
                add = True
        return gradient

    def factors(
        self,
        adjoint: Tensor,
        operand: Node,
        state: Sequence[Tensor],
        fields: Sequence[Tensor],
        memory: dict[Any, Tensor],
        extent: Extent,
    ) -> list[tuple[Tensor, Tensor]]:
        """Pairs (N', rows), (N', K) of which the products add up to a weight's gradient."""
        if operand.op != "state":
            buffer = self.saved(operand)
            return [(adjoint, memory[buffer.kind, buffer.key[0]])]
        B, N = extent.batch, extent.rows
        field = fields[operand.attr]
        pairs = []
        if N > B:
            before = field[: N - B] if extent.uniform else field.index_select(0, extent.rows_before)
            pairs.append((adjoint[B:], before))
        pairs.append((adjoint[:B], state[operand.attr]))
        return pairs

    def vector_gradient(self, k: int, vector: Tensor, sums: dict[Any, Tensor]) -> Tensor:
        gradient = torch.zeros(vector.numel())
        for (tensor, start), node in self.backward_step.vectors.items():
            if tensor == k:
                total = sums[("column_total", (tensor, start))].sum(0)
                width = self.vector_widths[tensor, start]
                gradient[start : start + width] += total.sum() if width < max(node.width, 1) else total
        return gradient.view(vector.shape)

    @cached_property
    def vector_widths(self) -> dict[tuple[int, int], int]:
        return {node.attr: node.width for node in self.leaves if node.op == "vector"}

    def call(
        self,
        loop: Loop,
        memory: dict[Any, Tensor],
        operands: Operands,
        state: Sequence[Tensor],
        extent: Extent,
        threads: int,
    ) -> dict[Any, Tensor]:
        """Run a loop; returns its sums over time and sequences, one for each thread."""
        panels = {entry: packed(operands.weights, entry, self.lanes) for entry in loop.panels}
        own: dict[Any, Tensor] = {}

        def word(entry: Any, thread: int) -> int:
            kind = entry[0]
            if kind == "width":
                return int(entry[1])
            if kind == "rows":
                return extent.rows
            if kind == "panel":
                return panels[entry].data_ptr()
            if kind == "stride":
                tensor = memory[entry[1:]] if entry[1:] in memory else operands.inputs[entry[2]]
                return tensor.stride(0)
            buffer: Buffer = entry[1]
            if kind == "initial":
                return state[buffer.key[0]].data_ptr()
            if kind == "lanes":
                return scratch(("lanes", *buffer.key), (extent.batch, self.lanes)).data_ptr()
            if buffer.kind == "scratch":
                return scratch(("scratch", *buffer.key), (extent.batch, buffer.width)).data_ptr()
            if buffer.kind in ("column_sum", "column_total"):
                return sums(buffer)[thread].data_ptr()
            if buffer.kind == "vector":
                return operands.vectors[buffer.key[0]].data_ptr() + 4 * buffer.key[1]
            if buffer.kind == "input":
                return operands.inputs[buffer.key[0]].data_ptr() + 4 * buffer.key[1]
            column = buffer.key[1] if len(buffer.key) > 1 else 0
            return memory[buffer.kind, buffer.key[0]].data_ptr() + 4 * column

        def scratch(key: Any, shape: tuple[int, int]) -> Tensor:
            if key not in own:
                own[key] = torch.empty(shape)
            return own[key]

        def sums(buffer: Buffer) -> Tensor:
            key = (buffer.kind, buffer.key)
            if key not in own:
                own[key] = torch.zeros(threads, max(buffer.width, 1))
            return own[key]

        loop(word, extent, threads)
        return own
