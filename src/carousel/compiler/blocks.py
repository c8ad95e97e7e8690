"""Loops, masks and the product of a block, in LLVM IR: what kernels are built from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from llvmlite import ir

from carousel.compiler.arithmetic import BIT, FLOAT, INT, LONG, POINTER, Vectors


@dataclass(frozen=True)
class Target:
    """What the code is made for."""

    lanes: int  # float32 in a vector
    registers: int  # accumulators that a product may hold
    narrow: bool = False  # whether products are of bfloat16 numbers

    def rows(self, vectors: int) -> int:
        """Sequences in a block, with that many accumulators for each."""
        return max(1, min(self.registers // vectors, 8))


class Loops:
    """Writes a function: `b` builds instructions, `v` vector arithmetic, at one and the same place."""

    def __init__(self, function: ir.Function, target: Target) -> None:
        self.function, self.target = function, target
        self.b = ir.IRBuilder(function.append_basic_block("entry"))
        self.v = Vectors(self.b, target.lanes)
        self.mask_type = ir.VectorType(BIT, target.lanes)

    @contextmanager
    def loop(self, stop: Any, start: Any = None) -> Iterator[Any]:
        """`for i in range(start, stop)`; nothing if that is empty."""
        start = LONG(0) if start is None else start
        before = self.b.block
        head, body, after = (self.function.append_basic_block(name) for name in ("head", "body", "after"))
        self.b.branch(head)
        self.b.position_at_end(head)
        i = self.b.phi(LONG)
        i.add_incoming(start, before)
        self.b.cbranch(self.b.icmp_signed("<", i, stop), body, after)
        self.b.position_at_end(body)
        yield i
        following = self.b.add(i, LONG(1))
        i.add_incoming(following, self.b.block)
        self.b.branch(head)
        self.b.position_at_end(after)

    def ceiling(self, a: Any, b: int) -> Any:
        return self.b.udiv(self.b.add(a, LONG(b - 1)), LONG(b))

    def least(self, a: Any, b: Any) -> Any:
        return self.b.select(self.b.icmp_signed("<", a, b), a, b)

    def at(self, pointer: Any, *offsets: Any) -> Any:
        """The address so many floats further on."""
        total = offsets[0]
        for offset in offsets[1:]:
            total = self.b.add(total, offset)
        return self.b.gep(pointer, [total], source_etype=FLOAT)

    def tail_mask(self, left: Any) -> Any:
        lanes = self.target.lanes
        count = self.v.splat(self.b.trunc(self.least(left, LONG(lanes)), INT))
        return self.b.icmp_signed("<", ir.Constant(ir.VectorType(INT, lanes), list(range(lanes))), count)

    def shares(self, count: Any, most: int) -> tuple[Any, Any, Any]:
        """`count` rows in as few blocks of at most `most` as possible, of nearly the same height."""
        blocks = self.ceiling(count, most)
        return blocks, self.b.udiv(count, blocks), self.b.urem(count, blocks)

    @contextmanager
    def each_share(self, shares: tuple[Any, Any, Any]) -> Iterator[tuple[Any, Any]]:
        """For each of these blocks, the first row and the height."""
        blocks, share, extra = shares
        with self.loop(blocks) as k:
            start = self.b.add(self.b.mul(k, share), self.least(k, extra))
            yield start, self.b.add(share, self.b.zext(self.b.icmp_signed("<", k, extra), LONG))

    def load(self, address: Any, mask: Any = None) -> Any:
        """A vector from memory; lanes outside of the mask are 0 and not read."""
        if mask is None:
            return self.b.load(address, typ=self.v.type, align=4)
        name = f"llvm.masked.load.v{self.target.lanes}f32.p0"
        function = self.declare(name, self.v.type, [POINTER, INT, self.mask_type, self.v.type])
        return self.b.call(function, [address, INT(4), mask, self.v.constant(0)])

    def store(self, value: Any, address: Any, mask: Any = None) -> None:
        if mask is None:
            self.b.store(value, address, align=4)
        else:
            name = f"llvm.masked.store.v{self.target.lanes}f32.p0"
            function = self.declare(name, ir.VoidType(), [self.v.type, POINTER, INT, self.mask_type])
            self.b.call(function, [value, address, INT(4), mask])

    def declare(self, name: str, returns: Any, args: Sequence[Any]) -> Any:
        module = self.function.module
        if name in module.globals:
            return module.globals[name]
        return ir.Function(module, ir.FunctionType(returns, args), name)


@cache
def column_vectors(target: Target, width: int, accumulators: int) -> int:
    """How many vectors of columns a block has: enough accumulators to keep the arithmetic busy, little left over."""
    total = -(-width // target.lanes)

    def cost(vectors: int) -> float:
        accumulated = vectors * accumulators
        rows = target.rows(accumulated)
        loads = accumulated + rows / 2
        return -(-total // vectors) * max(rows * accumulated, loads) / rows

    return min(range(1, max(1, min(total, 4 // accumulators)) + 1), key=lambda vectors: (cost(vectors), -vectors))


def write_product(
    module: ir.Module, lanes: int, vectors: int, row_words: int, most: int, add_product: Any = Vectors.fma
) -> ir.Function:
    """tile[r, :] (+)= Σ_k source[r · by_row + k · by_inner] panel[k, :] for up to `most` rows.

    void product(float *source, int64 by_row, int64 by_inner, int64 rows, float *panel, int64 inner, float *tile,
                 bool more)

    Args:
        add_product: what is done with the numbers of source and panel.
    """
    signature = ir.FunctionType(ir.VoidType(), [POINTER, LONG, LONG, LONG, POINTER, LONG, POINTER, BIT])
    function = ir.Function(module, signature, f"product_{vectors}_{row_words}")
    function.linkage = "internal"
    function.attributes.add("noinline")
    for place in (0, 4, 6):
        function.args[place].add_attribute("noalias")
    rows = function.args[3]
    b = ir.IRBuilder(function.append_basic_block("entry"))
    done = function.append_basic_block("done")
    ir.IRBuilder(done).ret_void()
    switch = b.switch(rows, done)
    for height in range(1, most + 1):
        block = function.append_basic_block(f"rows{height}")
        switch.add_case(LONG(height), block)
        _write_block(function, ir.IRBuilder(block), lanes, vectors, row_words, height, done, add_product)
    return function


def _write_block(
    function: ir.Function, b: ir.IRBuilder, lanes: int, vectors: int, row_words: int, height: int, done: Any, add: Any
) -> None:
    source, by_row, by_inner, _, panel, inner, tile, more = function.args
    v = Vectors(b, lanes)
    rows = [b.gep(source, [b.mul(by_row, LONG(r))], source_etype=FLOAT) for r in range(height)]
    places = [(r, c) for r in range(height) for c in range(vectors)]
    addresses = {(r, c): b.gep(tile, [LONG(r * row_words + c * lanes)], source_etype=FLOAT) for r, c in places}
    begin, load_tile, loop = (function.append_basic_block(name) for name in ("begin", "load", "loop"))
    b.branch(begin)
    b.position_at_end(begin)
    b.cbranch(more, load_tile, loop)
    b.position_at_end(load_tile)
    loaded = {place: b.load(addresses[place], typ=v.type, align=64) for place in places}
    b.branch(loop)
    b.position_at_end(loop)
    k = b.phi(LONG)
    k.add_incoming(LONG(0), begin)
    k.add_incoming(LONG(0), load_tile)
    along = b.phi(LONG)
    along.add_incoming(LONG(0), begin)
    along.add_incoming(LONG(0), load_tile)
    sums = {}
    for place in places:
        sums[place] = b.phi(v.type)
        sums[place].add_incoming(v.constant(0), begin)
        sums[place].add_incoming(loaded[place], load_tile)
    at = b.gep(panel, [b.mul(k, LONG(vectors * lanes))], source_etype=FLOAT)
    weights = [b.load(b.gep(at, [LONG(c * lanes)], source_etype=FLOAT), typ=v.type, align=64) for c in range(vectors)]
    added = {}
    for r in range(height):
        number = v.splat(b.load(b.gep(rows[r], [along], source_etype=FLOAT), typ=FLOAT))
        for c in range(vectors):
            added[r, c] = add(v, number, weights[c], sums[r, c])
    for place in places:
        sums[place].add_incoming(added[place], loop)
    following = b.add(k, LONG(1))
    k.add_incoming(following, loop)
    along.add_incoming(b.add(along, by_inner), loop)
    end = function.append_basic_block("end")
    b.cbranch(b.icmp_signed("<", following, inner), loop, end)
    b.position_at_end(end)
    for place in places:
        b.store(added[place], addresses[place], align=64)
    b.branch(done)


def write_pack(module: ir.Module, target: Target) -> ir.Function:
    """Lay out a matrix as products read it.

    void lay_out(float *matrix, int64 by_column, int64 by_inner, int64 columns, int64 inner, int64 depth,
                 int64 vectors, int64 step, float *panel)

    panel[(j · depth + k) · step + c] = matrix[(j · vectors · lanes + c) · by_column + k · by_inner], 0 past the
    last column, for c within `vectors` vectors. Whole squares go through registers.
    """
    signature = ir.FunctionType(ir.VoidType(), [POINTER, *[LONG] * 7, POINTER])
    function = ir.Function(module, signature, "lay_out")
    function.linkage = "internal"
    w = Loops(function, target)
    b, lanes = w.b, target.lanes
    matrix, by_column, by_inner, columns, inner, depth, vectors, step, panel = function.args
    block = b.mul(vectors, LONG(lanes))
    across, along = b.icmp_signed("==", by_column, LONG(1)), b.icmp_signed("==", by_inner, LONG(1))
    squares = b.select(along, b.udiv(inner, LONG(lanes)), LONG(0))
    with w.loop(b.udiv(b.add(columns, b.sub(block, LONG(1))), block)) as j, w.loop(vectors) as part:
        first = b.add(b.mul(j, block), b.mul(part, LONG(lanes)))
        whole = b.icmp_signed("<=", b.add(first, LONG(lanes)), columns)
        source = w.at(matrix, b.mul(first, by_column))
        into = w.at(panel, b.mul(b.mul(j, depth), step), b.mul(part, LONG(lanes)))
        with w.loop(b.select(b.and_(whole, across), inner, LONG(0))) as k:
            w.store(w.load(w.at(source, b.mul(k, by_inner))), w.at(into, b.mul(k, step)))
        done = b.select(whole, b.mul(squares, LONG(lanes)), LONG(0))
        with w.loop(b.select(whole, squares, LONG(0))) as square:
            k = b.mul(square, LONG(lanes))
            rows = [w.load(w.at(source, b.mul(by_column, LONG(c)), k)) for c in range(lanes)]
            for offset, row in enumerate(w.v.transpose(rows)):
                w.store(row, w.at(into, b.mul(b.add(k, LONG(offset)), step)))
        rest = b.select(b.and_(whole, across), inner, done)
        with w.loop(b.select(b.icmp_signed("<", rest, inner), LONG(lanes), LONG(0))) as c:
            inside = b.icmp_signed("<", b.add(first, c), columns)
            number = w.at(source, b.select(inside, b.mul(c, by_column), LONG(0)))
            with w.loop(inner, rest) as k:
                value = b.load(w.at(number, b.mul(k, by_inner)), typ=FLOAT)
                value = b.select(inside, value, ir.Constant(FLOAT, 0.0))
                b.store(value, w.at(into, b.mul(k, step), c))
    b.ret_void()
    return function
