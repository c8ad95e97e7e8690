"""`W x + b` over all time steps at once, by our own product where that is the faster one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.compiler import threads

SMALL = 2**22  # multiplications below which PyTorch's product, which begins sooner, is as fast


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b: (N, M) from x: (N, K), W: (M, K), b: (M,)."""
    if not _ours(x, weight):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        result: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return result
    return _forward(x, weight, bias)


def _ours(x: Tensor, weight: Tensor) -> bool:
    return (
        x.dtype is torch.float32
        and x.device.type == "cpu"
        and type(x) in (Tensor, torch.nn.Parameter)
        and weight.dtype is torch.float32
        and x.shape[0] * weight.numel() >= SMALL
        and not torch.is_autocast_enabled("cpu")
        and torch._C._functorch.peek_interpreter_stack() is None
        and not torch.compiler.is_compiling()
        and torch.autograd.forward_ad._current_level < 0
    )


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    from carousel.compiler.matrix import product  # loads LLVM

    return product(x, weight.t(), None if bias is None else bias.contiguous(), parts=threads.available())


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _forward(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from carousel.compiler.matrix import product

        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        if torch.is_grad_enabled():  # the gradient will be differentiated
            return (
                grad @ weight if for_x else None,
                grad.t() @ x if for_weight else None,
                grad.sum(0) if for_bias else None,
            )
        parts = threads.available()
        grad = grad if grad.stride(1) == 1 else grad.contiguous()
        return (
            product(grad, weight, parts=parts) if for_x else None,
            product(grad.t(), x, parts=parts) if for_weight else None,
            grad.sum(0) if for_bias else None,
        )
