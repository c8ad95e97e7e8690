"""From a plan to LLVM IR: one function that runs the whole time loop for some of the sequences.

    void loop(int64 *table)

        for t in time:                                          backwards for a derivative
            for each pass:
                for each block of columns:
                    for each block of sequences:                as many as fit in registers
                        tile = products of the block            `product_…` below
                        for each sequence and column vector:    the epilogue: everything pointwise, stores, sums

`table` holds what `Kernel.entries` lists: addresses, lengths of rows, widths. Sizes are read there, so that one
compiled kernel serves every size of its cell, but for two choices made when it is written: whether all widths are
whole vectors, and how many vectors wide the block of columns is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from llvmlite import ir

from carousel.compiler import objects
from carousel.compiler.arithmetic import BIT, FLOAT, INT, LONG, POINTER
from carousel.compiler.bfloat16 import write_narrow_product
from carousel.compiler.blocks import Loops, Target, column_vectors, write_product
from carousel.compiler.graph import Node
from carousel.compiler.plan import ALL, BEFORE, CARRY, SEQUENCE, STEP, Buffer, Call, Pass, Plan

Entry = tuple[Any, ...]  # what one word of the table is: ("address", buffer), ("stride", ...), ("width", w), ...


@dataclass
class Kernel:
    """The code of one time loop, and the words of the table it reads."""

    name: str
    ir: str
    entries: list[Entry] = field(default_factory=list)

    def dumps(self) -> str:
        return json.dumps([self.name, self.ir, self.entries], default=vars)

    @classmethod
    def loads(cls, text: str) -> Kernel:
        name, code, entries = json.loads(text, object_hook=_buffer)
        return cls(name, code, [_tuples(entry) for entry in entries])


def _buffer(found: dict[str, Any]) -> Any:
    return Buffer(**{name: _tuples(value) for name, value in found.items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def emit(name: str, plan: Plan, target: Target, *, backward: bool) -> Kernel:
    """The kernel of a plan, written now or at some earlier time."""
    key = f"{name} {target} {plan.graph.nodes} {plan.passes} {plan.reads} {plan.homes}"
    return Kernel.loads(objects.text(key, lambda: _Writer(name, plan, target, backward).write().dumps()))


@dataclass
class _Block:
    """Where an epilogue stands: its block of columns, its sequence, what it has computed."""

    column: Any  # the first column, of the vector at hand
    row: Any
    tile: Any  # the tile's row for the sequence at hand, at the vector at hand
    mask: Any  # None if the vector is whole
    first: Any  # whether this is the first vector of the row
    values: dict[Node, Any] = field(default_factory=dict)


class _Writer(Loops):
    def __init__(self, name: str, plan: Plan, target: Target, backward: bool) -> None:
        self.plan, self.backward = plan, backward
        self.module = ir.Module(name)
        self.kernel = Kernel(name, "")
        self.words: dict[Entry, Any] = {}
        self.products: dict[tuple[int, int], ir.Function] = {}
        self.inverse: dict[int, Any] = {}
        signature = ir.FunctionType(ir.VoidType(), [POINTER])
        super().__init__(ir.Function(self.module, signature, name), target)
        (self.table,) = self.function.args
        self.entry = self.b.block
        self.steps, self.sizes, self.batch = self.word("steps"), self.word("sizes"), self.word("batch")
        self.first, self.last = self.word("first"), self.word("last")

    def write(self) -> Kernel:
        body = self.function.append_basic_block("body")
        self.b.position_at_end(body)
        self.time_loop()
        self.b.ret_void()
        ir.IRBuilder(self.entry).branch(body)
        self.kernel.ir = str(self.module)
        return self.kernel

    # The table.

    def word(self, *entry: Any) -> Any:
        """A word of the table, read at the function's entry."""
        if entry not in self.words:
            place = len(self.kernel.entries)
            self.kernel.entries.append(entry)
            at_entry = ir.IRBuilder(self.entry)
            address = at_entry.gep(self.table, [LONG(place)], source_etype=LONG)
            value = at_entry.load(address, typ=LONG)
            if entry[0] in ("address", "initial", "panel", "lanes", "sizes"):
                value = at_entry.inttoptr(value, POINTER)
            self.words[entry] = value
        return self.words[entry]

    def width(self, width: int) -> Any:
        return LONG(1) if width == 1 else self.word("width", width)

    # The loops.

    def time_loop(self) -> None:
        base_at = ir.IRBuilder(self.entry).alloca(LONG)
        self.b.store(self.word("rows") if self.backward else LONG(0), base_at)
        with self.loop(self.steps) as turn:
            t = self.b.sub(self.b.sub(self.steps, LONG(1)), turn) if self.backward else turn
            size = self.load_long(self.sizes, t)
            base = self.b.load(base_at, typ=LONG)
            if self.backward:
                base = self.b.sub(base, size)
                self.b.store(base, base_at)
            self.enter_step(t, base)
            last = self.least(size, self.last)
            with self.b.if_then(self.b.icmp_signed("<", self.first, last)):  # these sequences may all have ended
                for one in self.plan.passes:
                    self.sweep(one, last)
                self.add_column_sums()
            if not self.backward:
                self.b.store(self.b.add(base, size), base_at)

    def load_long(self, pointer: Any, index: Any) -> Any:
        return self.b.load(self.b.gep(pointer, [index], source_etype=LONG), typ=LONG)

    def enter_step(self, t: Any, base: Any) -> None:
        """Where the rows of this step begin, by kind."""
        self.is_start = self.b.icmp_signed("==", t, LONG(0))
        with self.b.if_else(self.is_start) as (start, later):
            with start:
                start_block = self.b.block
            with later:
                size_before = self.load_long(self.sizes, self.b.sub(t, LONG(1)))
                before = self.b.sub(base, size_before)
                later_block = self.b.block
        base_before = self.b.phi(LONG)
        base_before.add_incoming(LONG(0), start_block)
        base_before.add_incoming(before, later_block)
        odd = self.b.and_(t, LONG(1))
        written = self.b.mul(odd, self.batch)
        read = self.b.mul(self.b.xor(odd, LONG(1)), self.batch)
        self.bases = {STEP: base, BEFORE: base_before, "read": read, "written": written, SEQUENCE: LONG(0)}
        self.pointers: dict[Buffer, Any] = {}
        for buffer in dict.fromkeys(self.plan.reads.values()):
            if buffer.rows == BEFORE:
                self.pointers[buffer] = self.b.select(
                    self.is_start, self.word("initial", buffer), self.word("address", buffer)
                )

    def sweep(self, one: Pass, last: Any) -> None:
        target, accumulators = self.target, len(one.products)
        widest = max((len(call.weights) for call in one.calls), default=1)
        vectors = column_vectors(target, one.width, widest) if one.calls else -(-one.width // target.lanes)
        block = vectors * target.lanes
        whole = one.width % target.lanes == 0
        row_words = max(accumulators, 1) * block
        rows = target.rows(max(widest * vectors, 1))
        tile = None
        if one.calls:
            tile = ir.IRBuilder(self.entry).alloca(ir.ArrayType(FLOAT, rows * row_words))
            tile.align = 64
        width = self.width(one.width)
        shares = self.shares(self.b.sub(last, self.first), rows)
        with self.loop(self.ceiling(width, block)) as j:
            column = self.b.mul(j, LONG(block))
            inside = self.least(LONG(vectors), self.ceiling(self.b.sub(width, column), target.lanes))
            panels = [self.panel(call, one.width, vectors, j) for call in one.calls]
            with self.each_share(shares) as (offset, height):
                start = self.b.add(self.first, offset)
                done: set[int] = set()
                for call, panel in zip(one.calls, panels, strict=True):
                    self.call_product(call, panel, tile, row_words, vectors, start, height, done)
                with self.loop(height) as r, self.loop(inside) as vector:
                    at = self.b.add(self.b.mul(r, LONG(row_words)), self.b.mul(vector, LONG(target.lanes)))
                    here = self.b.add(column, self.b.mul(vector, LONG(target.lanes)))
                    mask = None if whole else self.tail_mask(self.b.sub(width, here))
                    first = self.b.icmp_signed("==", here, LONG(0))
                    self.epilogue(one, _Block(here, self.b.add(start, r), (tile, at), mask, first), block)
        if one.sums:
            self.finish_sums(one, last)

    # Products.

    def panel(self, call: Call, width: int, vectors: int, j: Any) -> Any:
        """The packed weights of a block of columns."""
        pointer = self.word("panel", call.weights, call.inner, width, vectors)
        size = self.b.mul(self.width(call.inner), LONG(len(call.weights) * vectors * self.target.lanes))
        return self.b.gep(pointer, [self.b.mul(j, size)], source_etype=FLOAT)

    def call_product(
        self, call: Call, panel: Any, tile: Any, row_words: int, vectors: int, start: Any, height: Any, done: set[int]
    ) -> None:
        block = vectors * self.target.lanes
        members = set(range(call.first, call.first + len(call.weights)))
        fresh = not members & done
        assert fresh or members <= done, "accumulators of one call begin together"
        done |= members
        stride = self.stride(call.operand)
        source = self.b.gep(
            self.pointer(call.operand),
            [self.row_offset(call.operand, start, written=call.computed)],
            source_etype=FLOAT,
        )
        into = self.b.gep(tile, [LONG(call.first * block)], source_etype=FLOAT)
        function = self.product(len(call.weights) * vectors, row_words)
        more = ir.Constant(BIT, not fresh)
        self.b.call(function, [source, stride, LONG(1), height, panel, self.width(call.inner), into, more])

    def product(self, vectors: int, row_words: int) -> ir.Function:
        """tile[r, :] (+)= Σ_k source[r, k] panel[k, :] for some rows and so many vectors of columns."""
        key = (vectors, row_words)
        if key not in self.products:
            most = self.target.rows(vectors)
            write = write_narrow_product if self.target.narrow else write_product
            self.products[key] = write(self.module, self.target.lanes, vectors, row_words, most)
        return self.products[key]

    # Addresses.

    def pointer(self, buffer: Buffer) -> Any:
        return self.pointers[buffer] if buffer in self.pointers else self.word("address", buffer)

    def stride(self, buffer: Buffer) -> Any:
        kind, key = buffer.stride
        return self.width(key) if kind == "columns" else self.word("stride", kind, key)

    def row_offset(self, buffer: Buffer, row: Any, *, written: bool = False) -> Any:
        rows = buffer.rows
        if rows == CARRY:
            rows = "written" if written else "read"
        return self.b.mul(self.b.add(self.bases[rows], row), self.stride(buffer))

    def address(self, buffer: Buffer, block: _Block, *, written: bool = False) -> Any:
        """The address of the vector at hand."""
        key = (buffer.rows, buffer.stride, written and buffer.rows == CARRY, buffer.width == 1)
        offset = self.offsets.get(key)
        if offset is None:
            column = LONG(0) if buffer.width == 1 else block.column
            if buffer.rows == ALL:
                offset = column
            else:
                offset = self.b.add(self.row_offset(buffer, block.row, written=written), column)
            self.offsets[key] = offset
        return self.b.gep(self.pointer(buffer), [offset], source_etype=FLOAT)

    # The epilogue.

    def epilogue(self, one: Pass, block: _Block, block_words: int) -> None:
        self.offsets: dict[Any, Any] = {}
        self.one, self.block_words = one, block_words
        for node, buffer in one.sums:
            self.add_to_sum(node, buffer, block)
        for node, buffer in one.stores:
            self.store_value(self.value(node, block), self.address(buffer, block, written=True), buffer, block)
        for node, buffer in one.column_sums:
            address = self.address(buffer, block)
            total = self.v.add(self.load(address, block.mask), self.value(node, block))
            self.store_value(total, address, buffer, block)

    def value(self, node: Node, block: _Block) -> Any:
        if node not in block.values:
            block.values[node] = self.compute(node, block)
        return block.values[node]

    def compute(self, node: Node, block: _Block) -> Any:
        if node.op == "constant":
            return self.v.constant(node.attr)
        if node.op == "per_width":
            return self.v.splat(self.per_width(node.attr))
        if node in self.one.products:
            tile, at = block.tile
            place = self.one.products.index(node) * self.block_words
            address = self.b.gep(tile, [self.b.add(at, LONG(place))], source_etype=FLOAT)
            return self.b.load(address, typ=self.v.type, align=64)
        buffer = self.plan.reads.get(node)
        earlier = buffer is None and self.plan.level[node] < self.one.level
        if earlier:
            buffer = self.plan.homes.get(node)
        if buffer is not None:
            address = self.address(buffer, block, written=earlier)
            if node.width == 1 and self.one.width != 1:
                return self.v.splat(self.b.load(address, typ=FLOAT))
            return self.load(address, block.mask)
        if node.op in ("spread", "gauged"):
            return self.value(node.args[0], block)
        args = [self.value(arg, block) for arg in node.args]
        extra = [] if node.attr is None else [node.attr]
        return getattr(self.v, node.op)(*args, *extra)

    def per_width(self, width: int) -> Any:
        """1 / width, computed once."""
        if width not in self.inverse:
            whole = self.width(width)
            at_entry = ir.IRBuilder(self.entry)
            self.inverse[width] = at_entry.fdiv(ir.Constant(FLOAT, 1.0), at_entry.sitofp(whole, FLOAT))
        return self.inverse[width]

    def store_value(self, value: Any, address: Any, buffer: Buffer, block: _Block) -> None:
        if buffer.width == 1 and self.one.width != 1:
            self.b.store(self.b.extract_element(value, INT(0)), address)
        else:
            self.store(value, address, block.mask)

    # Sums over the columns of a row, and over all rows of a column.

    def lanes_address(self, buffer: Buffer, row: Any) -> Any:
        """Where the lanes of a row's sum are gathered."""
        pointer = self.word("lanes", buffer)
        return self.b.gep(pointer, [self.b.mul(row, LONG(self.target.lanes))], source_etype=FLOAT)

    def add_to_sum(self, node: Node, buffer: Buffer, block: _Block) -> None:
        (arg,) = node.args
        neutral = self.v.constant(0.0 if node.op == "sum" else float("-inf"))
        value = self.value(arg, block)
        if block.mask is not None:
            value = self.b.select(block.mask, value, neutral)
        address = self.lanes_address(buffer, block.row)
        so_far = self.b.load(address, typ=self.v.type, align=4)
        so_far = self.b.select(block.first, neutral, so_far)
        total = self.v.add(so_far, value) if node.op == "sum" else self.v.maximum(so_far, value)
        self.b.store(total, address, align=4)

    def finish_sums(self, one: Pass, last: Any) -> None:
        with self.loop(last, self.first) as row:
            for node, buffer in one.sums:
                lanes = self.b.load(self.lanes_address(buffer, row), typ=self.v.type, align=4)
                address = self.b.gep(self.word("address", buffer), [row], source_etype=FLOAT)
                self.b.store(self.v.across(node.op, lanes), address)

    def add_column_sums(self) -> None:
        """Add this step's sums to the total: summed in two stages, long sequences keep their accuracy."""
        for one in self.plan.passes:
            for _, buffer in one.column_sums:
                partial, total = self.word("address", buffer), self.word("address", _total_of(buffer))
                with self.loop(self.width(buffer.width)) as column:
                    from_, to = (self.b.gep(p, [column], source_etype=FLOAT) for p in (partial, total))
                    added = self.b.fadd(self.b.load(to, typ=FLOAT), self.b.load(from_, typ=FLOAT))
                    self.b.store(added, to)
                    self.b.store(ir.Constant(FLOAT, 0.0), from_)


def _total_of(partial: Buffer) -> Buffer:
    return Buffer("column_total", partial.key, ALL, partial.width)
