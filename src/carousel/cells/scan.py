"""Recurrences that are linear in their state, for all time steps at once."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor


def linear_scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """The states of a linear recurrence after every step; the same as the plain loop

        h, states = h0, []
        for a_t, b_t in zip(a, b):
            h = a_t * h + b_t
            states.append(h)
        return torch.stack(states)

    in about 2 log₂ T operations over long tensors rather than T over short ones. Two steps are one, h_2 = (a_2 a_1) h_0
    + (a_2 b_1 + b_2), so the states after every second step are those of a recurrence half as long, and the others are
    one step away (Blelloch 1990, "Prefix sums and their applications", CMU-CS-90-190). Nothing is divided and no
    logarithm taken: any a will do, zero, negative or complex, as long as its products are finite.

    Args:
        a: (T, B, ...), or what broadcasts to that; real or complex.
        b: (T, B, ...).
        h0: (B, ...), the state before the first step.

    >>> linear_scan(torch.tensor([0.5, 0.0, 2.0]), torch.ones(3), torch.tensor(4.0))
    tensor([3., 1., 3.])
    """
    dtype = reduce(torch.promote_types, (a.dtype, b.dtype, h0.dtype))
    operands = a.to(dtype).expand_as(b), b.to(dtype), h0.to(dtype)
    if torch.compiler.is_compiling():  # TorchDynamo follows no function that says its forward derivative
        return _scan(*operands)
    states: Tensor = _Scan.apply(*operands)  # type: ignore[no-untyped-call]
    return states


def _scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    T = len(b)
    first = torch.addcmul(b[:1], a[:1], h0)
    if T == 1:
        return first
    one, two = slice(0, T - 1, 2), slice(1, T, 2)
    seconds = _scan(a[two] * a[one], torch.addcmul(b[two], a[two], b[one]), h0)
    h = torch.empty_like(b)
    h[:1], h[two] = first, seconds
    h[2::2] = torch.addcmul(b[2::2], a[2::2], seconds[: (T - 1) // 2])
    return h


class _Scan(torch.autograd.Function):
    """Differentiated by the scan from the last step to the first, g_t = ∂/∂h_t + a_{t+1} g_{t+1}: only the states are
    kept, and the derivative of the derivative is the same again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
        return _scan(a, b, h0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        a, _, h0 = inputs
        ctx.save_for_backward(a, h0, output)
        ctx.save_for_forward(a, h0, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        a, h0, h = ctx.saved_tensors
        a = a.conj()
        g = linear_scan(a.roll(-1, 0).flip(0), grad.flip(0), torch.zeros_like(h0)).flip(0)
        return g * _before(h, h0).conj(), g, a[0] * g[0]

    @staticmethod
    def jvp(ctx: Any, da: Tensor, db: Tensor, dh0: Tensor) -> Tensor:
        a, h0, h = ctx.saved_tensors
        return linear_scan(a, da * _before(h, h0) + db, dh0)


def _before(h: Tensor, h0: Tensor) -> Tensor:
    """The states before every step."""
    return torch.cat([h0[None], h[:-1]])
