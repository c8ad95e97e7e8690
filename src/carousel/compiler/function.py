"""Compiled time loops as functions that PyTorch differentiates.

`unroll` is an autograd function over the operands of the loop and of the products before it, the quickest way. Where
PyTorch itself must look through the call, the same thing is `functional` under `torch.func` and `operator` under
`torch.compile`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from carousel.compiler import functional
from carousel.compiler.cpu import Program
from carousel.compiler.extent import Extent
from carousel.compiler.trace import Form, Operands


def unroll(
    program: Program, operands: Operands, state: Sequence[Tensor], extent: Extent, threads: int
) -> tuple[Tensor, list[Tensor]]:
    """Outputs (N, H), and the state after each sequence's own last step."""
    operands, state = functional.laid_out(operands), functional.contiguous(state)
    tensors = [*operands.tensors, *state]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        outputs, *ends = _Unroll.apply(program, extent, threads, operands.form, *tensors)  # type: ignore[no-untyped-call]
        return outputs, ends
    return program.run_inference(operands, state, extent, threads)


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, program: Program, extent: Extent, threads: int, form: Form, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        operands, state = form.operands(tensors), tensors[form.total :]
        fields, kept = program.run_training(operands, state, extent, threads)
        ctx.program, ctx.extent, ctx.threads, ctx.form = program, extent, threads, form
        ctx.save_for_backward(*tensors, *fields, *kept)
        ctx.set_materialize_grads(False)
        return fields[0], *map(extent.ends, fields)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *grad_ends: Tensor | None) -> tuple[Any, ...]:
        program, form = ctx.program, ctx.form
        fields = len(grad_ends)
        given = form.total + fields
        kept_tensors = ctx.saved_tensors  # read once: under checkpointing it computes them
        tensors, saved = kept_tensors[:given], kept_tensors[given:]
        wanted, grads = ctx.needs_input_grad[4:], [grad, *grad_ends]
        if torch.is_grad_enabled() or functional.batched(grads):  # the gradient will be differentiated, or is many
            found = functional.gradients(program, ctx.extent, form, tensors, grads, wanted)
        else:
            operands, state = form.operands(tensors), tensors[form.total :]
            found = program.run_backward(
                operands, state, saved[:fields], saved[fields:], grads, ctx.extent, ctx.threads, wanted
            )
        return None, None, None, None, *found
