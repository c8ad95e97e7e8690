"""One step at a time, for streams: everything that can be prepared is, and a step is one call of compiled code."""

from __future__ import annotations

from ctypes import addressof, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from carousel.cells import Cell
from carousel.compiler import kernel, objects
from carousel.compiler.graph import Node
from carousel.compiler.loops import packed
from carousel.compiler.operands import Operands
from carousel.compiler.plan import ALL, BEFORE, STEP, Buffer, plan
from carousel.compiler.trace import trace

AHEAD = 64  # rooms for outputs made at once


class CompiledStream:
    """A cell that keeps its state and takes a step at each call.

    The weights are read when it is made and again when they have changed.
    """

    def __init__(self, cell: Cell, batch: int) -> None:
        self.recurrence = trace(cell, hoist=False)
        self.cell, self.batch = cell, batch
        self.loop = self._compile()
        self.shape = torch.Size([batch, cell.input_size])
        self.lanes = objects.processor().target.lanes
        self._sizes = (c_int64 * 1)(batch)
        state = cell.initial_state(batch)
        # Fields other than the output have two places, read and written by turns.
        self._fields = [(torch.empty_like(field), torch.empty_like(field)) for field in state[1:]]
        self._rooms: list[tuple[Tensor, int]] = []
        self._read_weights()
        self.prepare(state)

    def _compile(self) -> kernel.Kernel:
        graph, state = self.recurrence.graph, self.recurrence.state
        reads: dict[Node, Buffer] = {}
        for node in graph.used(state):
            if node.op in ("input", "vector"):
                reads[node] = Buffer(node.op, node.attr, STEP if node.op == "input" else ALL, node.width)
            elif node.op == "state":
                reads[node] = Buffer("field_before", (node.attr,), BEFORE, node.width)
        writes = [(node, Buffer("field", (f,), STEP, node.width)) for f, node in enumerate(state)]
        emitted = kernel.emit("step", plan(graph, reads, writes), objects.processor().target, backward=False)
        self._call = objects.library(emitted.ir).function("step", c_void_p)
        return emitted

    def prepare(self, state: Any) -> None:
        """Begin from a state, fields (B, ·)."""
        self._output = state[0].detach().contiguous().clone()
        self._address = self._output.data_ptr()
        for pair, field in zip(self._fields, state[1:], strict=True):
            pair[self._swapped].copy_(field)

    def _read_weights(self) -> None:
        """Lay out the weights as they are, and the words of the table for both turns."""
        self._versions = [(parameter, parameter._version) for parameter in self.cell.parameters()]
        like = torch.zeros(self.batch, self.cell.input_size)
        with torch.no_grad():
            operands = self.recurrence.operands(self.cell, like)
        self._held: list[Any] = [*operands.weights, *operands.vectors]
        words: list[int] = []
        self._inputs: list[tuple[int, int, int]] = []
        self._read = self._written = len(self.loop.entries)  # a word that nothing reads
        for place, entry in enumerate(self.loop.entries):
            if entry[0] == "address" and entry[1].kind == "input":
                self._inputs.append((place, entry[1].key[0], 4 * entry[1].key[1]))
            elif entry[0] == "address" and entry[1].kind == "field" and entry[1].key == (0,):
                self._written = place
            elif entry[0] == "initial" and entry[1].key == (0,):
                self._read = place
            words.append(self._word(entry, operands, turn=0))
        self._raw = all(operands.inputs[tensor] is like for _, tensor, _ in self._inputs)
        words.append(0)
        pairs = zip(self.loop.entries, words, strict=False)
        other = [self._word(entry, operands, turn=1) if _turns(entry) else word for entry, word in pairs] + [0]
        tables = [(c_int64 * len(words))(*words), (c_int64 * len(words))(*other)]
        self._turns, self._swapped = [(table, addressof(table)) for table in tables], False

    def _word(self, entry: kernel.Entry, operands: Operands, turn: int) -> int:
        """A word of the table; 0 for what each step puts there itself."""
        known = {"steps": 1, "batch": self.batch, "first": 0, "last": self.batch, "sizes": addressof(self._sizes)}
        if entry[0] in known:
            return known[entry[0]]
        if entry[0] == "width":
            return int(entry[1])
        if entry[0] == "stride":
            return int(operands.inputs[entry[2]].stride(0))
        if entry[0] == "panel":
            return self._hold(packed(operands.weights, entry))
        buffer: Buffer = entry[1]
        if entry[0] == "lanes":
            return self._hold(torch.empty(self.batch, self.lanes))
        if _turns(entry):
            return self._fields[buffer.key[0] - 1][turn ^ (entry[0] != "initial")].data_ptr()
        if buffer.kind == "vector":
            return operands.vectors[buffer.key[0]].data_ptr() + 4 * buffer.key[1]
        return self._hold(torch.empty(self.batch, max(buffer.width, 1))) if buffer.kind == "scratch" else 0

    def _hold(self, tensor: Tensor) -> int:
        """The address of something that is kept for as long."""
        self._held.append(tensor)
        return tensor.data_ptr()

    @property
    def state(self) -> Any:
        """The state after the last step, the caller's to keep."""
        return self.cell.State(self._output, *(pair[self._swapped].clone() for pair in self._fields))

    def __call__(self, x: Tensor) -> Tensor:
        """The output (B, H) of one more input (B, I), float32 and contiguous.

        The output is the caller's to keep, but not to write to: the next step reads it.
        """
        for parameter, version in self._versions:
            if parameter._version != version:
                state = self.state
                self._read_weights()
                self.prepare(state)
        if not self._rooms:
            rooms = torch.empty(AHEAD, *self._output.shape).unbind()
            self._rooms = [(room, room.data_ptr()) for room in rooms]
        table, address = self._turns[self._swapped]
        if self._raw:
            address_of_x = x.data_ptr()
            for place, _, offset in self._inputs:
                table[place] = address_of_x + offset
        else:
            with torch.no_grad():
                inputs = self.recurrence.operands(self.cell, x).inputs
            for place, tensor, offset in self._inputs:
                table[place] = inputs[tensor].data_ptr() + offset
        table[self._read] = self._address
        output, room = self._rooms.pop()
        table[self._written] = room
        self._call(address)  # which reads the output before: it must live until here
        self._output, self._address, self._swapped = output, room, not self._swapped
        return output


def _turns(entry: kernel.Entry) -> bool:
    """Whether it is the address of a field of the state other than the output."""
    of_state = entry[0] == "initial" or (entry[0] == "address" and entry[1].kind == "field")
    return of_state and bool(entry[1].key != (0,))
