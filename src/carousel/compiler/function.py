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
from carousel.compiler.extent import PACKED, Extent, Padded
from carousel.compiler.operands import Given
from carousel.compiler.script import play


class Lane(NamedTuple):
    """One of the loops that are run at the same time: there are two in bidirectional layers, mostly one."""

    program: Program
    given: Given
    extent: Extent
    threads: int
    padded: Padded = PACKED

    @property
    def fields(self) -> int:
        return len(self.program.widths)

    def with_tensors(self, tensors: Sequence[Tensor]) -> Given:
        """What it is given, where the tensors come by another way."""
        return Given(tensors, self.given.form)


def unroll(lanes: Sequence[Lane]) -> list[tuple[Tensor, list[Tensor]]]:
    """Of each lane outputs (N, H) or (T, B, H), and the state after each sequence's own last step."""
    tensors = [tensor for lane in lanes for tensor in lane.given.tensors]
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        runs = [lane.program.inference_run(lane.given, lane.extent, lane.threads, lane.padded) for lane in lanes]
        return play(runs)
    counts = [len(lane.given.tensors) for lane in lanes]
    alone = [lane._replace(given=Given((), lane.given.form)) for lane in lanes]  # which autograd is to keep
    found = iter(_Unroll.apply(alone, counts, *tensors))  # type: ignore[no-untyped-call]
    return [(next(found), [next(found) for _ in range(lane.fields)]) for lane in lanes]


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, lanes: Sequence[Lane], counts: Sequence[int], *tensors: Tensor) -> tuple[Tensor, ...]:
        runs = [
            lane.program.training_run(lane.with_tensors(own), lane.extent, lane.threads, lane.padded)
            for lane, own in zip(lanes, _cut(tensors, counts), strict=True)
        ]
        saved, results, ctx.kept = list(tensors), [], []
        for lane, (outputs, fields, kept) in zip(lanes, play(runs), strict=True):
            saved += [*fields, *kept]
            ctx.kept.append(len(fields) + len(kept))
            results += [outputs, *map(lane.extent.ends, fields)]
        ctx.lanes, ctx.counts = lanes, counts
        ctx.save_for_backward(*saved)
        ctx.set_materialize_grads(False)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        lanes, given = ctx.lanes, ctx.counts
        saved = ctx.saved_tensors  # read once: under checkpointing it computes them
        tensors, computed = _cut(saved[: sum(given)], given), _cut(saved[sum(given) :], ctx.kept)
        asked = _cut(grads, [1 + lane.fields for lane in lanes])
        wanted = _cut(ctx.needs_input_grad[2:], given)
        every = list(zip(lanes, tensors, computed, asked, wanted, strict=True))
        if torch.is_grad_enabled() or functional.batched(grads):  # the gradient will be differentiated, or is many
            found = [
                functional.gradients(lane.program, lane.extent, lane.given.form, own, grad, want, lane.padded)
                for lane, own, _, grad, want in every
            ]
        else:
            runs = []
            for lane, own, made, grad, want in every:
                fields, kept = made[: lane.fields], made[lane.fields :]
                own_given = lane.with_tensors(own)
                run = lane.program.backward_run
                runs.append(run(own_given, fields, kept, grad, lane.extent, lane.threads, want, lane.padded))
            found = play(runs)
        return None, None, *(gradient for gradients in found for gradient in gradients)


def _cut(items: Sequence[Any], lengths: Sequence[int]) -> list[Sequence[Any]]:
    """Runs of so many items each."""
    return [items[first:last] for first, last in pairwise(accumulate(lengths, initial=0))]
