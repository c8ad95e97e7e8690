"""The CPU backend: a recurrence over tensors in memory.

A `Program` has three loops, each made when it is first needed: forward for inference, forward for training, which also
keeps what the third, backward, reads. With the products around it, each is a script (see `products`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from carousel.compiler import kernel, objects, products
from carousel.compiler.derive import Backward, derive
from carousel.compiler.extent import PACKED, Extent, Padded
from carousel.compiler.graph import Graph, Node
from carousel.compiler.loops import Loop
from carousel.compiler.operands import Form, Given, Operands, Recurrence
from carousel.compiler.plan import ALL, BEFORE, CARRY, STEP, Buffer, plan
from carousel.compiler.products import WeightRun, Written
from carousel.compiler.script import Run

Memory = dict[Any, Tensor]  # what a script reads and writes, by the names of its bases


class Program:
    """A recurrence compiled for its widths; `narrow`: with products of bfloat16 numbers."""

    def __init__(self, recurrence: Recurrence, *, narrow: bool = False) -> None:
        self.recurrence = recurrence
        self._scripts: dict[Any, Written] = {}
        self._names: dict[Form, list[Any]] = {}
        self.widths = [node.width for node in recurrence.state]
        self.target = replace(objects.processor().target, narrow=narrow)
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
                reads[node] = self.saved(self.recurrence.graph.nodes[node.attr])
        writes = [(node, Buffer("adjoint", (f,), CARRY, self.widths[f])) for f, node in enumerate(back.state)]
        for key, node in back.inputs.items():
            writes.append((node, Buffer("input_gradient", key, STEP, self.leaf_widths["input", *key])))
        writes += self.after_loop[1]
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
        emitted = kernel.emit(name, planned, self.target, backward=name == "backward")
        return Loop(emitted, narrow=self.target.narrow)

    @cached_property
    def leaf_widths(self) -> dict[tuple[str, int, int], int]:
        return {(node.op, *node.attr): node.width for node in self.leaves}

    def saved(self, node: Node) -> Buffer:
        """Where a value of the forward loop is."""
        if node in self.leaves:
            return self.leaves[node]
        if node.op == "state":
            return Buffer("field_before", (node.attr,), BEFORE, node.width)
        if node in self.recurrence.state:
            return Buffer("field", (self.recurrence.state.index(node),), STEP, node.width)
        return Buffer("kept", (node.index,), STEP, node.width)

    @cached_property
    def after_loop(self) -> tuple[list[WeightRun], list[tuple[Node, Buffer]], list[int]]:
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

    def inference_run(self, given: Given, extent: Extent, parts: int, padded: Padded = PACKED) -> Run:
        """Gives outputs (N, w) or (T, B, w), and the state after each sequence's own last step."""
        write = partial(products.forward, self.inference, kept=(), unpacked=self._unpacked(padded))
        written = self._written(("inference", parts, padded.which), given, write)
        outputs = torch.empty(extent.rows, self.widths[0])
        halves = [torch.stack([field, field]) for field in given.tensors[given.form.total + 1 :]]
        memory = self._memory(written, given)
        memory["field", 0] = memory["field_before", 0] = outputs
        memory |= {("field", f): field for f, field in enumerate(halves, start=1)}
        given_back = self._outputs(memory, outputs, extent, padded)
        return Run(
            written.script, memory, extent, lambda: (given_back, [extent.ends(outputs), *map(extent.carried, halves)])
        )

    def training_run(self, given: Given, extent: Extent, parts: int, padded: Padded = PACKED) -> Run:
        """Gives outputs (N, w) or (T, B, w), the fields of all steps, (N, w) each, and what was kept.

        Kept are also those products of the input, the last ones, that the backward loop reads.
        """
        again = self._read_again(given.form)
        write = partial(products.forward, self.training, kept=again, unpacked=self._unpacked(padded))
        written = self._written(("training", parts, padded.which), given, write)
        fields = [torch.empty(extent.rows, width) for width in self.widths]
        kept = [torch.empty(extent.rows, node.width) for node in self.derivative.kept]
        kept += [torch.empty(extent.rows, len(given.operands.inputs[k].weight)) for k in again]
        memory = self._memory_of_training(written, given, fields, kept)
        outputs = self._outputs(memory, fields[0], extent, padded)
        return Run(written.script, memory, extent, lambda: (outputs, fields, kept))

    def backward_run(
        self,
        given: Given,
        fields: Sequence[Tensor],
        kept: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        extent: Extent,
        parts: int,
        wanted: Sequence[bool],
        padded: Padded = PACKED,
    ) -> Run:
        """Gives the gradients of all tensors of the operands, in their order, and of the initial state.

        Args:
            fields, kept: as `training_run` gave them.
            grads: with respect to the outputs and the fields of the final state, None for zero.
            wanted: of each tensor of the operands, and of the state, whether it needs its gradient.
        """
        form = given.form
        wants = tuple(wanted[: form.total - form.vectors])
        packed = grads[0] is None or padded.outputs is None
        write = partial(products.backward, self, wanted=wants, packed=packed)
        written = self._written(("backward", parts, padded.which, packed, *wants), given, write)
        memory = self._memory_of_training(written, given, fields, kept)
        adjoints = [
            torch.zeros(2, extent.batch, width) if end is None else torch.stack([end, end])
            for end, width in zip(grads[1:], self.widths, strict=True)
        ]
        memory |= {("adjoint", f): adjoint for f, adjoint in enumerate(adjoints)}
        memory |= self.backward.new_sums(parts)
        grad = grads[0]
        grad = torch.zeros(extent.rows, self.widths[0]) if grad is None else grad.contiguous()
        memory[("grad", 0) if packed else "grads"] = grad
        memory |= self._order(padded)
        for result in (*written.results, *written.beside):
            if result is not None and result.padded:
                assert padded.inputs is not None
                memory[result.base] = padded.room(extent, (*padded.inputs.shape, *result.shape))
            elif result is not None:
                shape = (extent.rows, *result.shape) if result.by_row else result.shape
                memory[result.base] = torch.zeros(shape) if result.zero else torch.empty(shape)

        def gradients() -> list[Tensor | None]:
            made = [None if result is None else memory[result.base] for result in written.results]
            shapes = [vector.shape for vector in given.tensors[form.total - form.vectors : form.total]]
            vectors = [self._vector_gradient(k, shape, memory) for k, shape in enumerate(shapes)]
            of_state = zip(adjoints, wanted[len(wanted) - len(adjoints) :], strict=True)
            return [*made, *vectors, *(adjoint[0] if want else None for adjoint, want in of_state)]

        return Run(written.script, memory, extent, gradients, backward=True)

    def _written(self, key: tuple[Any, ...], given: Given, write: Callable[[Operands, int], Written]) -> Written:
        """A script, written when it is first needed for operands of these forms."""
        parts = key[1]
        key += (given.form, *[tensor.stride()[tensor.dim() - 2 :] for tensor in given.tensors[: given.form.total]])
        found = self._scripts.get(key)
        if found is None:
            found = self._scripts[key] = write(given.operands, parts)
        return found

    def _unpacked(self, padded: Padded) -> int:
        return 0 if padded.outputs is None else self.widths[0]

    def _outputs(self, memory: Memory, packed: Tensor, extent: Extent, padded: Padded) -> Tensor:
        """What is given back of packed outputs: themselves, or a padded batch to be written with them."""
        memory |= self._order(padded)
        if padded.outputs is None:
            return packed
        memory["outputs"] = padded.room(extent, (*padded.outputs.shape, packed.shape[1]))
        return memory["outputs"]

    def _order(self, padded: Padded) -> Memory:
        order = padded.order()
        return {} if order is None else {"order": order}

    def _read_again(self, form: Form) -> list[int]:
        """The products of the input that the backward loop reads."""
        return [k for k, size in enumerate(form.inputs) if size > 1 and ("input", k) in self.backward.reads]

    def _memory(self, written: Written, given: Given) -> Memory:
        """What scripts read and write, but for what each of them makes room for."""
        names = self._names.get(given.form)
        if names is None:
            names = [*given.form.names, *(("initial", f) for f in range(len(self.widths)))]
            self._names[given.form] = names
        return {**written.constants, **dict(zip(names, given.tensors, strict=True))}

    def _memory_of_training(
        self, written: Written, given: Given, fields: Sequence[Tensor], kept: Sequence[Tensor]
    ) -> Memory:
        memory = self._memory(written, given)
        for f, field in enumerate(fields):
            memory["field", f] = memory["field_before", f] = field
        names: list[Any] = [("kept", node.index) for node in self.derivative.kept]
        names += [("input", k) for k in self._read_again(given.form)]
        memory.update(zip(names, kept, strict=True))
        return memory

    @cached_property
    def _totals(self) -> dict[int, list[tuple[Any, int, int, bool]]]:
        """Of each vector the sums that make its gradient: their keys, where they go, and if all to one number."""
        found: dict[int, list[tuple[Any, int, int, bool]]] = {}
        for key, node in self.derivative.vectors.items():
            width = self.leaf_widths["vector", *key]
            found.setdefault(key[0], []).append((key, key[1], key[1] + width, width < node.width))
        return found

    def _vector_gradient(self, k: int, shape: torch.Size, memory: Memory) -> Tensor:
        totals = self._totals.get(k, [])
        if len(totals) == 1:
            [(key, first, last, one)] = totals
            sums = memory["column_total", key]
            if last - first == shape.numel() and not one:
                return (sums if len(sums) == 1 else sums.sum(0)).view(shape)
        gradient = torch.zeros(shape.numel())
        for key, first, last, one in totals:
            total = memory["column_total", key].sum(0)
            gradient[first:last] += total.sum() if one else total
        return gradient.view(shape)
