"""What the operations of PyTorch are in the graph: one rule each.

A rule takes the lowering, the node of torch.fx, and the arguments of the PyTorch function; it gives a node of the
graph, or raises ValueError or TypeError if the operation is called in a form that has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import fx
from torch.nn import functional as F

from carousel.compiler.graph import Node

if TYPE_CHECKING:
    from carousel.compiler.trace import Lowering

Rule = Callable[..., Any]


class Cat(NamedTuple):
    """Columns side by side, of which a product can be taken one by one."""

    parts: list[tuple[Any, int]]  # value, width


def _pointwise(op: str) -> Rule:
    return lambda low, node, *args: low.apply(op, *args)


def _add(low: Lowering, node: fx.Node, a: Any, b: Any, *, alpha: float = 1) -> Node:
    if low.shapes[node.name].dtype == torch.bool:
        raise ValueError("of booleans")
    return low.apply("add", a, b if alpha == 1 else low.apply("mul", b, alpha))


def _sub(low: Lowering, node: fx.Node, a: Any, b: Any, *, alpha: float = 1) -> Node:
    return low.apply("sub", a, b if alpha == 1 else low.apply("mul", b, alpha))


def _addmm(low: Lowering, node: fx.Node, c: Any, a: Any, b: Any) -> Node:
    return low.apply("add", c, low.linear(low.value(a), low.transposed(b)))


def _linear(low: Lowering, node: fx.Node, input: Any, weight: Any, bias: Any = None) -> Node:
    return low.linear(low.value(input), weight, bias)


def _matmul(low: Lowering, node: fx.Node, a: Any, b: Any) -> Node:
    return low.linear(low.value(a), low.transposed(b))


def _clamp(low: Lowering, node: fx.Node, a: Any, min: Any = None, max: Any = None) -> Node:
    result = low.value(a)  # whose gradient passes at the bounds too
    if min is not None:
        result = low.apply("where", low.apply("gt", min, result), min, result)
    return result if max is None else low.apply("where", low.apply("gt", result, max), max, result)


def _hardtanh(
    low: Lowering, node: fx.Node, a: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Node:
    result = low.value(a)  # whose gradient does not pass at the bounds
    result = low.apply("where", low.apply("ge", min_val, result), min_val, result)
    return low.apply("where", low.apply("ge", result, max_val), max_val, result)


def _pow(low: Lowering, node: fx.Node, a: Any, exponent: Any) -> Node:
    if not isinstance(exponent, int | float):
        raise ValueError("an exponent that is not a number")
    base = low.value(a)
    if exponent == 0.5:
        return low.apply("sqrt", base)
    if not math.isfinite(exponent):
        raise ValueError(f"exponent {exponent}")
    if exponent == int(exponent):
        result = _whole_power(low, base, int(abs(exponent)))
        return result if exponent >= 0 else low.apply("div", 1.0, result)
    return low.apply("pow", base, attr=float(exponent))


def _whole_power(low: Lowering, base: Node, exponent: int) -> Node:
    if exponent > 64:
        raise ValueError(f"exponent {exponent}")
    if exponent <= 1:
        return base if exponent else low.graph.spread(low.graph.constant(1.0), base.width)
    half = _whole_power(low, base, exponent // 2)
    square = low.apply("mul", half, half)
    return low.apply("mul", square, base) if exponent % 2 else square


def _elu(low: Lowering, node: fx.Node, a: Any, alpha: float = 1.0, inplace: bool = False) -> Node:
    if alpha <= 0:
        raise ValueError("alpha is not positive")
    return low.apply("elu", a, attr=float(alpha))


def _relu(low: Lowering, node: fx.Node, a: Any, inplace: bool = False) -> Node:
    return low.apply("relu", a)


def _leaky_relu(low: Lowering, node: fx.Node, a: Any, negative_slope: float = 0.01, inplace: bool = False) -> Node:
    return low.apply("where", low.apply("gt", a, 0.0), a, low.apply("mul", a, negative_slope))


def _softplus(low: Lowering, node: fx.Node, a: Any, beta: float = 1, threshold: float = 20) -> Node:
    if threshold < 17:
        raise ValueError("a threshold below which it is not yet linear in float32")
    return low.apply("div", low.apply("softplus", low.apply("mul", a, beta)), beta)


def _silu(low: Lowering, node: fx.Node, a: Any, inplace: bool = False) -> Node:
    return low.apply("mul", a, low.apply("sigmoid", a))


def _softsign(low: Lowering, node: fx.Node, a: Any) -> Node:
    return low.apply("div", a, low.apply("add", 1.0, low.apply("abs", a)))


def _where(low: Lowering, node: fx.Node, condition: Any, a: Any, b: Any) -> Node:
    return low.apply("where", condition, a, b)


def _detach(low: Lowering, node: fx.Node, a: Any) -> Node:
    raise ValueError("the gradient is cut inside the step")


def _over_columns(dim: Any, keepdim: bool) -> None:
    if dim not in (1, -1, (1,), (-1,), [1], [-1]) or not keepdim:
        raise ValueError("over the hidden axis, with keepdim, only")


def _mean(low: Lowering, node: fx.Node, a: Any, dim: Any = None, keepdim: bool = False) -> Node:
    _over_columns(dim, keepdim)
    return low.graph.mean(low.value(a))


def _sum(low: Lowering, node: fx.Node, a: Any, dim: Any = None, keepdim: bool = False) -> Node:
    _over_columns(dim, keepdim)
    return low.graph.reduce("sum", low.value(a))


def _variance(low: Lowering, a: Node, correction: float) -> Node:
    away = low.graph.apply("sub", a, low.graph.mean(a))
    squares = low.graph.apply("mul", away, away)
    if correction == 0:
        return low.graph.mean(squares)
    return low.graph.apply("div", low.graph.reduce("sum", squares), low.graph.constant(a.width - correction))


def _var(
    low: Lowering,
    node: fx.Node,
    a: Any,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Node:
    _over_columns(dim, keepdim)
    return _variance(low, low.value(a), float(unbiased) if correction is None else correction)


def _std(low: Lowering, node: fx.Node, *args: Any, **options: Any) -> Node:
    variance = _var(low, node, *args, **options)
    none = low.apply("eq", variance, 0.0)  # where the gradient is 0, though the root's is infinite
    return low.apply("where", none, 0.0, low.apply("sqrt", low.apply("where", none, 1.0, variance)))


def _layer_norm(
    low: Lowering, node: fx.Node, a: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Node:
    x = low.value(a)
    if tuple(shape) != (x.width,):
        raise ValueError("not over the hidden axis alone")
    away = low.graph.apply("sub", x, low.graph.mean(x))
    variance = low.graph.mean(low.graph.apply("mul", away, away))
    scale = low.apply("div", 1.0, low.apply("sqrt", low.apply("add", variance, eps)))
    result = low.apply("mul", away, scale)
    if weight is not None:
        result = low.apply("mul", result, weight)
    return result if bias is None else low.apply("add", result, bias)


def _softmax(low: Lowering, node: fx.Node, a: Any, dim: Any = None, *_: Any, **__: Any) -> Node:
    _over_columns(dim, keepdim=True)
    x = low.value(a)
    powers = low.apply("exp", low.apply("sub", x, low.graph.reduce("max", x)))
    return low.apply("div", powers, low.graph.reduce("sum", powers))


def _dropout(
    low: Lowering, node: fx.Node, a: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Node:
    """A mask drawn before the loop, a new one for each step."""
    x: Node = low.value(a)
    if not training or p == 0:
        return x
    ones = low.prologue.call_method("new_ones", (low.copies[low.x], (_rows(low), x.width)))
    mask = low.prologue.call_function(F.dropout, (ones, p, True))
    return low.apply("mul", x, low.graph.leaf("input", (low.place("input", mask), 0), width=x.width))


def _rows(low: Lowering) -> fx.Node:
    return low.prologue.call_method("size", (low.copies[low.x], 0))


def _cat(low: Lowering, node: fx.Node, tensors: Any, dim: int = 0) -> Cat:
    if dim not in (1, -1):
        raise ValueError("over the hidden axis only")
    keep_input = [part if low.depends[part] == 1 else low.value(part) for part in tensors]
    return Cat([(value, low.width(part)) for value, part in zip(keep_input, tensors, strict=True)])


def _chunk(low: Lowering, node: fx.Node, a: Any, chunks: int, dim: int = 0) -> list[Node]:
    return _split(low, node, a, -(-low.value(a).width // chunks), dim)


def _split(low: Lowering, node: fx.Node, a: Any, sizes: Any, dim: int = 0) -> list[Node]:
    if dim not in (1, -1):
        raise ValueError("over the hidden axis only")
    x = low.value(a)
    if isinstance(sizes, int):
        sizes = [min(sizes, x.width - start) for start in range(0, x.width, sizes)]
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    return [low.graph.columns(x, start, size) for start, size in zip(starts, sizes, strict=True)]


def _getitem(low: Lowering, node: fx.Node, a: Any, index: Any) -> Any:
    if a is low.state and isinstance(index, int):
        return low.graph.leaf("state", index % len(low.cell.State._fields), width=low.width(node))
    x = low.value(a)
    if isinstance(x, list):
        return x[index]
    if (
        isinstance(index, tuple)
        and len(index) == 2
        and index[0] in (slice(None), Ellipsis)
        and isinstance(index[1], slice)
    ):
        start, stop, step = index[1].indices(x.width)
        if step == 1:
            return low.graph.columns(x, start, stop - start)
    raise ValueError(f"index {index}")


def _getattr(low: Lowering, node: fx.Node, a: Any, name: str) -> Any:
    raise ValueError(f"attribute {name!r}")


def _like(number: float) -> Rule:
    return lambda low, node, a, **_: low.graph.spread(low.graph.constant(number), low.width(node))


RULES: dict[str, Rule] = {
    **{
        name: _pointwise(name)
        for name in ("mul", "neg", "abs", "exp", "log", "sqrt", "sigmoid", "tanh", "sign", "detach")
    },
    **{name: _pointwise(name) for name in ("minimum", "maximum", "gt", "ge", "eq", "div")},
    "truediv": _pointwise("div"),
    "multiply": _pointwise("mul"),
    "negative": _pointwise("neg"),
    "absolute": _pointwise("abs"),
    "lt": lambda low, node, a, b: low.apply("gt", b, a),
    "le": lambda low, node, a, b: low.apply("ge", b, a),
    "square": lambda low, node, a: low.apply("mul", a, a),
    "reciprocal": lambda low, node, a: low.apply("div", 1.0, a),
    "rsqrt": lambda low, node, a: low.apply("div", 1.0, low.apply("sqrt", a)),
    "rsub": lambda low, node, a, b: low.apply("sub", b, a),
    "ne": lambda low, node, a, b: low.apply("sub", 1.0, low.apply("eq", a, b)),
    "logsigmoid": lambda low, node, a: low.apply("neg", low.apply("softplus", low.apply("neg", a))),
    "log_sigmoid": lambda low, node, a: low.apply("neg", low.apply("softplus", low.apply("neg", a))),
    "add": _add,
    "sub": _sub,
    "addmm": _addmm,
    "linear": _linear,
    "mm": _matmul,
    "matmul": _matmul,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": lambda low, node, a, min: _clamp(low, node, a, min),
    "clamp_max": lambda low, node, a, max: _clamp(low, node, a, None, max),
    "hardtanh": _hardtanh,
    "pow": _pow,
    "relu": _relu,
    "elu": _elu,
    "leaky_relu": _leaky_relu,
    "softplus": _softplus,
    "silu": _silu,
    "softsign": _softsign,
    "where": _where,
    "mean": _mean,
    "sum": _sum,
    "var": _var,
    "std": _std,
    "layer_norm": _layer_norm,
    "softmax": _softmax,
    "gauged": lambda low, node, value, reading, limit, by: low.apply("gauged", value, reading, attr=(limit, by)),
    "gauged_whole": lambda low, node, value, reading: low.apply("gauged_whole", value, reading),
    "dropout": _dropout,
    "cat": _cat,
    "concat": _cat,
    "chunk": _chunk,
    "split": _split,
    "getitem": _getitem,
    "getattr": _getattr,
    "zeros_like": _like(0.0),
    "ones_like": _like(1.0),
}

# What the loop rather does itself where it follows a product of the input: numbers one by one, and layer norms.
TAKEN_IN = frozenset(list(RULES)[: list(RULES).index("add")]) | {
    *("add", "sub", "clamp", "clip", "clamp_min", "clamp_max", "hardtanh", "pow", "relu", "elu", "leaky_relu"),
    *("softplus", "silu", "softsign", "where", "layer_norm"),
}
