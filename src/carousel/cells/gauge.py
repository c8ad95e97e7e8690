"""The gradient of a value inside a step, read and cut on its way back through time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary


def gauged(value: Tensor, reading: Tensor, limit: float = math.inf, by: str = "norm") -> Tensor:
    """The value itself; in the backward pass the size of its gradient, for each sequence, and the gradient cut to it.

        n = ‖g‖₂,      g ← g · min(1, limit / n)                   (by "norm")
        n = max |g|,   g ← min(limit, max(−limit, g))              (by "value")

    Args:
        value: (B, ...).
        reading: (B, 1), see `Readings`: n, from before the cut, is what comes out as the gradient of it.

    The compiler knows it: in a compiled loop n is a number that the backward loop writes for each step and sequence.

    >>> value, reading = torch.tensor([[3.0, 4.0]], requires_grad=True), torch.zeros(1, 1, requires_grad=True)
    >>> gauged(value, reading, limit=2.5).backward(torch.tensor([[3.0, 4.0]]))
    >>> reading.grad, value.grad
    (tensor([[5.]]), tensor([[1.5000, 2.0000]]))
    """
    if has_torch_function_unary(value):  # a tracer, which notes the call
        result: Tensor = handle_torch_function(gauged, (value,), value, reading, limit, by)
    elif not value.is_floating_point():
        result = value
    else:
        result = _Gauged.apply(value, reading, limit, by)  # type: ignore[no-untyped-call]
    return result


def gauged_whole(value: Tensor, reading: Tensor) -> Tensor:
    """The value; for the compiler a mark that all of its gradient is to be read.

    That is with what comes by way of other values of the same step, as the c of an LSTM is in its h. Eagerly it would
    be too late to look, and nothing is read.
    """
    if has_torch_function_unary(value):
        result: Tensor = handle_torch_function(gauged_whole, (value,), value, reading)
        return result
    return value


class _Gauged(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, reading: Tensor, limit: float, by: str) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, _, ctx.limit, ctx.by = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        order = 2 if ctx.by == "norm" else math.inf
        size = torch.linalg.vector_norm(grad.flatten(1), order, dim=1, keepdim=True)
        if ctx.by == "value":
            grad = grad.clamp(-ctx.limit, ctx.limit)
        elif ctx.limit < math.inf:
            grad = grad * (ctx.limit / size).clamp(max=1).view(-1, *[1] * (grad.dim() - 1))
        return grad, size, None, None

    @staticmethod
    def jvp(ctx: Any, value: Tensor, *others: Any) -> Tensor:
        return value.view_as(value)


class Readings(nn.Module):
    """What `gauged` reads into: a zero for each row of the inputs, made anew at each call.

        value = gauged(value, self.readings(x))                     # in a step

    Args:
        take: given each of them, all rows of a compiled loop at once or those of one step after another. They are
            leaves: after `backward` their `grad` is what was read. Where PyTorch looks through the call
            (`torch.compile`, `torch.func`), and without gradients, nothing is given.
    """

    def __init__(self, take: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._take = take

    def forward(self, x: Tensor) -> Tensor:
        reading = x.new_zeros(len(x), 1)
        if torch.is_grad_enabled() and not (torch.compiler.is_compiling() or _looked_through()):
            self._take(reading.requires_grad_())
        return reading


def _looked_through() -> bool:
    return torch._C._functorch.peek_interpreter_stack() is not None or torch._C._get_tracing_state() is not None
