"""Ragged batches, padded to packed and back, by compiled loops over rows.

    packed (Σ sizes, w): of every step t the first sizes[t] sequences of `order`, one step below the other
    padded (T, B, w):    every sequence at its own place, zeros past its length

Each row is moved once, and the padding written in the same pass: this is memory that nobody has read lately, and a
second look at it costs as much as a tenth of a forward pass.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from torch import Tensor

from carousel.compiler import matrix, objects
from carousel.compiler.arithmetic import LONG
from carousel.compiler.blocks import Loops, Target

Numbers = np.ndarray[Any, Any]  # 64-bit integers

# The words of both tables, in order: of the sequences in their order, from the lowest to the highest are moved.
WORDS = ("padded", "by_step", "by_sequence", "order", "sizes", "steps", "width", "packed", "lowest", "highest")


def pack(padded: Tensor, order: Numbers, sizes: Sequence[int], into: Tensor) -> Tensor:
    """The real steps of a padded batch.

    >>> import torch
    >>> padded = torch.tensor([[[1.0], [2.0]], [[0.0], [3.0]]])
    >>> pack(padded, np.array([1, 0]), [2, 1], torch.empty(3, 1))[:, 0]
    tensor([2., 1., 3.])
    """
    alive = np.asarray(sizes)
    matrix.call(
        function("pack"), padded.data_ptr(), padded.stride(0), padded.stride(1), _address(order), _address(alive),
        len(sizes), padded.shape[2], into.data_ptr(), 0, padded.shape[1],
    )  # fmt: skip
    return into


def unpack(packed: Tensor, order: Numbers, sizes: Sequence[int], into: Tensor) -> Tensor:
    """The same in a batch (T, B, w), with zeros for padding.

    >>> import torch
    >>> unpack(torch.tensor([[2.0], [1.0], [3.0]]), np.array([1, 0]), [2, 1], torch.empty(3, 2, 1))[..., 0]
    tensor([[1., 2.],
            [0., 3.],
            [0., 0.]])
    """
    T, B, width = into.shape
    alive = np.zeros(T, np.int64)
    alive[: len(sizes)] = sizes
    matrix.call(
        function("unpack"), into.data_ptr(), into.stride(0), into.stride(1), _address(order), _address(alive), T,
        width, packed.data_ptr(), 0, B,
    )  # fmt: skip
    return into


def _address(numbers: Numbers) -> int:
    address: int = numbers.__array_interface__["data"][0]
    return address


@cache
def function(name: str) -> Any:
    """A compiled function of a table: "pack" or "unpack"."""
    target = objects.processor().target

    def text() -> str:
        module = ir.Module("packing")
        _write(module, target, "pack")
        _write(module, target, "unpack")
        return str(module)

    return objects.library(objects.text(f"packing {target}", text)).function(name, ctypes.c_void_p)


def _write(module: ir.Module, target: Target, name: str) -> None:
    w, words = matrix.begin(module, target, name, WORDS, "padded order sizes packed")
    padded, by_step, by_sequence, order, sizes, steps, width, packed, lowest, highest = words
    b, done_at = w.b, w.b.alloca(LONG)
    b.store(LONG(0), done_at)
    with w.loop(steps) as t:
        size, done = _number(w, sizes, t), b.load(done_at, typ=LONG)
        step = w.at(padded, b.mul(t, by_step))
        last = w.least(size, highest)
        with w.loop(last, lowest) as place:
            here = w.at(step, b.mul(_number(w, order, place), by_sequence))
            there = w.at(packed, b.mul(b.add(done, place), width))
            _move(w, width, *((here, there) if name == "pack" else (there, here)))
        if name == "unpack":
            with w.loop(highest, b.select(b.icmp_signed("<", last, lowest), lowest, last)) as place:
                _move(w, width, None, w.at(step, b.mul(_number(w, order, place), by_sequence)))
        b.store(b.add(done, size), done_at)
    b.ret_void()


def _number(w: Loops, numbers: Any, place: Any) -> Any:
    return w.b.load(w.b.gep(numbers, [place], source_etype=LONG), typ=LONG)


def _move(w: Loops, width: Any, source: Any, into: Any) -> None:
    """A row from one place to another, or zeros."""
    lanes = w.target.lanes
    with w.loop(w.b.udiv(width, LONG(lanes))) as vector:
        here = w.b.mul(vector, LONG(lanes))
        w.store(w.v.constant(0) if source is None else w.load(w.at(source, here)), w.at(into, here))
    rest = w.b.urem(width, LONG(lanes))
    with w.b.if_then(w.b.icmp_signed(">", rest, LONG(0))):
        here, mask = w.b.sub(width, rest), w.tail_mask(rest)
        w.store(w.v.constant(0) if source is None else w.load(w.at(source, here), mask), w.at(into, here), mask)
