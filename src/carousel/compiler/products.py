"""The products around the loops: those of the input before, those of the gradients after, in one script with the loop.

    for piece in time:                          for piece in backward time:
        p = W x + b                                 dp = loop(dh)
        h = loop(p)                                 dx = dp W;  dW += dp^T x;  db += Σ dp;  dU += dp^T h_before

Time goes by in pieces, so that what one call hands to the next is still in the cache when it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from carousel.compiler import matrix, packing
from carousel.compiler.extent import Extent
from carousel.compiler.graph import Node
from carousel.compiler.loops import Loop, Place, narrow_panels
from carousel.compiler.operands import Operands, Product
from carousel.compiler.script import Room, Script, Section, Word, share, timed, word

if TYPE_CHECKING:
    from carousel.compiler.cpu import Program

FEWEST = 256  # rows in a piece
PIECE = 2**17  # numbers: of what is handed on within a piece


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


class Result(NamedTuple):
    """A gradient: what it is called in memory, and how to make room for it."""

    base: Any
    shape: tuple[int, ...]
    by_row: bool = False  # whether it has rows besides, one for each row of the batch
    padded: bool = False  # whether those are the rows of a padded batch
    zero: bool = False  # whether it is added to


@dataclass(frozen=True)
class Written:
    """A script, and the gradients that it computes, in the order of the operands."""

    script: Script
    results: Sequence[Result | None] = ()
    beside: Sequence[Result] = ()  # those that nobody asked for, but need room

    @cached_property
    def constants(self) -> dict[Any, Tensor]:
        """What it reads that is always the same."""
        return {base: torch.zeros(base[1]) for base in self.script.given if base[0] == "zeros"}


def rows_of_piece(columns: int) -> int:
    return max(PIECE // max(columns, 1), FEWEST)


def forward(loop: Loop, operands: Operands, parts: int, *, kept: Sequence[int], unpacked: int = 0) -> Written:
    """The loop, and before it the products of its inputs.

    Args:
        kept: the inputs that are kept whole, to be read by the backward loop.
        unpacked: the width of the outputs, if they go to a padded batch as well.
    """
    once, each, room = Section(in_pieces=False), Section(in_pieces=True), {}
    products = [(k, given) for k, given in enumerate(operands.inputs) if isinstance(given, Product)]
    local = [("input", k) for k, _ in products if k not in kept]
    strides = _strides(operands)
    for k, (x, weight, bias) in products:
        columns, inner = weight.shape
        place, cut = ("input", k), matrix.form(columns)
        panels = ("panels", k)
        room[panels] = (cut.width * inner, 0, 0)
        narrow = loop.narrow and 1 in x.stride()[-2:]
        _pack(once, panels, cut, word(0, ("W", k)), weight.stride(0), weight.stride(1), word(inner), k)
        if narrow:
            narrow_panels(once, panels, cut.blocks, inner, cut.step)
        into = word(0, place) if place in local else word(0, place, row=4 * columns)
        if place in local:
            room[place] = (0, columns, 0)
        rows = _packed(each, room, k, x)
        each.call(
            matrix.function("multiply", cut.vectors, narrow=narrow), rows.words + word(first=4 * rows.stride),
            rows.stride, x.stride(-1), word(0, panels), word(count=1), columns, inner, into + word(first=4 * columns),
            columns, word(0, ("b", k) if bias is not None else ("zeros", columns)), 0,
        )  # fmt: skip
    if products:
        each.waits[-1] = True
    loop.prepare(once, room, operands.weights)
    loop.call(each, room, strides, local)
    if unpacked:
        _move("unpack", each, "outputs", word(0, ("field", 0), row=4 * unpacked), unpacked)
    size = rows_of_piece(sum(len(given.weight) for _, given in products))
    return Written(Script([once, each], room, parts, size, (id(loop), parts)))


class _Rows(NamedTuple):
    """Where a piece's rows begin, and how far apart they are."""

    words: Word
    stride: int


def _packed(section: Section, room: Room, k: int, x: Tensor) -> _Rows:
    """The rows of what a product reads, of a padded batch (T, B, K) packed first."""
    if x.dim() == 2:
        return _Rows(word(0, ("x", k), row=4 * x.stride(0)), x.stride(0))
    place, K = ("rows of x", k), x.shape[2]
    room[place] = (0, K, 0)
    _move("pack", section, ("x", k), word(0, place), K)
    return _Rows(word(0, place), K)


def _move(way: str, section: Section, padded: Any, packed: Word, width: int) -> None:
    """ "pack" or "unpack" a piece of a batch (T, B, width), each thread its own sequences."""
    section.call(
        packing.function(way), word(0, padded, padded=4 * width), word(batch=width), width, word(0, "order"),
        word(sizes=1), word(steps=1), width, packed, word(lowest=1), word(highest=1), wait=True,
    )  # fmt: skip


