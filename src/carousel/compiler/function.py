"""Compiled time loops as functions that PyTorch differentiates.

`unroll` is an autograd function over the operands of the loop. Where PyTorch itself must look through the call
(`torch.compile`, `torch.func`), `operator` is used instead, the same thing as an opaque operator of `torch.library`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from carousel.compiler import reference
from carousel.compiler.cpu import Program
from carousel.compiler.extent import Extent
from carousel.compiler.trace import Operands


def unroll(
    program: Program, operands: Operands, state: Sequence[Tensor], extent: Extent, threads: int
) -> tuple[Tensor, list[Tensor]]:
    """Outputs (N, H) and the state after each sequence's own last step."""
    operands = Operands([_rows(tensor) for tensor in operands.inputs], operands.weights, _contiguous(operands.vectors))
    state = _contiguous(state)
    tensors = [*operands.inputs, *operands.weights, *operands.vectors, *state]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        counts = tuple(map(len, operands))
        outputs, *ends = _Unroll.apply(program, extent, threads, counts, *tensors)  # type: ignore[no-untyped-call]
    else:
        outputs, ends = program.run_inference(operands, state, extent, threads)
    return outputs, ends


def _rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(1) == 1 or tensor.shape[1] == 1 else tensor.contiguous()


def _contiguous(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.contiguous() for tensor in tensors]


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, program: Program, extent: Extent, threads: int, counts: tuple[int, int, int], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        operands, state = _split(tensors, counts)
        fields, kept = program.run_training(operands, state, extent, threads)
        ctx.program, ctx.extent, ctx.threads, ctx.counts = program, extent, threads, counts
        ctx.save_for_backward(*tensors, *fields, *kept)
        ctx.set_materialize_grads(False)
        return fields[0], *map(extent.ends, fields)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *grad_ends: Tensor | None) -> tuple[Any, ...]:
        program, counts = ctx.program, ctx.counts
        given = sum(counts) + len(grad_ends)
        tensors, saved = ctx.saved_tensors[:given], ctx.saved_tensors[given:]
        wanted = ctx.needs_input_grad[4:]
        if torch.is_grad_enabled():  # the gradient will be differentiated
            gradients = _differentiable(ctx, tensors, wanted, [grad, *grad_ends])
        else:
            operands, state = _split(tensors, counts)
            fields, kept = saved[: len(state)], saved[len(state) :]
            first = {"weight": counts[0], "vector": counts[0] + counts[1]}
            found = program.run_backward(
                operands, state, fields, kept, [grad, *grad_ends], ctx.extent, ctx.threads,
                lambda kind, k: wanted[first[kind] + k],
            )  # fmt: skip
            gradients = [gradient for kind in found for gradient in kind]
        return None, None, None, None, *gradients


def _split(tensors: Sequence[Tensor], counts: tuple[int, int, int]) -> tuple[Operands, list[Tensor]]:
    inputs, weights, vectors = counts
    return (
        Operands(
            list(tensors[:inputs]),
            list(tensors[inputs : inputs + weights]),
            list(tensors[inputs + weights : inputs + weights + vectors]),
        ),
        list(tensors[inputs + weights + vectors :]),
    )


def _differentiable(ctx: Any, tensors: Sequence[Tensor], wanted: Sequence[bool], grads: list[Any]) -> list[Any]:
    """The gradients by PyTorch's own operations, which can be differentiated again."""
    operands, state = _split(tensors, ctx.counts)
    outputs, ends = reference.run(ctx.program.recurrence, operands, state, ctx.extent.sizes)
    pairs = [(result, g) for result, g in zip([outputs, *ends], grads, strict=True) if g is not None]
    results, given = zip(*pairs, strict=True)
    of = [tensor for tensor, want in zip(tensors, wanted, strict=True) if want]
    found = iter(torch.autograd.grad(results, of, given, create_graph=True, allow_unused=True))
    return [next(found) if want else None for want in wanted]
