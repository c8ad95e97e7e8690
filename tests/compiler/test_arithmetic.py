"""The vector arithmetic against float64 over the whole range of float32."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from llvmlite import ir
from torch.nn import functional as F

from carousel.compiler import objects
from carousel.compiler.arithmetic import FLOAT, LONG, POINTER
from carousel.compiler.blocks import Loops

TINY = 2.0**-126


@cache
def compiled(name: str, attr: float | None = None) -> tuple[Any, Any]:
    """void f(float *x, float *y, int64 vectors)."""
    target = objects.processor().target
    module = ir.Module(name)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER, POINTER, LONG]), "f")
    loops = Loops(function, target)
    x, y, vectors = function.args
    with loops.loop(vectors) as k:
        at = loops.b.mul(k, LONG(target.lanes))
        value = loops.load(loops.b.gep(x, [at], source_etype=FLOAT))
        value = getattr(loops.v, name)(value, *([] if attr is None else [attr]))
        loops.store(value, loops.b.gep(y, [at], source_etype=FLOAT))
    loops.b.ret_void()
    library = objects.library(str(module))
    return library, library.function("f", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


def apply(name: str, x: torch.Tensor, attr: float | None = None) -> torch.Tensor:
    lanes = objects.processor().target.lanes
    padded = torch.cat([x, x.new_ones(-len(x) % lanes)])
    y = torch.empty_like(padded)
    compiled(name, attr)[1](padded.data_ptr(), y.data_ptr(), len(padded) // lanes)
    return y[: len(x)]


def numbers() -> torch.Tensor:
    """Every 4099th of all float32, subnormals, infinities and NaN among them, and many of ordinary size."""
    every = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32).copy()
    special = [0.0, -0.0, 1e-45, -1e-45, TINY, -TINY, math.inf, -math.inf, math.nan, 1.0, -1.0, 20.0, 88.72284, -87.34]
    ordinary = np.concatenate([np.linspace(-20, 20, 200_001), np.linspace(-104, 90, 100_001)])
    return torch.from_numpy(np.concatenate([every, np.float32(special), np.float32(ordinary)]))


def ulps(got: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest error in units in the last place; subnormal results count from the smallest normal number."""
    finite = exact.abs() < torch.finfo(torch.float32).max
    spacing = 2.0 ** (torch.floor(torch.log2(exact.abs().clamp(min=TINY))) - 23)
    return float(((got.double() - exact).abs() / spacing)[finite & ~exact.isnan()].max())


BOUNDS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float | None, float]] = {
    "exp": (torch.exp, None, 3.0),
    "log": (torch.log, None, 1.5),
    "tanh": (torch.tanh, None, 8.0),
    "softplus": (lambda x: torch.clamp(x, min=0) + torch.log1p(torch.exp(-x.abs())), None, 4.0),
    "elu": (lambda x: F.elu(x, 0.7), 0.7, 8.0),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_within_a_few_units_in_the_last_place(name: str) -> None:
    exact, attr, bound = BOUNDS[name]
    x = numbers()
    got, wanted = apply(name, x, attr), exact(x.double())
    assert torch.equal(got.isnan(), wanted.isnan())
    assert torch.equal(got.isinf(), wanted.abs() >= 2.0**128 * (1 - 2.0**-25))
    tiny = (x.abs() < 1e-34) & (name in ("tanh", "elu")) | (x < -87) & (name == "softplus")
    assert ulps(got[~tiny], wanted[~tiny]) <= bound
    if tiny.any():  # where a step on the way is subnormal
        assert float((got.double() - wanted)[tiny].abs().max()) < 1.2e-38


def test_sigmoid() -> None:
    x = numbers()
    got, wanted = apply("sigmoid", x), torch.sigmoid(x.double())
    assert torch.equal(got.isnan(), x.isnan())
    assert ulps(got[x >= -87], wanted[x >= -87]) <= 4.0
    assert float((got.double() - wanted)[~x.isnan()].abs().max()) <= 1.2e-7
    assert (got[~x.isnan()] >= 0).all() and (got[~x.isnan()] <= 1).all()


@pytest.mark.parametrize("exponent", [1.5, -0.5, 0.1, 2.3])
def test_pow(exponent: float) -> None:
    x = numbers()
    got, wanted = apply("pow", x, exponent), torch.pow(x.double(), exponent)
    assert torch.equal(got.isnan(), (x < 0) | x.isnan())  # -inf too, as of the other negative numbers
    inside = (wanted > 1e-37) & (wanted < 1e38)
    # An error of log by half a unit in the last place counts `exponent · log x` times.
    relative = ((got.double() - wanted).abs() / wanted)[inside]
    assert float((relative / (2e-7 * (1 + wanted[inside].log().abs()))).max()) < 1
    assert float(apply("pow", torch.tensor([0.0]), exponent)) == (0.0 if exponent > 0 else math.inf)


@pytest.mark.parametrize("name", ["relu", "sign", "abs", "neg", "sqrt"])
def test_exact_operations_are_those_of_torch(name: str) -> None:
    x = numbers()
    got, wanted = apply(name, x), getattr(torch, name)(x.double()).float()
    assert torch.equal(got.isnan(), wanted.isnan()) or name == "sign"
    numbers_only = ~x.isnan()
    assert torch.equal(got[numbers_only].nan_to_num(7), wanted[numbers_only].nan_to_num(7))
