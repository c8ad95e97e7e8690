"""Compiled time loops as functions that PyTorch differentiates.

`unroll` is an autograd function over the operands of the loop. Where PyTorch itself must look through the call
(`torch.compile`, `torch.func`), `operator` is used instead, the same thing as an opaque operator of `torch.library`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from carousel.compiler import functional
from carousel.compiler.cpu import Program
from carousel.compiler.extent import Extent
from carousel.compiler.trace import Operands


def unroll(
    program: Program,
    operands: Operands,
    state: Sequence[Tensor],
    extent: Extent,
    threads: int,
    into: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Outputs (N, H), without a gradient `into` a given tensor, and the state after each sequence's own last step."""
    operands = Operands([_rows(tensor) for tensor in operands.inputs], operands.weights, _contiguous(operands.vectors))
    state = _contiguous(state)
    tensors = [*operands.inputs, *operands.weights, *operands.vectors, *state]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        counts = tuple(map(len, operands))
        outputs, *ends = _Unroll.apply(program, extent, threads, counts, *tensors)  # type: ignore[no-untyped-call]
    else:
        outputs, ends = program.run_inference(operands, state, extent, threads, into)
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
        kept_tensors = ctx.saved_tensors  # read once: under checkpointing it computes them
        tensors, saved = kept_tensors[:given], kept_tensors[given:]
        wanted = ctx.needs_input_grad[4:]
        grads = [grad, *grad_ends]
        if torch.is_grad_enabled() or functional.batched(grads):  # the gradient will be differentiated, or is many
            groups = (*counts, len(grad_ends))
            gradients = functional.gradients(program, ctx.extent, groups, tensors, grads, wanted)
        else:
            operands, state = _split(tensors, counts)
            fields, kept = saved[: len(state)], saved[len(state) :]
            first = {"weight": counts[0], "vector": counts[0] + counts[1]}
            found = program.run_backward(
                operands, state, fields, kept, grads, ctx.extent, ctx.threads,
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
