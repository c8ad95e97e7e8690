"""The compiled time loop where PyTorch itself looks through the call: `torch.compile` and `torch.func`.

`torch.compile` follows the prologue, which is ordinary PyTorch, and puts the loop into its graph as one node, the
operator

    carousel::unroll(inputs, weights, vectors, state, steps, sizes, key, training) -> Tensor[]

whose derivative is a second operator. Neither is ever looked into: they say the shapes of what they return, and the
rest happens when the graph runs. `torch.func.grad` differentiates the loop by a function that it can see through
twice: gradients of gradients are taken by PyTorch's own operations.
"""

from __future__ import annotations

import copy
import hashlib
import linecache
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from carousel import __version__
from carousel.cells import Cell
from carousel.compiler import reference, threads
from carousel.compiler.cpu import Extent, Program
from carousel.compiler.engine import known, transformed
from carousel.compiler.function import contiguous, rows
from carousel.compiler.trace import Operands, Recurrence, Unsupported

# What graphs name by key: a loop for the operator, a prologue for whoever makes the graph.

_PROGRAMS: dict[str, Program] = {}


class _Prologues:
    """The prologues by name, as attributes: reading one makes a graph depend on that one alone."""


_PROLOGUES = _Prologues()


def register(recurrence: Recurrence, program: Program) -> str:
    """The name of a loop, the same in every process; it stays known for the life of this one."""
    key = _digest(__version__, repr(recurrence.graph.nodes), repr(recurrence.state))
    _PROGRAMS.setdefault(key, program)
    return key


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _program(key: str) -> Program:
    if key not in _PROGRAMS:
        raise RuntimeError(f"carousel::unroll: no loop of that name in this process (got {key!r})")
    return _PROGRAMS[key]


@lru_cache(maxsize=64)
def _extent(sizes: tuple[int, ...]) -> Extent:
    return Extent(sizes)


# Under torch.compile. What follows is read by TorchDynamo, which knows some of Python.


def unroll_compiling(
    cell: Cell, inputs: Tensor, sizes: Sequence[int], state: Any, engine: str
) -> tuple[Tensor, Any] | None:
    """The loop over packed inputs as an operator in the graph; None where it has to run eagerly."""
    if inputs.dtype != torch.float32 or inputs.device.type != "cpu":
        return None
    for weight in cell.parameters():
        if weight.dtype != torch.float32 or weight.device.type != "cpu":
            return None
    names = _names(cell, *_settings(cell))
    if not names:
        return None
    name, key = names.split()
    groups = getattr(_PROLOGUES, name)(cell, inputs)
    tensors = [*groups[0], *groups[1], *groups[2], *state]
    training = torch.is_grad_enabled() and any([tensor.requires_grad for tensor in tensors])
    batch = state[0].shape[0]
    ragged = [] if sizes[-1] == batch else sizes
    found = torch.ops.carousel.unroll(
        list(groups[0]), list(groups[1]), list(groups[2]), list(state), len(sizes), ragged, key, training
    )
    fields = len(state)
    ends = found[fields : 2 * fields] if training else found[1:]
    return found[0], cell.State(*ends)


def _settings(cell: Cell) -> list[Any]:
    """What `known` looks at, such that a graph depends on it: numbers and names are keys of a dict on the way."""
    found = []
    for module in cell.modules():
        for name, value in vars(module).items():
            if name[0] != "_" and isinstance(value, bool | int | float | str):
                found.append(next(iter({value: 0})))
            elif name[0] != "_" and callable(value) and not isinstance(value, torch.nn.Module):
                found.append(value)
    return found


def _names(cell: Cell, *settings: Any) -> str:
    """The names of the cell's prologue and loop, nothing if it is to run eagerly. Run while the graph is made."""
    if transformed() or torch.is_autocast_enabled("cpu") or torch.compiler.is_exporting():
        return ""
    found = _traced(cell)
    if isinstance(found, Unsupported):
        return ""
    prologue = found.recurrence.prologue
    name = _digest(*linecache.getlines(prologue.__code__.co_filename))
    setattr(_PROLOGUES, f"prologue_{name}", prologue)
    return f"prologue_{name} {register(found.recurrence, found)}"


_names._dynamo_marked_constant = True  # type: ignore[attr-defined]  # what assume_constant_result does, without its import


