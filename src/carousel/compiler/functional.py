"""The compiled time loop under `torch.func.grad`, and in general as a function that returns all that it keeps.

`function` is the quicker way where nothing looks through the call. Here the derivative is a function again, and its
own derivative is taken by PyTorch's operations, so that whatever differentiates the gradient gets what it asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from carousel.compiler import reference, threads
from carousel.compiler.cpu import Program
from carousel.compiler.extent import PACKED, Extent, Padded
from carousel.compiler.operands import Form, Given, Operands, computed
from carousel.compiler.script import play


def unroll(
    program: Program, operands: Operands, state: Sequence[Tensor], extent: Extent
) -> tuple[Tensor, list[Tensor]]:
    """Outputs (N, H) and the state after each sequence's own last step, as `function.unroll` gives them."""
    counts = (*map(len, operands), len(state))
    tensors = [tensor for group in (*operands, state) for tensor in group]
    found = _Unroll.apply(program, extent, counts, *tensors)  # type: ignore[no-untyped-call]
    return found[0], list(found[len(state) : 2 * len(state)])


def run(program: Program, operands: Operands, state: Sequence[Tensor], extent: Extent, training: bool) -> list[Tensor]:
    """The outputs and final state; in training every field of all steps, the final state, and what is kept."""
    given, parts = Given.of(operands, state), threads.count(extent.batch)
    if not training:
        [(outputs, ends)] = play([program.inference_run(given, extent, parts)])
        return [outputs, *ends]
    [(_, fields, kept)] = play([program.training_run(given, extent, parts)])
    return [*fields, *map(extent.ends, fields), *kept]


def run_backward(
    program: Program,
    operands: Operands,
    state: Sequence[Tensor],
    saved: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    extent: Extent,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """The gradients, of those of inputs, weights, vectors and state that are wanted.

    Args:
        saved: fields of all steps and what was kept.
        grads: of the outputs, and of each field of the final state.
    """
    given, parts = Given.of(operands, state), threads.count(extent.batch)
    saved = [tensor.contiguous() for tensor in saved]
    fields, kept = saved[: len(state)], saved[len(state) :]
    [found] = play([program.backward_run(given, fields, kept, grads, extent, parts, wanted)])
    return [gradient for gradient, want in zip(found, wanted, strict=True) if want and gradient is not None]


def cut(items: Sequence[Any], counts: Sequence[int]) -> Iterator[list[Any]]:
    """Runs of so many items each, and what is left.

    >>> list(cut("abcdef", [2, 1]))
    [['a', 'b'], ['c'], ['d', 'e', 'f']]
    """
    first = 0
    for count in counts:
        yield list(items[first : first + count])
        first += count
    yield list(items[first:])


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(program: Program, extent: Extent, counts: tuple[int, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        *groups, state, _ = cut(tensors, counts)
        return tuple(run(program, Operands(*groups), state, extent, training=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.program, ctx.extent, ctx.counts, *tensors = inputs
        fields = ctx.counts[3]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[1:fields], *output[2 * fields :])
        ctx.save_for_backward(*tensors, *output[:fields], *output[2 * fields :])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        wanted, given, fields = ctx.needs_input_grad[3:], sum(ctx.counts), ctx.counts[3]
        asked = [grads[0], *grads[fields : 2 * fields]]
        saved = ctx.saved_tensors  # read once: under checkpointing it computes them
        if batched(asked):
            found = gradients(ctx.program, ctx.extent, _form(ctx.counts), saved[:given], asked, wanted)
        else:
            counts = (*ctx.counts, len(saved) - given)
            tensors = (*saved, *asked)
            made = iter(_Backward.apply(ctx.program, ctx.extent, counts, wanted, *tensors))  # type: ignore[no-untyped-call]
            found = [next(made) if want else None for want in wanted]
        return None, None, None, *found


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(
        program: Program, extent: Extent, counts: tuple[int, ...], wanted: Sequence[bool], *tensors: Any
    ) -> tuple[Tensor, ...]:
        *groups, state, saved, grads = cut(tensors, counts)
        return tuple(run_backward(program, Operands(*groups), state, saved, grads, extent, wanted))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.program, ctx.extent, ctx.counts, ctx.wanted, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        *counts, saved = ctx.counts
        given = sum(counts)

        def backward(*tensors: Any) -> list[Tensor | None]:
            asked = tensors[given + saved :]
            return gradients(ctx.program, ctx.extent, _form(counts), tensors[:given], asked, ctx.wanted)

        # What was saved follows from the operands, and its share is in theirs.
        needs = enumerate(ctx.needs_input_grad[4:])
        wanted = [need and not given <= place < given + saved for place, need in needs]
        asked = iter(grads)
        every = [next(asked) if want else None for want in ctx.wanted]
        return None, None, None, None, *_pulled_back(backward, ctx.saved_tensors, every, wanted)


def _form(counts: Sequence[int]) -> Form:
    inputs, weights, vectors, *_ = counts
    return Form((1,) * inputs, weights, vectors)


def batched(grads: Sequence[Tensor | None]) -> bool:
    """Whether these are many gradients at once, which `vmap` carries through the backward pass."""
    kinds = (torch._C._functorch.is_batchedtensor, torch._C._functorch.is_legacy_batchedtensor)
    return any(grad is not None and kind(grad) for grad in grads for kind in kinds)


def gradients(
    program: Program,
    extent: Extent,
    form: Form,
    tensors: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    wanted: Sequence[bool],
    padded: Padded = PACKED,
) -> list[Tensor | None]:
    """The gradients by PyTorch's own operations, which can be differentiated again."""

    def loop(*tensors: Any) -> list[Tensor | None]:
        operands, state = form.operands(tensors), tensors[form.total :]
        inputs = operands.inputs
        if padded.inputs is not None:
            inputs = [one._replace(x=padded.inputs.pack(one.x)) for one in inputs]
        operands = operands._replace(inputs=computed(inputs))
        outputs, ends = reference.run(program.recurrence, operands, state, extent.sizes)
        if padded.outputs is not None:
            outputs = padded.outputs.unpack(outputs)
        return [outputs, *ends]

    return _pulled_back(loop, tensors, grads, wanted)


def _pulled_back(
    function: Callable[..., list[Tensor | None]],
    tensors: Sequence[Tensor | None],
    grads: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of a function of all tensors with respect to those that are wanted.

    By `vjp` and not by `autograd.grad`: what was saved under a transformation that has ended has lost its history.
    """
    chosen = [tensor for tensor, want in zip(tensors, wanted, strict=True) if want]
    used = [grad for grad in grads if grad is not None]
    if not chosen or not used:
        return [None] * len(wanted)

    def of_chosen(*chosen: Tensor) -> tuple[Any, ...]:
        given = iter(chosen)
        results = function(*(next(given) if want else tensor for tensor, want in zip(tensors, wanted, strict=True)))
        return tuple(result for result, grad in zip(results, grads, strict=True) if grad is not None)

    pull: Any = torch.func.vjp(of_chosen, *chosen)[1]
    found = iter(pull(tuple(used)))
    return [next(found) if want else None for want in wanted]
