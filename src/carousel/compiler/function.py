"""Compiled time loops as functions that PyTorch differentiates.

`unroll` is an autograd function over the operands of the loop, the quickest way. Where PyTorch itself must look through
the call, the same thing is `functional` under `torch.func` and `operator` under `torch.compile`.
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
    operands, state = functional.laid_out(operands), functional.contiguous(state)
    tensors = [*operands.inputs, *operands.weights, *operands.vectors, *state]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        counts = (*map(len, operands), len(state))
        outputs, *ends = _Unroll.apply(program, extent, threads, counts, *tensors)  # type: ignore[no-untyped-call]
    else:
        outputs, ends = program.run_inference(operands, state, extent, threads, into)
    return outputs, ends


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, program: Program, extent: Extent, threads: int, counts: tuple[int, ...], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        *groups, state, _ = functional.cut(tensors, counts)
        fields, kept = program.run_training(Operands(*groups), state, extent, threads)
        ctx.program, ctx.extent, ctx.threads, ctx.counts = program, extent, threads, counts
        ctx.save_for_backward(*tensors, *fields, *kept)
        ctx.set_materialize_grads(False)
        return fields[0], *map(extent.ends, fields)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *grad_ends: Tensor | None) -> tuple[Any, ...]:
        program, counts = ctx.program, ctx.counts
        given = sum(counts)
        kept_tensors = ctx.saved_tensors  # read once: under checkpointing it computes them
        tensors, saved = kept_tensors[:given], kept_tensors[given:]
        wanted = ctx.needs_input_grad[4:]
        grads = [grad, *grad_ends]
        if torch.is_grad_enabled() or functional.batched(grads):  # the gradient will be differentiated, or is many
            gradients = functional.gradients(program, ctx.extent, counts, tensors, grads, wanted)
        else:
            *groups, state, _ = functional.cut(tensors, counts)
            fields, kept = saved[: len(state)], saved[len(state) :]
            first = {"weight": counts[0], "vector": counts[0] + counts[1]}
            found = program.run_backward(
                Operands(*groups), state, fields, kept, grads, ctx.extent, ctx.threads,
                lambda kind, k: wanted[first[kind] + k],
            )  # fmt: skip
            gradients = [gradient for kind in found for gradient in kind]
        return None, None, None, None, *gradients