def _traced(cell: Cell) -> Program | Unsupported:
    if not any(tensor.is_meta for tensor in (*cell.parameters(), *cell.buffers())):
        found: Program | Unsupported = known(cell).program
        return found
    twin = copy.deepcopy(cell).to_empty(device="cpu")  # of a layer that gives its cells their weights at each call
    for tensor in (*twin.parameters(), *twin.buffers()):
        torch.nn.init.uniform_(tensor, -0.1, 0.1)
    found = known(twin).program
    return found


# The operators.


@torch.library.custom_op("carousel::unroll", mutates_args=(), device_types="cpu")
def unroll_operator(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    vectors: Sequence[Tensor],
    state: Sequence[Tensor],
    steps: int,
    sizes: Sequence[int],
    key: str,
    training: bool,
) -> list[Tensor]:
    """The outputs and final state of a loop; in training every field of all steps, the final state, and what is kept.

    Args:
        inputs, weights, vectors: see `Operands`.
        state: what to start from, fields (B, ·).
        steps, sizes: T, and the sequences alive at each step; no sizes if all live to the end.
        key: of the loop, see `register`.
        training: whether the gradient will be asked for.
    """
    program, extent = _program(key), _extent(tuple(sizes) or (len(state[0]),) * steps)
    return _run(program, Operands(list(inputs), list(weights), list(vectors)), state, extent, training)


@unroll_operator.register_fake
def _(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    vectors: Sequence[Tensor],
    state: Sequence[Tensor],
    steps: int,
    sizes: Sequence[int],
    key: str,
    training: bool,
) -> list[Tensor]:
    like, program = state[0], _program(key)
    N = sum(sizes) if sizes else steps * like.shape[0]
    ends = [torch.empty_like(field, memory_format=torch.contiguous_format) for field in state]
    if not training:
        return [like.new_empty(N, like.shape[1]), *ends]
    kept = [like.new_empty(N, node.width) for node in program.backward_step.kept]
    return [*(like.new_empty(N, field.shape[1]) for field in state), *ends, *kept]


@torch.library.custom_op("carousel::unroll_backward", mutates_args=(), device_types="cpu")
def backward_operator(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    vectors: Sequence[Tensor],
    state: Sequence[Tensor],
    saved: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    steps: int,
    sizes: Sequence[int],
    key: str,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """The gradients, of those of inputs, weights, vectors and state that are `wanted`.

    Args:
        saved: fields of all steps and what was kept.
        grads: of the outputs, and of each field of the final state.
        others: as of `unroll_operator`.
    """
    program, extent = _program(key), _extent(tuple(sizes) or (len(state[0]),) * steps)
    operands = Operands(list(inputs), list(weights), list(vectors))
    return _run_backward(program, operands, state, saved, grads, extent, wanted)


@backward_operator.register_fake
def _(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    vectors: Sequence[Tensor],
    state: Sequence[Tensor],
    saved: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    steps: int,
    sizes: Sequence[int],
    key: str,
    wanted: Sequence[bool],
) -> list[Tensor]:
    given = [*inputs, *weights, *vectors, *state]
    return [tensor.new_empty(tensor.shape) for tensor, want in zip(given, wanted, strict=True) if want]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *groups, steps, sizes, key, training = inputs
    fields = len(groups[3])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*(tensor for group in groups for tensor in group), *output[:fields], *output[2 * fields :])
    ctx.counts, ctx.loop, ctx.training = list(map(len, groups)), (steps, sizes, key), training


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    assert ctx.training, "a loop that kept nothing for its gradient"
    *groups, saved = _cut(ctx.saved_tensors, ctx.counts)
    wanted = [want for group in ctx.needs_input_grad[:4] for want in group]
    fields = len(groups[3])
    asked = [grads[0], *grads[fields : 2 * fields]]
    found = iter(backward_operator(*groups, saved, asked, *ctx.loop, wanted))
    gradients = [next(found) if want else None for want in wanted]
    return *list(_cut(gradients, ctx.counts))[:4], None, None, None, None


unroll_operator.register_autograd(_backward, setup_context=_setup)


def _cut(items: Sequence[Any], counts: Sequence[int]) -> Iterator[list[Any]]:
    """Runs of so many items each, and what is left."""
    first = 0
    for count in counts:
        yield list(items[first : first + count])
        first += count
    yield list(items[first:])


