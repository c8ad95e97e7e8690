"""Products of bfloat16 numbers, two at a time, added up in float32.

    tile[r, c] += a[r, 2p] b[2p, c] + a[r, 2p + 1] b[2p + 1, c]

A panel holds pairs of rows, number beside number, in the first half of each of its blocks. The left factor stays
float32 in memory, and is narrowed a few rows at a time just before it is multiplied. Only products are narrow:
all else is float32, sums and states included.

They are used where PyTorch is told to do the same in its own recurrent layers (see `engine`).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from carousel.compiler.arithmetic import FLOAT, LONG, POINTER, Vectors
from carousel.compiler.blocks import Loops, Target, write_product

NARROW = ("panels", "blocks", "depth", "step")  # the words of the table of "narrow"
CHUNK = 256  # of the inner dimension at a time


class _BFloat(ir.types.Type):  # type: ignore[misc]  # llvmlite does not name it
    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


BFLOAT = _BFloat()


def write_narrow_product(module: ir.Module, lanes: int, vectors: int, row_words: int, most: int) -> ir.Function:
    """As `write_product`, of a narrow panel, and rows of float32 whose numbers stand one after the other."""
    product = write_product(module, lanes, vectors, row_words, most, add_product=add_pairs)
    function = ir.Function(module, product.function_type, f"narrow_product_{vectors}_{row_words}")
    function.linkage = "internal"
    function.attributes.add("noinline")
    w = Loops(function, Target(lanes, most * vectors))
    b, (source, by_row, by_inner, rows, panel, inner, tile, more) = w.b, function.args
    narrow = room(w, most * CHUNK // 2)
    with w.loop(w.ceiling(inner, CHUNK)) as chunk:
        start = b.mul(chunk, LONG(CHUNK))
        depth = w.least(LONG(CHUNK), b.sub(inner, start))
        _narrow_rows(w, w.at(source, start), by_row, rows, depth, narrow)
        pairs = w.at(panel, b.mul(b.udiv(start, LONG(2)), LONG(vectors * lanes)))
        again = b.or_(more, b.icmp_signed(">", chunk, LONG(0)))
        b.call(product, [narrow, LONG(CHUNK // 2), by_inner, rows, pairs, w.ceiling(depth, 2), tile, again])
    b.ret_void()
    return function


def room(w: Loops, numbers: int) -> Any:
    """Memory of the function for so many numbers of 32 bits."""
    own = w.b.alloca(ir.ArrayType(FLOAT, numbers))
    own.align = 64
    return w.b.inttoptr(w.b.ptrtoint(own, LONG), POINTER)


def narrow_factor(
    w: Loops, source: Any, by_row: Any, by_inner: Any, rows: Any, depth: Any, into: Any, most: int
) -> tuple[Any, Any]:
    """Narrow at most `most` rows of at most CHUNK numbers, where `by_inner` or `by_row` is 1; what both are then."""
    b = w.b
    along = b.icmp_signed("==", by_inner, LONG(1))
    with b.if_else(along) as (in_rows, in_columns):
        with in_rows:
            _narrow_rows(w, source, by_row, rows, depth, into)
        with in_columns:
            _narrow_columns(w, source, by_inner, rows, depth, into, most)
    return b.select(along, LONG(CHUNK // 2), LONG(1)), b.select(along, LONG(1), LONG(most))


def _narrow_rows(w: Loops, source: Any, by_row: Any, rows: Any, depth: Any, into: Any) -> None:
    """Pairs of neighbours in each row: into[row, pair]."""
    b, lanes = w.b, w.target.lanes
    with w.loop(rows) as row, w.loop(w.ceiling(depth, lanes)) as vector:
        here = b.mul(vector, LONG(lanes))
        numbers = w.load(w.at(source, b.mul(row, by_row), here), w.tail_mask(b.sub(depth, here)))
        place = w.at(into, b.mul(row, LONG(CHUNK // 2)), b.mul(vector, LONG(lanes // 2)))
        b.store(b.fptrunc(numbers, ir.VectorType(BFLOAT, lanes)), place, align=4)


def _narrow_columns(w: Loops, source: Any, by_inner: Any, rows: Any, depth: Any, into: Any, most: int) -> None:
    """Pairs from one column and the next, in which rows are neighbours: into[pair, row]."""
    b, lanes = w.b, w.target.lanes
    with w.loop(w.ceiling(depth, 2)) as pair, w.loop(w.ceiling(rows, lanes)) as vector:
        here = b.mul(vector, LONG(lanes))
        mask = w.tail_mask(b.sub(rows, here))
        even, odd = (w.load(w.at(source, b.mul(place, by_inner), here), mask) for place in _both(w, pair, depth))
        _store_pairs(w, even, odd, pair, depth, w.at(into, b.mul(pair, LONG(most)), here))


def _both(w: Loops, pair: Any, depth: Any) -> tuple[Any, Any]:
    """The numbers of the two of a pair; the first twice where there is no second."""
    first = w.b.mul(pair, LONG(2))
    return first, w.least(w.b.add(first, LONG(1)), w.b.sub(depth, LONG(1)))


def _store_pairs(w: Loops, even: Any, odd: Any, pair: Any, depth: Any, into: Any) -> None:
    """Narrow numbers side by side; the last beside zeros if there is an odd number of them."""
    b, lanes = w.b, w.target.lanes
    half = ir.VectorType(BFLOAT, lanes)
    beside = [place + lanes * second for place in range(lanes) for second in (0, 1)]
    order = ir.Constant(ir.VectorType(ir.IntType(32), 2 * lanes), beside)
    whole = b.icmp_signed("<", b.add(b.mul(pair, LONG(2)), LONG(1)), depth)
    odd = b.select(whole, odd, w.v.constant(0))
    b.store(b.shuffle_vector(b.fptrunc(even, half), b.fptrunc(odd, half), order), into, align=4)


def add_pairs(v: Vectors, a: Any, b: Any, total: Any) -> Any:
    """total + a b of both numbers of each lane."""
    pairs, name = ir.VectorType(BFLOAT, 2 * v.lanes), "llvm.x86.avx512bf16.dpbf16ps.512"
    module = v.b.module
    if name not in module.globals:
        ir.Function(module, ir.FunctionType(v.type, [v.type, pairs, pairs]), name)
    return v.b.call(module.globals[name], [total, v.b.bitcast(a, pairs), v.b.bitcast(b, pairs)])


def write_narrow(w: Loops, panels: Any, blocks: Any, depth: Any, step: Any) -> None:
    """Narrow panels of float32 in place: of each block, pairs of rows; the last is beside zeros if it is odd."""
    b, lanes = w.b, w.target.lanes
    with w.loop(blocks) as block:
        first = w.at(panels, b.mul(block, b.mul(depth, step)))
        with w.loop(w.ceiling(depth, 2)) as pair, w.loop(b.udiv(step, LONG(lanes))) as vector:
            here = b.mul(vector, LONG(lanes))
            even, odd = (w.load(w.at(first, b.mul(row, step), here)) for row in _both(w, pair, depth))
            _store_pairs(w, even, odd, pair, depth, w.at(first, b.mul(pair, step), here))
    b.ret_void()
