"""Matrix products by the same code that runs the loops.

    C (+)= A B + bias,      A: (M, K), B: (K, N), of any strides

in blocks: of K, so that a panel of B stays in the nearest cache, and of M, so that those rows of A stay in the next. A
that is not stored row by row is copied, a block at a time.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch
from llvmlite import ir
from torch import Tensor

from carousel.compiler import objects, threads
from carousel.compiler.arithmetic import BIT, FLOAT, LONG, POINTER
from carousel.compiler.blocks import Loops, Target, write_pack, write_product

INNER = 256  # of K at a time
ROWS = 192  # of M at a time
VECTORS = 4  # of N in a panel
WORDS = (
    "a",
    "a_row",
    "a_inner",
    "b",
    "b_inner",
    "b_column",
    "M",
    "N",
    "K",
    "c",
    "c_row",
    "bias",
    "add",
    "panels",
    "rows",
)


def product(
    a: Tensor, b: Tensor, bias: Tensor | None = None, into: Tensor | None = None, *, add: bool = False, parts: int = 1
) -> Tensor:
    """a @ b, plus a bias (N,), written or added into `into` (M, N), by so many threads.

    Each element is the same sum in the same order however many rows and threads there are.
    """
    if into is None:
        into = torch.empty(a.shape[0], b.shape[1])
    if _is_small(a, b):
        return _by_torch(a, b, bias, into, add)
    rows = -(-a.shape[0] // parts)
    share = -(-rows // 6) * 6  # whole blocks
    held: list[Tensor] = []
    tables = [
        _table(a[first : first + share], b, bias, into[first : first + share], add, held)
        for first in range(0, a.shape[0], share)
    ]
    threads.share(functions()[1], tables, (a.shape, b.shape))
    return into


def gain(parts: int) -> float:
    """How many times as fast as one thread so many are just now, measured on a product of middling size."""
    a, b, into = torch.ones(768, 512), torch.ones(512, 512), torch.empty(768, 512)
    times = {}
    for count in (1, parts):
        held: list[Tensor] = []
        rows = -(-len(a) // count)
        pieces = zip(torch.split(a, rows), torch.split(into, rows), strict=True)
        tables = [_table(piece, b, None, goal, False, held) for piece, goal in pieces]
        times[count] = min(threads.timed(functions()[1], tables) for _ in range(9))
    return times[1] / times[parts]


def _is_small(a: Tensor, b: Tensor) -> bool:
    """Whether PyTorch's product, which copies less and begins sooner, is the faster one (measured)."""
    N = b.shape[1]
    return a.numel() * N < 2**22 or N < 64 or (N < 128 and a.stride(1) != 1)


def _by_torch(a: Tensor, b: Tensor, bias: Tensor | None, into: Tensor, add: bool) -> Tensor:
    if add:
        return into.addmm_(a, b)
    return torch.mm(a, b, out=into) if bias is None else torch.addmm(bias, a, b, out=into)


