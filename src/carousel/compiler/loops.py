"""A compiled time loop as a call in a script."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from carousel.compiler import kernel, matrix, objects
from carousel.compiler.plan import BEFORE, STEP, Buffer
from carousel.compiler.script import Room, Section, Word, word

Place = tuple[str, int]  # what a loop reads and writes, by kind and number


class Loop:
    """A compiled time loop."""

    def __init__(self, emitted: kernel.Kernel, *, narrow: bool = False) -> None:
        self.name, self.entries, self.narrow = emitted.name, emitted.entries, narrow
        self.function = objects.library(emitted.ir).function(emitted.name, ctypes.c_void_p)
        buffers = [entry[1] for entry in self.entries if entry[0] == "address"]
        self.sums: list[Buffer] = [one for one in buffers if one.kind in ("column_sum", "column_total")]
        self.reads = {(buffer.kind, buffer.key[0]) for buffer in buffers}

    def prepare(self, once: Section, room: Room, weights: Sequence[Tensor]) -> None:
        """Add the calls that lay out the weights."""
        for place, entry in enumerate(self.entries):
            if entry[0] == "panel":
                base = ("panel", self.name, place)
                room[base] = (panel_size(entry), 0, 0)
                for table in panel_words(entry, weights, base):
                    once.call(matrix.function("pack"), *table)
                if self.narrow:
                    _, members, inner, *_, vectors = entry
                    step = len(members) * vectors * objects.processor().target.lanes
                    narrow_panels(once, base, panel_size(entry) // (inner * step), inner, step)

    def call(self, section: Section, room: Room, strides: dict[Place, int], local: Collection[Place]) -> None:
        """Add the call.

        Args:
            strides: of what has rows of its own length, see `Buffer.stride`.
            local: what holds a single piece of time.
        """
        starts: list[tuple[int, Any]] = []
        words: list[int | Word] = []
        for place, entry in enumerate(self.entries):
            kind = entry[0]
            if kind in _VARIABLES:
                words.append(word(**{_VARIABLES[kind]: 1}))
            elif kind == "width":
                words.append(int(entry[1]))
            elif kind == "stride":
                words.append(strides[entry[1:]])
            elif kind == "panel":
                words.append(word(0, ("panel", self.name, place)))
            elif kind == "initial":
                f = entry[1].key[0]
                words.append(word(0, ("field_before", f), before=4 * entry[1].width))
                starts.append((place, ("initial", f)))
            elif kind == "lanes" or entry[1].kind == "scratch":
                base = ("scratch", self.name, place)
                room[base] = (0, 0, objects.processor().target.lanes if kind == "lanes" else entry[1].width)
                words.append(word(0, base))
            else:
                words.append(self._address(entry[1], strides, local))
        section.call(self.function, *words)
        for place, base in starts:
            section.from_start(place, base)

    def _address(self, buffer: Buffer, strides: dict[Place, int], local: Collection[Place]) -> Word:
        if buffer in self.sums:
            return word(0, (buffer.kind, buffer.key), part=4 * buffer.width)
        where = buffer.kind, buffer.key[0]
        own, width = buffer.stride
        begin = word(4 * buffer.key[1] if len(buffer.key) > 1 else 0, where)
        if buffer.rows not in (STEP, BEFORE) or where in local:
            return begin
        return begin + word(row=4 * (width if own == "columns" else strides[where]))

    def new_sums(self, parts: int) -> dict[Any, Tensor]:
        """Zeros to add to, in each thread its own."""
        return {(buffer.kind, buffer.key): torch.zeros(parts, buffer.width) for buffer in self.sums}


_VARIABLES = {
    "rows": "rows", "steps": "steps", "batch": "batch", "sizes": "sizes", "first": "lowest", "last": "highest",
}  # fmt: skip


def narrow_panels(section: Section, base: Any, blocks: int, depth: int | Word, step: int) -> None:
    """Add the call that makes panels bfloat16, when all of their members are laid out."""
    section.waits[-1] = True
    section.call(matrix.function("narrow"), word(0, base), word(even=blocks), depth, step)


def panel_size(entry: kernel.Entry) -> int:
    """How many numbers a panel of weights has."""
    _, members, inner, width, vectors = entry
    block = vectors * objects.processor().target.lanes
    return int(-(-width // block) * inner * len(members) * block)


def panel_words(entry: kernel.Entry, weights: Sequence[Tensor], base: Any) -> list[tuple[Any, ...]]:
    """For each of a panel's members, the words of the call that lays it out, by one of the threads."""
    _, members, inner, width, vectors = entry
    block = vectors * objects.processor().target.lanes
    found = []
    for place, (tensor, start, transposed) in enumerate(members):
        by_row, by_column = weights[tensor].stride()
        across, along = (by_column, by_row) if transposed else (by_row, by_column)
        from_, to = word(4 * start * by_row, ("weight", tensor)), word(4 * place * block, base)
        columns = word(**{("even", "odd")[place % 2]: width})
        found.append((from_, across, along, columns, inner, inner, vectors, len(members) * block, to))
    return found


def packed(weights: Sequence[Tensor], entry: kernel.Entry) -> Tensor:
    """The weights that an entry of the table asks for, as products read them."""
    panel = torch.empty(panel_size(entry))
    known = {"one": 1, "even": 1, "odd": 1}
    for table in panel_words(entry, weights, None):
        values = []
        for one in table:
            of = one if isinstance(one, Word) else word(one)
            base = 0 if of.base is None else weights[of.base[1]].data_ptr()
            values.append(base + sum(known[name] * by for name, by in of.multiples))
        values[-1] += panel.data_ptr()
        matrix.call(matrix.function("pack"), *values)
    return panel