def _strides(operands: Operands) -> dict[Place, int]:
    """The length of the rows of inputs and of their gradients."""
    found: dict[Place, int] = {}
    for k, given in enumerate(operands.inputs):
        product = isinstance(given, Product)
        found["input", k] = len(given.weight) if product else given.stride(0)
        found["input_gradient", k] = len(given.weight) if product else given.shape[1]
    return found


def _pack(
    section: Section, panels: Any, cut: matrix.Form, b: Word, by_column: int, by_row: int, rows: Word, turn: int
) -> None:
    """Lay out a matrix, by one of the threads."""
    columns = word(**{("even", "odd")[turn % 2]: cut.columns})
    section.call(
        matrix.function("pack"), b, by_column, by_row, columns, rows, rows, cut.vectors, cut.step, word(0, panels)
    )


def backward(
    program: Program, operands: Operands, parts: int, *, wanted: Sequence[bool], packed: bool = True
) -> Written:
    """The backward loop, and after it the gradients of the weights and of what products read.

    Args:
        packed: whether the gradients of the outputs are; otherwise they are those of a padded batch.
    """
    return _Backward(program, operands, parts).write(wanted, packed)


class _Backward:
    def __init__(self, program: Program, operands: Operands, parts: int) -> None:
        self.program, self.operands, self.parts = program, operands, parts
        self.once, self.packs, self.products = Section(False), Section(True), Section(True)
        self.strides, self.narrow = _strides(operands), program.target.narrow
        self.room: Room = {}
        self.local: list[Place] = []
        self.results: list[Result | None] = []
        self.beside: list[Result] = []
        self.panels: dict[Any, Any] = {}  # what is laid out in each piece -> its panels

    def write(self, wanted: Sequence[bool], packed: bool) -> Written:
        loop, wants = self.program.backward, iter(wanted)
        runs, _, columns = self.program.after_loop
        for k, width in enumerate(columns):
            self.make_local(("product_gradient", k), width)
        for k, given in enumerate(self.operands.inputs):
            self.of_input(k, given, wants)
        for k, weight in enumerate(self.operands.weights):
            self.of_weight(k, weight, [run for run in runs if run.tensor == k], next(wants))
        loop.prepare(self.once, self.room, self.operands.weights)
        each = Section(True)
        if not packed:
            width = self.program.widths[0]
            self.room["grad", 0] = (0, width, 0)
            self.local.append(("grad", 0))
            _move("pack", each, "grads", word(0, ("grad", 0)), width)
        loop.call(each, self.room, self.strides, self.local)
        each.extend(self.packs)
        each.waits[-1] = True
        each.extend(self.products)
        rows = rows_of_piece(sum(self.room[place][1] for place in self.local))
        script = Script([self.once, each], self.room, self.parts, rows, (id(loop), self.parts))
        return Written(script, self.results, self.beside)

    def make_local(self, place: Place, width: int) -> None:
        """Room for a piece, its rows a little apart: rows of powers of two would fall upon each other in the cache."""
        self.room[place] = (0, width + 16, 0)
        self.strides[place] = width + 16
        self.local.append(place)

    def of_input(self, k: int, given: Any, wants: Iterator[bool]) -> None:
        place, width = ("input_gradient", k), self.strides["input_gradient", k]
        keys = [key for key in self.program.derivative.inputs if key[0] == k]
        whole = sum(self.program.leaf_widths["input", *key] for key in keys) == width
        result = Result(place, (width,), by_row=True, zero=not whole)
        if not isinstance(given, Product):
            self.results.append(result if next(wants) else None)
            if self.results[-1] is None:
                self.beside.append(result)
            return
        if whole:
            self.make_local(place, width)
        else:
            self.beside.append(result)
        x, weight, bias = given
        M, K = weight.shape
        padded = x.dim() == 3
        if self.wants(wants, Result(("dx", k), (K,), by_row=True, padded=padded)):
            cut, panels = matrix.form(K), ("panels of W", k)
            self.room[panels] = (cut.width * M, 0, 0)
            _pack(self.once, panels, cut, word(0, ("W", k)), weight.stride(1), weight.stride(0), word(M), k)
            if self.narrow:
                narrow_panels(self.once, panels, cut.blocks, M, cut.step)
            into = word(0, ("rows of dx", k)) if padded else word(0, ("dx", k), row=4 * K)
            self.products.call(
                matrix.function("multiply", cut.vectors, narrow=self.narrow),
                self.rows(place) + word(first=4 * self.strides[place]), self.strides[place], 1, word(0, panels),
                word(count=1), K, M, into + word(first=4 * K), K, word(0, ("zeros", K)), 0, wait=padded,
            )  # fmt: skip
            if padded:
                self.room["rows of dx", k] = (0, K, 0)
                _move("unpack", self.products, ("dx", k), into, K)
        if self.wants(wants, Result(("dW", k), (M, K))):
            if ("x", k) not in self.panels:
                cut = self.new_panels(("x", k), K)
                b, stride = _packed(self.packs, self.room, k, x)
                _pack(self.packs, self.panels["x", k], cut, b, x.stride(-1), stride, word(rows=1), 1)
                self.narrow_rows(cut, self.panels["x", k])
            self.add_product(place, 0, M, ("x", k), K, word(0, ("dW", k)), word(again=1))
        if bias is not None and self.wants(wants, Result(("db", k), (M,))):
            self.products.call(
                matrix.function("sum"), self.rows(place) + share(M, first=4), self.strides[place], word(rows=1),
                share(M, count=1), word(0, ("db", k)) + share(M, first=4), word(again=1),
            )  # fmt: skip

    def wants(self, wants: Iterator[bool], result: Result) -> bool:
        want = next(wants)
        self.results.append(result if want else None)
        return want

    def of_weight(self, k: int, weight: Tensor, runs: list[WeightRun], want: bool) -> None:
        once = sum(run.rows for run in runs) == len(weight) and len({run.start for run in runs}) == len(runs)
        self.results.append(Result(("weight_gradient", k), tuple(weight.shape), zero=not once) if want else None)
        if not want:
            return
        columns = weight.shape[1]
        for run in runs:
            if run.operand not in self.panels:
                self.lay_out(run.operand)
            into = word(4 * run.start * columns, ("weight_gradient", k))
            add = word(again=1) if once else word(1)
            self.add_product((run.kind, run.source), run.column, run.rows, run.operand, columns, into, add)

    def lay_out(self, operand: Node) -> None:
        """Lay out, in each piece, what the loop multiplied by weights."""
        cut, panels, width = self.new_panels(operand, operand.width), self.panels[operand], operand.width
        if operand.op == "state":
            f = operand.attr
            source = word(0, ("field_before", f), before=4 * width)
            self.packs.call(
                matrix.function("pack_before"), 0, source, width, word(even=width), word(sizes=1), word(steps=1),
                word(rows=1), cut.vectors, cut.step, word(0, panels),
            )  # fmt: skip
            self.packs.from_start(0, ("initial", f))
        else:
            buffer = self.program.saved(operand)
            place = (buffer.kind, buffer.key[0])
            stride = self.strides[place] if buffer.stride[0] != "columns" else width
            column = 4 * (buffer.key[1] if len(buffer.key) > 1 else 0)
            b = word(column, place, row=4 * stride)
            _pack(self.packs, panels, cut, b, 1, stride, word(rows=1), len(self.panels))
        self.narrow_rows(cut, panels)

    def narrow_rows(self, cut: matrix.Form, panels: Any) -> None:
        if self.narrow:
            narrow_panels(self.packs, panels, cut.blocks, word(rows=1), cut.step)

    def new_panels(self, of: Any, columns: int) -> matrix.Form:
        cut, base = matrix.form(columns), ("panels of", of)
        self.room[base] = (0, cut.width, 0)
        self.panels[of] = base
        return cut

    def add_product(self, adjoint: Place, column: int, rows: int, of: Any, columns: int, into: Word, add: Word) -> None:
        """into (+)= a^T b: some columns of an adjoint, times what is laid out."""
        self.products.call(
            matrix.function("multiply", matrix.form(columns).vectors, narrow=self.narrow),
            self.rows(adjoint) + word(4 * column) + share(rows, first=4), 1, self.strides[adjoint],
            word(0, self.panels[of]), share(rows, count=1), columns, word(rows=1),
            into + share(rows, first=4 * columns), columns, word(0, ("zeros", columns)), add,
        )  # fmt: skip

    def rows(self, place: Place) -> Word:
        """The address of the first row of a piece."""
        return word(0, place) if place in self.local else word(0, place, row=4 * self.strides[place])


def gain(parts: int) -> float:
    """How many times as fast as one thread so many are just now, measured on a product of middling size."""
    M, N = 768, 512
    cut, times = matrix.form(N), {}
    memory = {"a": torch.ones(M, N), "panels": torch.ones(cut.width * N), "c": torch.empty(M, N)}
    for count in (1, parts):
        section = Section(in_pieces=False)
        section.call(
            matrix.function("multiply", cut.vectors), word(0, "a") + share(M, first=4 * N), N, 1, word(0, "panels"),
            share(M, count=1), N, N, word(0, "c") + share(M, first=4 * N), N, word(0, "panels"), 0,
        )  # fmt: skip
        script = Script([section], {}, count, rows=1, about="gain")
        times[count] = min(timed(script, memory, Extent((1,))) for _ in range(9))
    return times[1] / times[parts]
