"""Matrix products by the same code that runs the loops.

    C (+)= A B + bias,      A: (M, K), B: (K, N), any strides

in blocks of K that keep a panel of B in the nearest cache, and blocks of M that keep those rows of A in the next. On
the processors this was measured on it is faster than the product of PyTorch, see docs/how-the-compiler-works.md.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch
from llvmlite import ir
from torch import Tensor

from carousel.compiler import objects
from carousel.compiler.arithmetic import BIT, FLOAT, LONG, POINTER
from carousel.compiler.blocks import Loops, Target, write_pack, write_product

INNER = 256  # of K at a time
ROWS = 192  # of M at a time


def product(
    a: Tensor, b: Tensor, bias: Tensor | None = None, into: Tensor | None = None, *, add: bool = False
) -> Tensor:
    """a @ b, plus a bias (N,), written or added into `into` (M, N)."""
    (M, K), N = a.shape, b.shape[1]
    if into is None:
        into = torch.empty(M, N)
    library = _library()
    step = 4 * objects.processor().target.lanes
    blocks = -(-N // step)
    zeros = torch.zeros(N)
    panel = torch.empty(blocks * step * min(K, INNER))
    for first in range(0, K, INNER):
        inner = min(INNER, K - first)
        library["pack"](
            b.data_ptr() + 4 * first * b.stride(0), b.stride(1), b.stride(0), N, inner, 4, step, panel.data_ptr()
        )
        library["multiply"](
            a.data_ptr() + 4 * first * a.stride(1), a.stride(0), a.stride(1), panel.data_ptr(), inner, M, N,
            into.data_ptr(), into.stride(0), (zeros if bias is None or first else bias).data_ptr(), first > 0 or add,
        )  # fmt: skip
    return into


@cache
def _library() -> dict[str, Any]:
    target = objects.processor().target
    module = ir.Module("matrix")
    write_pack(module, target.lanes)
    write_multiply(module, target)
    code = objects.library(str(module))
    word, pointer = ctypes.c_int64, ctypes.c_void_p
    pack = code.function("pack", pointer, *[word] * 6, pointer)
    arguments = [pointer, word, word, pointer, word, word, word, pointer, word, pointer, ctypes.c_bool]
    return {"pack": pack, "multiply": code.function("multiply", *arguments)}


def write_multiply(module: ir.Module, target: Target) -> None:
    """void multiply(A, row stride, inner stride, panels, K, M, N, C, row stride, bias or null, add to C?)"""
    signature = ir.FunctionType(
        ir.VoidType(),
        [POINTER, LONG, LONG, POINTER, LONG, LONG, LONG, POINTER, LONG, POINTER, BIT],
    )
    function = ir.Function(module, signature, "multiply")
    a, a_row, a_inner, panels, inner, M, N, c, c_row, bias, add = function.args
    loops = Loops(function, target)
    b, lanes, vectors = loops.b, target.lanes, 4
    step, rows = vectors * lanes, target.rows(vectors)
    tile = b.alloca(ir.ArrayType(FLOAT, rows * step))
    tile.align = 64
    multiply = write_product(module, lanes, vectors, step, rows)
    with loops.loop(loops.ceiling(M, ROWS)) as chunk:
        chunk_first = b.mul(chunk, LONG(ROWS))
        chunk_rows = loops.least(LONG(ROWS), b.sub(M, chunk_first))
        blocks = loops.ceiling(chunk_rows, rows)
        share, extra = b.udiv(chunk_rows, blocks), b.urem(chunk_rows, blocks)
        with loops.loop(loops.ceiling(N, step)) as j:
            column = b.mul(j, LONG(step))
            panel = b.gep(panels, [b.mul(column, inner)], source_etype=FLOAT)
            inside = loops.least(LONG(vectors), loops.ceiling(b.sub(N, column), lanes))
            with loops.loop(blocks) as k:
                start = b.add(b.mul(k, share), loops.least(k, extra))
                height = b.add(share, b.zext(b.icmp_signed("<", k, extra), LONG))
                first = b.add(chunk_first, start)
                source = b.gep(a, [b.mul(first, a_row)], source_etype=FLOAT)
                b.call(multiply, [source, a_row, a_inner, height, panel, inner, tile, ir.Constant(BIT, 0)])
                with loops.loop(height) as r, loops.loop(inside) as vector:
                    offset = b.mul(vector, LONG(lanes))
                    here = b.add(column, offset)
                    mask = loops.tail_mask(b.sub(N, here))
                    at = b.gep(tile, [b.add(b.mul(r, LONG(step)), offset)], source_etype=FLOAT)
                    value = b.load(at, typ=loops.v.type, align=64)
                    goal = b.gep(c, [b.add(b.mul(b.add(first, r), c_row), here)], source_etype=FLOAT)
                    biased = loops.load(loops.at(bias, here), mask)
                    value = loops.v.add(value, biased)
                    before = b.select(add, loops.load(goal, mask), loops.v.constant(0))
                    value = loops.v.add(value, before)
                    loops.store(value, goal, mask)
    b.ret_void()
