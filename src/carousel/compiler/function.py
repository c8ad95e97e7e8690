"""Compiled time loops as functions that PyTorch differentiates.

`unroll` is an autograd function over the operands of loops and of the products before them, the quickest way. Where
PyTorch itself must look through the call, the same thing is `functional` under `torch.func` and `operator` under
`torch.compile`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from carousel.compiler import functional
from carousel.compiler.cpu import Program
from carousel.compiler.extent import Extent
from carousel.compiler.operands import Form, Operands
from carousel.compiler.script import play


class Lane(NamedTuple):
    """One of the loops that are run at the same time: there are two in bidirectional layers, mostly one."""

    program: Program
    operands: Operands
    state: Sequence[Tensor]
    extent: Extent
    threads: int


class _Fixed(NamedTuple):
    """What is not a tensor of a lane."""

    program: Program
    extent: Extent
    threads: int
    form: Form

    @property
    def fields(self) -> int:
        return len(self.program.widths)

    @property
    def given(self) -> int:
        """How many tensors it is given, state included."""
        return self.form.total + self.fields


def unroll(lanes: Sequence[Lane]) -> list[tuple[Tensor, list[Tensor]]]:
    """Of each lane outputs (N, H), and the state after each sequence's own last step."""
    laid = [
        lane._replace(operands=functional.laid_out(lane.operands), state=functional.contiguous(lane.state))
        for lane in lanes
    ]
    tensors = [tensor for lane in laid for tensor in (*lane.operands.tensors, *lane.state)]
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return play([a.program.inference_run(a.operands, a.state, a.extent, a.threads) for a in laid])
    fixed = tuple(_Fixed(lane.program, lane.extent, lane.threads, lane.operands.form) for lane in laid)
    found = iter(_Unroll.apply(fixed, *tensors))  # type: ignore[no-untyped-call]
    return [(next(found), [next(found) for _ in range(lane.fields)]) for lane in fixed]


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, lanes: Sequence[_Fixed], *tensors: Tensor) -> tuple[Tensor, ...]:
        runs = []
        for lane, own in zip(lanes, _cut(tensors, [lane.given for lane in lanes]), strict=True):
            operands, state = lane.form.operands(own), own[lane.form.total :]
            runs.append(lane.program.training_run(operands, state, lane.extent, lane.threads))
        saved, results, ctx.kept = list(tensors), [], []
        for lane, (fields, kept) in zip(lanes, play(runs), strict=True):
            saved += [*fields, *kept]
            ctx.kept.append(len(fields) + len(kept))
            results += [fields[0], *map(lane.extent.ends, fields)]
        ctx.lanes = lanes
        ctx.save_for_backward(*saved)
        ctx.set_materialize_grads(False)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        lanes, given = ctx.lanes, [lane.given for lane in ctx.lanes]
        saved = ctx.saved_tensors  # read once: under checkpointing it computes them
        tensors, computed = _cut(saved[: sum(given)], given), _cut(saved[sum(given) :], ctx.kept)
        asked = _cut(grads, [1 + lane.fields for lane in lanes])
        wanted = _cut(ctx.needs_input_grad[1:], given)
        every = list(zip(lanes, tensors, computed, asked, wanted, strict=True))
        if torch.is_grad_enabled() or functional.batched(grads):  # the gradient will be differentiated, or is many
            found = [
                functional.gradients(lane.program, lane.extent, lane.form, own, grad, want)
                for lane, own, _, grad, want in every
            ]
        else:
            runs = []
            for lane, own, made, grad, want in every:
                operands, state = lane.form.operands(own), own[lane.form.total :]
                fields, kept = made[: lane.fields], made[lane.fields :]
                runs.append(
                    lane.program.backward_run(operands, state, fields, kept, grad, lane.extent, lane.threads, want)
                )
            found = play(runs)
        return None, *(gradient for gradients in found for gradient in gradients)


def _cut(items: Sequence[Any], lengths: Sequence[int]) -> list[Sequence[Any]]:
    """Runs of so many items each."""
    return [items[first:last] for first, last in pairwise(accumulate(lengths, initial=0))]
