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


def product(
    a: Tensor, b: Tensor, bias: Tensor | None = None, into: Tensor | None = None, *, add: bool = False, parts: int = 1
) -> Tensor:
    """a @ b, plus a bias (N,), written or added into `into` (M, N), by so many threads.

    Each element is the same sum in the same order however many rows and threads there are.
    """
    if into is None:
        into = torch.empty(a.shape[0], b.shape[1])
    if _is_small(a, b):
        _by_torch(a, b, bias, into, add)
    elif parts == 1 or a.shape[0] < 2 * ROWS:
        _multiply(a, b, bias, into, add)
    else:
        share = -(-a.shape[0] // parts)
        pieces = zip(torch.split(a, share), torch.split(into, share), strict=True)
        threads.together([lambda a=a, c=c: _multiply(a, b, bias, c, add) for a, c in pieces])  # type: ignore[misc]
    return into


def _is_small(a: Tensor, b: Tensor) -> bool:
    """Whether PyTorch's product, which copies less and begins sooner, is the faster one (measured)."""
    N = b.shape[1]
    return a.numel() * N < 2**22 or N < 64 or (N < 128 and a.stride(1) != 1)


def _by_torch(a: Tensor, b: Tensor, bias: Tensor | None, into: Tensor, add: bool) -> None:
    if add:
        into.addmm_(a, b)
    elif bias is not None:
        torch.addmm(bias, a, b, out=into)
    else:
        torch.mm(a, b, out=into)


def _multiply(a: Tensor, b: Tensor, bias: Tensor | None, into: Tensor, add: bool) -> None:
    (M, K), N = a.shape, b.shape[1]
    pack, multiply = functions()
    lanes = objects.processor().target.lanes
    step = VECTORS * lanes
    inner = min(K, INNER)
    panel = torch.empty(-(-N // step) * step * inner)
    copied = a.stride(1) != 1
    block = torch.empty(min(M, ROWS) * inner) if copied else panel
    beginning = torch.zeros(N) if bias is None else bias
    for first in range(0, K, INNER):
        depth = min(INNER, K - first)
        rows_of_b = b.data_ptr() + 4 * first * b.stride(0)
        pack(rows_of_b, b.stride(1), b.stride(0), N, depth, VECTORS, step, panel.data_ptr())
        for top in range(0, M, ROWS) if copied else (0,):
            height = min(ROWS, M - top) if copied else M
            source, stride = a.data_ptr() + 4 * (top * a.stride(0) + first * a.stride(1)), a.stride(0)
            if copied:  # as one panel of which the "columns" are K: block[m, k] = a[m, k]
                _copy_rows(pack, source, a.stride(0), a.stride(1), height, depth, block)
                source, stride = block.data_ptr(), depth
            multiply(
                source, stride, panel.data_ptr(), depth, height, N, into.data_ptr() + 4 * top * into.stride(0),
                into.stride(0), beginning.data_ptr(), first > 0 or add,
            )  # fmt: skip


def _copy_rows(pack: Any, source: int, by_row: int, by_column: int, rows: int, columns: int, into: Tensor) -> None:
    """Store a matrix of any strides row by row."""
    lanes = objects.processor().target.lanes
    whole = columns // lanes * lanes
    if whole:
        # One panel, `whole` wide, is the matrix itself.
        pack(source, by_column, by_row, whole, rows, whole // lanes, columns, into.data_ptr())
    if whole < columns:
        rest = torch.empty(rows * lanes)
        pack(source + 4 * whole * by_column, by_column, by_row, columns - whole, rows, 1, lanes, rest.data_ptr())
        into[: rows * columns].view(rows, columns)[:, whole:] = rest.view(rows, lanes)[:, : columns - whole]


@cache
def functions() -> tuple[Any, Any]:
    """`pack` and `multiply`, compiled."""
    target = objects.processor().target
    module = ir.Module("matrix")
    write_pack(module, target)
    write_multiply(module, target)
    code = objects.library(str(module))
    word, pointer = ctypes.c_int64, ctypes.c_void_p
    pack = code.function("pack", pointer, *[word] * 6, pointer)
    arguments = [pointer, word, pointer, word, word, word, pointer, word, pointer, ctypes.c_bool]
    return pack, code.function("multiply", *arguments)


def write_multiply(module: ir.Module, target: Target) -> None:
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