def _table(a: Tensor, b: Tensor, bias: Tensor | None, into: Tensor, add: bool, held: list[Tensor]) -> Any:
    (M, K), N = a.shape, b.shape[1]
    step, inner = VECTORS * objects.processor().target.lanes, min(K, INNER)
    panels = torch.empty(-(-N // step) * step * inner)
    rows = torch.empty(min(M, ROWS) * -(-inner // step) * step) if a.stride(1) != 1 else panels
    beginning = torch.zeros(N) if bias is None else bias
    held += panels, rows, beginning
    words = (
        a.data_ptr(), *a.stride(), b.data_ptr(), *b.stride(), M, N, K, into.data_ptr(), into.stride(0),
        beginning.data_ptr(), int(add), panels.data_ptr(), rows.data_ptr(),
    )  # fmt: skip
    return (ctypes.c_int64 * len(words))(*words)


@cache
def functions() -> tuple[Any, Any]:
    """`pack` and `product`, compiled."""
    code = objects.library(objects.text("matrix", _written))
    word, pointer = ctypes.c_int64, ctypes.c_void_p
    return code.function("pack", pointer, *[word] * 6, pointer), code.function("matrix", pointer)


def _written() -> str:
    target = objects.processor().target
    module = ir.Module("matrix")
    pack = write_pack(module, target)
    multiply = write_multiply(module, target)
    write_blocks(module, target, pack, multiply)
    return str(module)


def write_blocks(module: ir.Module, target: Target, pack: ir.Function, multiply: ir.Function) -> None:
    """void matrix(int64 *table): the whole product, block by block; the table holds WORDS."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), "matrix")
    w = Loops(function, target)
    b, lanes = w.b, target.lanes
    step = VECTORS * lanes
    words = [b.load(b.gep(function.args[0], [LONG(place)], source_etype=LONG), typ=LONG) for place in range(len(WORDS))]
    a, a_row, a_inner, b_, b_inner, b_column, M, N, K, c, c_row, bias, add, panels, rows = words
    a, b_, c, bias, panels, rows = (b.inttoptr(word, POINTER) for word in (a, b_, c, bias, panels, rows))
    copied = b.icmp_signed("!=", a_inner, LONG(1))
    height_most = b.select(copied, LONG(ROWS), M)
    with w.loop(w.ceiling(K, INNER)) as k:
        first = b.mul(k, LONG(INNER))
        depth = w.least(LONG(INNER), b.sub(K, first))
        wide = b.mul(w.ceiling(depth, lanes), LONG(lanes))
        from_b = w.at(b_, b.mul(first, b_inner))
        b.call(pack, [from_b, b_column, b_inner, N, depth, LONG(VECTORS), LONG(step), panels])
        go_on = b.or_(b.icmp_signed(">", first, LONG(0)), b.icmp_signed("!=", add, LONG(0)))
        with w.loop(b.sdiv(b.add(M, b.sub(height_most, LONG(1))), height_most)) as m:
            top = b.mul(m, height_most)
            height = w.least(height_most, b.sub(M, top))
            source = w.at(a, b.mul(top, a_row), b.mul(first, a_inner))
            with b.if_then(copied):  # as one panel, the columns of which are K
                b.call(pack, [source, a_inner, a_row, depth, height, b.sdiv(wide, LONG(lanes)), wide, rows])
            taken, stride = b.select(copied, rows, source), b.select(copied, wide, a_row)
            into = w.at(c, b.mul(top, c_row))
            b.call(multiply, [taken, stride, panels, depth, height, N, into, c_row, bias, go_on])
    b.ret_void()


def write_multiply(module: ir.Module, target: Target) -> ir.Function:
    """void multiply(A, row stride, panels of B, K, M, N, C, row stride, bias, add to C instead of the bias?)"""
    signature = ir.FunctionType(ir.VoidType(), [POINTER, LONG, POINTER, LONG, LONG, LONG, POINTER, LONG, POINTER, BIT])
    function = ir.Function(module, signature, "multiply")
    a, a_row, panels, inner, M, N, c, c_row, bias, add = function.args
    w = Loops(function, target)
    b, lanes = w.b, target.lanes
    step, rows = VECTORS * lanes, target.rows(VECTORS)
    tile = b.alloca(ir.ArrayType(FLOAT, rows * step))
    tile.align = 64
    multiply = write_product(module, lanes, VECTORS, step, rows)
    with w.loop(w.ceiling(M, ROWS)) as chunk:
        chunk_first = b.mul(chunk, LONG(ROWS))
        blocks = w.shares(w.least(LONG(ROWS), b.sub(M, chunk_first)), rows)
        with w.loop(w.ceiling(N, step)) as j:
            column = b.mul(j, LONG(step))
            panel = w.at(panels, b.mul(column, inner))
            inside = w.least(LONG(VECTORS), w.ceiling(b.sub(N, column), lanes))
            with w.each_share(blocks) as (start, height):
                first = b.add(chunk_first, start)
                more = ir.Constant(BIT, 0)
                b.call(multiply, [w.at(a, b.mul(first, a_row)), a_row, height, panel, inner, tile, more])
                with w.loop(height) as r, w.loop(inside) as vector:
                    offset = b.mul(vector, LONG(lanes))
                    here = b.add(column, offset)
                    mask = w.tail_mask(b.sub(N, here))
                    value = b.load(w.at(tile, b.mul(r, LONG(step)), offset), typ=w.v.type, align=64)
                    goal = w.at(c, b.mul(b.add(first, r), c_row), here)
                    before = b.select(add, w.load(goal, mask), w.load(w.at(bias, here), mask))
                    w.store(w.v.add(value, before), goal, mask)
    b.ret_void()
    return function
