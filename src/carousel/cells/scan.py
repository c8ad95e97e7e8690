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
    return _apply(*operands, backward=False)


def _scan(a: Tensor, b: Tensor, h0: Tensor, backward: bool = False) -> Tensor:
    """The states, from the first step to the last, or from the last to the first."""
    T = len(b)
    nearest = slice(T - 1, T) if backward else slice(0, 1)  # to h0
    start = torch.addcmul(b[nearest], a[nearest], h0)
    if T == 1:
        return start
    # Pairs of steps, and those that are left: one step after every pair, but for a last pair that nothing follows.
    one, two, left = slice(0, T - 1, 2), slice(1, T, 2), slice(2, T, 2)
    if backward:
        one, two, left = slice(T % 2 + 1, T, 2), slice(T % 2, T - 1, 2), slice(1 - T % 2, T - 2, 2)
    pairs = _scan(a[two] * a[one], torch.addcmul(b[two], a[two], b[one]), h0, backward)
    before = pairs[1 - T % 2 :] if backward else pairs[: (T - 1) // 2]
    h = torch.empty_like(b)
    h[nearest], h[two] = start, pairs
    h[left] = torch.addcmul(b[left], a[left], before)
    return h


class _Scan(torch.autograd.Function):
    """Differentiated by the scan from the last step to the first, g_t = ∂/∂h_t + a_{t+1} g_{t+1}: only the states are
    kept, and the derivative of the derivative is the same again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor, h0: Tensor, backward: bool) -> Tensor:
        return _scan(a, b, h0, backward)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        a, _, h0, ctx.backward_in_time = inputs
        ctx.save_for_backward(a, h0, output)
        ctx.save_for_forward(a, h0, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, h0, h = ctx.saved_tensors
        a, before, backward = a.conj(), _before(h, h0, ctx.backward_in_time), ctx.backward_in_time
        last, rest = (slice(0, 1), slice(1, None)) if backward else (slice(-1, None), slice(0, -1))
        factors, g = (a[:-1] if backward else a[1:]), grad[last]
        if len(grad) > 1:
            others = _apply(factors, grad[rest], g[0], not backward)
            g = torch.cat([g, others] if backward else [others, g])
        first = -1 if backward else 0
        return g * before.conj(), g, a[first] * g[first], None

    @staticmethod
    def jvp(ctx: Any, da: Tensor, db: Tensor, dh0: Tensor, _: None) -> Tensor:
        a, h0, h = ctx.saved_tensors
        return _apply(a, da * _before(h, h0, ctx.backward_in_time) + db, dh0, ctx.backward_in_time)


def _apply(a: Tensor, b: Tensor, h0: Tensor, backward: bool) -> Tensor:
    states: Tensor = _Scan.apply(a, b, h0, backward)  # type: ignore[no-untyped-call]
    return states


def _before(h: Tensor, h0: Tensor, backward: bool) -> Tensor:
    """The states before every step."""
    return torch.cat([h[1:], h0[None]] if backward else [h0[None], h[:-1]])
