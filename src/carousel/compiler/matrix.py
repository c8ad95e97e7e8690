"""Products of matrices outside the time loop, by the inner loop of the kernels.

    C (+)= A B        A: (M, K) of any strides, B: (K, N) laid out in panels, C: (M, N)

B is laid out once and read by many products: those of the pieces of A in time. Every function here is compiled and
reads its arguments from a table of 64-bit words: addresses in bytes, lengths in numbers.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import torch
from llvmlite import ir
from torch import Tensor

from carousel.compiler import objects
from carousel.compiler.arithmetic import BIT, FLOAT, LONG, POINTER, Vectors
from carousel.compiler.bfloat16 import CHUNK, NARROW, add_pairs, narrow_factor, room, write_narrow
from carousel.compiler.blocks import Loops, Target, column_vectors, write_pack, write_product

INNER = CHUNK  # of K at a time
ROWS = 192  # of M at a time

# The words of each table, in order.
MULTIPLY = ("a", "a_row", "a_inner", "panels", "M", "N", "K", "c", "c_row", "bias", "add")
PACK = ("b", "by_column", "by_row", "columns", "rows", "depth", "vectors", "step", "panels")
PACK_BEFORE = ("first", "b", "by_row", "columns", "sizes", "steps", "depth", "vectors", "step", "panels")
SUM = ("a", "a_row", "rows", "columns", "c", "add")


class Form(NamedTuple):
    """How panels are cut: B (K, columns) is `blocks` runs of K rows of `step` numbers, of `vectors` vectors."""

    columns: int
    vectors: int
    step: int
    blocks: int

    @property
    def width(self) -> int:
        """The numbers in memory for each row of B."""
        return self.blocks * self.step


@cache
def form(columns: int) -> Form:
    target = objects.processor().target
    vectors = column_vectors(target, columns, 1)
    step = vectors * target.lanes
    return Form(columns, vectors, step, -(-columns // step))


def product(
    a: Tensor, b: Tensor, into: Tensor, bias: Tensor | None = None, *, add: bool = False, narrow: bool = False
) -> Tensor:
    """a @ b, plus a bias (N,), written or added into `into` (M, N): one product by itself, `narrow` in bfloat16.

    >>> product(torch.ones(5, 2), torch.ones(2, 3), torch.empty(5, 3))[4]
    tensor([2., 2., 2.])
    """
    (K, N), cut = b.shape, form(b.shape[1])
    panels, beginning = torch.empty(cut.width * K), torch.zeros(N) if bias is None else bias
    call(function("pack"), b.data_ptr(), b.stride(1), b.stride(0), N, K, K, cut.vectors, cut.step, panels.data_ptr())
    if narrow:
        call(function("narrow"), panels.data_ptr(), cut.blocks, K, cut.step)
    call(
        function("multiply", cut.vectors, narrow=narrow), a.data_ptr(), *a.stride(), panels.data_ptr(), len(a), N, K,
        into.data_ptr(), into.stride(0), beginning.data_ptr(), add,
    )  # fmt: skip
    return into


def call(function: Any, *words: int) -> None:
    """Call a function with a table of these words."""
    function((ctypes.c_int64 * len(words))(*words))


@cache
def function(name: str, vectors: int = 0, *, narrow: bool = False) -> Any:
    """A compiled function: "pack", "pack_before", "sum", "narrow", or "multiply" for panels of so many vectors.

    Args:
        narrow: whether the panels are.
    """
    target = replace(objects.processor().target, narrow=narrow)

    def text() -> str:
        module = ir.Module("matrix")
        if name == "narrow":
            write_narrow(*_begin_narrow(module, target))
        elif name == "multiply":
            _write_multiply(module, target, vectors)
        else:
            lay_out = write_pack(module, target)
            _write_pack(module, target, lay_out)
            _write_pack_before(module, target, lay_out)
            _write_sum(module, target)
        return str(module)

    kind = name if name == "narrow" else vectors
    return objects.library(objects.text(f"matrix {kind} {target}", text)).function(name, ctypes.c_void_p)


def begin(module: ir.Module, target: Target, name: str, words: tuple[str, ...], pointers: str) -> tuple[Loops, Any]:
    """A function of a table, and its words."""
    w = Loops(ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), name), target)
    (table,) = w.function.args
    found = []
    for place, word in enumerate(words):
        value = w.b.load(w.b.gep(table, [LONG(place)], source_etype=LONG), typ=LONG)
        found.append(w.b.inttoptr(value, POINTER) if word in pointers.split() else value)
    return w, found


def _begin_narrow(module: ir.Module, target: Target) -> tuple[Any, ...]:
    w, words = begin(module, target, "narrow", NARROW, "panels")
    return (w, *words)


def _write_multiply(module: ir.Module, target: Target, vectors: int) -> None:
    lanes, step, rows = target.lanes, vectors * target.lanes, target.rows(vectors)
    add_product = add_pairs if target.narrow else Vectors.fma
    multiply = write_product(module, lanes, vectors, step, rows, add_product)
    w, words = begin(module, target, "multiply", MULTIPLY, "a panels c bias")
    a, a_row, a_inner, panels, M, N, K, c, c_row, bias, add = words
    b = w.b
    tile = b.alloca(ir.ArrayType(FLOAT, rows * step))
    tile.align = 64
    narrowed = room(w, ROWS * INNER // 2) if target.narrow else None
    with w.loop(w.ceiling(K, INNER)) as k, w.loop(w.ceiling(M, ROWS)) as m:
        start, top = b.mul(k, LONG(INNER)), b.mul(m, LONG(ROWS))
        depth = w.least(LONG(INNER), b.sub(K, start))
        more = b.or_(b.icmp_signed(">", start, LONG(0)), b.icmp_signed("!=", add, LONG(0)))
        total = w.least(LONG(ROWS), b.sub(M, top))
        blocks = w.shares(total, rows)
        factor, by_row, by_inner = w.at(a, b.mul(top, a_row), b.mul(start, a_inner)), a_row, a_inner
        if target.narrow:
            by_row, by_inner = narrow_factor(w, factor, a_row, a_inner, total, depth, narrowed, ROWS)
            factor, depth = narrowed, w.ceiling(depth, 2)
        with w.loop(w.ceiling(N, step)) as j:
            column = b.mul(j, LONG(step))
            panel = w.at(panels, b.mul(column, K), b.mul(b.udiv(start, LONG(1 + target.narrow)), LONG(step)))
            inside = w.least(LONG(vectors), w.ceiling(b.sub(N, column), lanes))
            with w.each_share(blocks) as (offset, height):
                first = b.add(top, offset)
                source = w.at(factor, b.mul(offset, by_row))
                b.call(multiply, [source, by_row, by_inner, height, panel, depth, tile, ir.Constant(BIT, 0)])
                with w.loop(height) as r, w.loop(inside) as vector:
                    here = b.add(column, b.mul(vector, LONG(lanes)))
                    mask = w.tail_mask(b.sub(N, here))
                    place = w.at(tile, b.mul(r, LONG(step)), b.mul(vector, LONG(lanes)))
                    goal = w.at(c, b.mul(b.add(first, r), c_row), here)
                    before = b.select(more, w.load(goal, mask), w.load(w.at(bias, here), mask))
                    w.store(w.v.add(b.load(place, typ=w.v.type, align=64), before), goal, mask)
    b.ret_void()


def _write_pack(module: ir.Module, target: Target, lay_out: ir.Function) -> None:
    """Lay out the rows of a matrix, in panels of so many (`depth`) rows."""
    w, (matrix, *sizes, panels) = begin(module, target, "pack", PACK, "b panels")
    w.b.call(lay_out, [matrix, *sizes, panels])
    w.b.ret_void()


def _write_pack_before(module: ir.Module, target: Target, lay_out: ir.Function) -> None:
    """Lay out what each row of some time steps had before it, rows of the step before; of the first step, `first`.

    Step t, of sizes[t] sequences, had the first sizes[t] of the sizes[t - 1] rows of step t - 1.
    """
    w, words = begin(module, target, "pack_before", PACK_BEFORE, "first b sizes panels")
    first, source, by_row, columns, sizes, steps, depth, vectors, step, panels = words
    b, one = w.b, LONG(1)
    row_at, done_at = b.alloca(LONG), b.alloca(LONG)
    b.store(LONG(0), row_at)
    b.store(LONG(0), done_at)
    with w.loop(steps) as t:
        size = b.load(b.gep(sizes, [t], source_etype=LONG), typ=LONG)
        row, done = b.load(row_at, typ=LONG), b.load(done_at, typ=LONG)
        is_first = b.and_(b.icmp_signed("==", t, LONG(0)), b.icmp_signed("!=", b.ptrtoint(first, LONG), LONG(0)))
        from_ = b.select(is_first, first, w.at(source, b.mul(row, by_row)))
        b.call(lay_out, [from_, one, by_row, columns, size, depth, vectors, step, w.at(panels, b.mul(done, step))])
        with b.if_then(b.not_(is_first)):
            size_before = b.load(b.gep(sizes, [b.sub(t, one)], source_etype=LONG), typ=LONG)
            b.store(b.add(row, size_before), row_at)
        b.store(b.add(done, size), done_at)
    b.ret_void()


def _write_sum(module: ir.Module, target: Target) -> None:
    """c (+)= the sum of the rows of a."""
    w, (a, a_row, rows, columns, c, add) = begin(module, target, "sum", SUM, "a c")
    b = w.b
    total_at = b.alloca(w.v.type)
    total_at.align = 64
    with w.loop(w.ceiling(columns, target.lanes)) as vector:
        here = b.mul(vector, LONG(target.lanes))
        mask = w.tail_mask(b.sub(columns, here))
        goal = w.at(c, here)
        more = b.icmp_signed("!=", add, LONG(0))
        b.store(b.select(more, w.load(goal, mask), w.v.constant(0)), total_at, align=64)
        with w.loop(rows) as row:
            value = w.load(w.at(a, b.mul(row, a_row), here), mask)
            b.store(w.v.add(b.load(total_at, typ=w.v.type, align=64), value), total_at, align=64)
        w.store(b.load(total_at, typ=w.v.type, align=64), goal, mask)
    b.ret_void()