# What they do.


def _run(
    program: Program, operands: Operands, state: Sequence[Tensor], extent: Extent, training: bool
) -> list[Tensor]:
    operands = Operands(list(map(rows, operands.inputs)), operands.weights, contiguous(operands.vectors))
    state, parts = contiguous(state), threads.count(extent.batch)
    if not training:
        return program.run_inference(operands, state, extent, parts)
    fields, kept = program.run_training(operands, state, extent, parts)
    return [*fields, *map(extent.ends, fields), *kept]


def _run_backward(
    program: Program,
    operands: Operands,
    state: Sequence[Tensor],
    saved: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    extent: Extent,
    wanted: Sequence[bool],
) -> list[Tensor]:
    operands = Operands(list(map(rows, operands.inputs)), operands.weights, contiguous(operands.vectors))
    state, saved = contiguous(state), contiguous(saved)
    weights, vectors = len(operands.inputs), len(operands.inputs) + len(operands.weights)
    first = {"weight": weights, "vector": vectors}
    found = program.run_backward(
        operands, state, saved[: len(state)], saved[len(state) :], grads[0], grads[1:], extent,
        threads.count(extent.batch), lambda kind, k: wanted[first[kind] + k],
    )  # fmt: skip
    flat = [gradient for group in found for gradient in group]
    return [gradient for gradient, want in zip(flat, wanted, strict=True) if want and gradient is not None]


# Under torch.func.


def unroll_functional(
    program: Program, operands: Operands, state: Sequence[Tensor], extent: Extent
) -> tuple[Tensor, list[Tensor]]:
    """The loop as a function that one transformation `torch.func.grad` may look through."""
    counts = [*map(len, operands), len(state)]
    tensors = [tensor for group in (*operands, state) for tensor in group]
    found = _Functional.apply(program, extent, counts, *tensors)  # type: ignore[no-untyped-call]
    return found[0], list(found[len(state) : 2 * len(state)])


class _Functional(torch.autograd.Function):
    @staticmethod
    def forward(program: Program, extent: Extent, counts: list[int], *tensors: Tensor) -> tuple[Tensor, ...]:
        *groups, _ = _cut(tensors, counts)
        return tuple(_run(program, Operands(*groups[:3]), groups[3], extent, training=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        program, extent, counts, *tensors = inputs
        fields = counts[3]
        ctx.program, ctx.extent, ctx.counts = program, extent, counts
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[1:fields], *output[2 * fields :])
        ctx.save_for_backward(*tensors, *output[:fields], *output[2 * fields :])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        wanted, given = ctx.needs_input_grad[3:], sum(ctx.counts)
        fields = ctx.counts[3]
        asked = [grads[0], *grads[fields : 2 * fields]]
        if transformed(allowed=1):  # several gradients at once
            tensors = ctx.saved_tensors[:given]
            return None, None, None, *reference_gradients(ctx.program, ctx.extent, ctx.counts, tensors, asked, wanted)
        found = iter(
            _FunctionalBackward.apply(  # type: ignore[no-untyped-call]
                ctx.program, ctx.extent, (*ctx.counts, len(ctx.saved_tensors) - given), wanted, *ctx.saved_tensors, *asked
            )
        )
        return None, None, None, *(next(found) if want else None for want in wanted)


class _FunctionalBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        program: Program, extent: Extent, counts: list[int], wanted: Sequence[bool], *tensors: Any
    ) -> tuple[Tensor, ...]:
        *groups, state, saved, grads = _cut(tensors, counts)
        return tuple(_run_backward(program, Operands(*groups), state, saved, grads, extent, wanted))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.program, ctx.extent, ctx.counts, ctx.wanted, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        *counts, saved = ctx.counts
        given = sum(counts)
        tensors, asked = ctx.saved_tensors[:given], ctx.saved_tensors[given + saved :]
        with torch.enable_grad():
            first = reference_gradients(ctx.program, ctx.extent, counts, tensors, asked, ctx.wanted)
        made = [gradient for gradient, want in zip(first, ctx.wanted, strict=True) if want]
        needs = ctx.needs_input_grad[4:]
        of = [tensor for tensor, need in zip(ctx.saved_tensors, needs, strict=True) if need and tensor is not None]
        ...
        return ()
