"""The compiled time loop under `torch.compile`: an operator of `torch.library`.

`torch.compile` follows the prologue, which is ordinary PyTorch, and puts the loop into its graph as one node, the
operator

    carousel::unroll(inputs, weights, vectors, state, steps, sizes, key, training) -> Tensor[]

whose derivative is a second operator. Neither is ever looked into: they say the shapes of what they return, and the
rest happens when the graph runs.
"""

from __future__ import annotations

import copy
import hashlib
import linecache
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from carousel.cells import Cell
from carousel.compiler.cpu import Program
from carousel.compiler.engine import known, transformations
from carousel.compiler.extent import Extent, extent
from carousel.compiler.functional import cut, run, run_backward
from carousel.compiler.operands import Operands, computed
from carousel.compiler.tracer import Unsupported

# What graphs name by key: a loop for the operator, a prologue for whoever makes the graph.

_PROGRAMS: dict[str, Program] = {}


class _Prologues:
    """The prologues by name, as attributes: reading one makes a graph depend on that one alone."""


_PROLOGUES = _Prologues()


def register(program: Program) -> str:
    """The key of a loop, the same in every process; it stays known for the life of this one."""
    step = program.recurrence
    key = _digest(repr(step.graph.nodes), repr(step.state), repr(program.derivative.kept))
    _PROGRAMS.setdefault(key, program)
    return key


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _program(key: str) -> Program:
    if key not in _PROGRAMS:
        raise RuntimeError(f"carousel::unroll: no loop of that name in this process (got {key!r})")
    return _PROGRAMS[key]


def _extent(steps: int, sizes: Sequence[int], state: Sequence[Tensor]) -> Extent:
    return extent(tuple(sizes) or (len(state[0]),) * steps)


# Under torch.compile. What follows is read by TorchDynamo, which knows some of Python.


def names(cell: Cell, inputs: Tensor) -> str | None:
    """What `unroll` needs to know of the cell; None if it has to run eagerly."""
    for tensor in (inputs, *cell.parameters()):
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            return None
    return _names(cell, *_settings(cell)) or None


def unroll(names: str, cell: Cell, inputs: Tensor, sizes: Sequence[int], state: Any) -> tuple[Tensor, Any]:
    """The loop over packed inputs (Σ sizes, I) as a node of the graph."""
    prologue, key = names.split()
    given, weights, vectors = getattr(_PROLOGUES, prologue)(cell, inputs)
    groups = [computed(given), weights, vectors, state]
    training = torch.is_grad_enabled() and any(tensor.requires_grad for group in groups for tensor in group)
    steps = len(sizes) or inputs.shape[0] // state[0].shape[0]
    found = torch.ops.carousel.unroll(*map(list, groups), steps, list(sizes), key, training)
    ends = found[len(state) : 2 * len(state)] if training else found[1:]
    return found[0], cell.State(*ends)


def _settings(cell: Cell) -> list[Any]:
    """What `known` looks at, such that a graph depends on it: numbers and names are keys of a dict on the way."""
    found = []
    for module in cell.modules():
        for name, value in vars(module).items():
            if name[0] != "_" and isinstance(value, bool | int | float | str | tuple | None):
                found.append(next(iter({value: 0})))
            elif name[0] != "_" and callable(value) and not isinstance(value, torch.nn.Module):
                found.append(value)
    return found


def _names(cell: Cell, *settings: Any) -> str:
    """The names of the cell's prologue and loop, nothing if it is to run eagerly. Run while the graph is made."""
    if transformations() or torch.is_autocast_enabled("cpu") or torch.compiler.is_exporting():
        return ""
    found = _traced(cell)
    if isinstance(found, Unsupported):
        return ""
    prologue = found.recurrence.prologue
    key = register(found)
    name = f"prologue_{_digest(key, *linecache.getlines(prologue.__code__.co_filename))}"
    setattr(_PROLOGUES, name, prologue)
    return f"{name} {key}"


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
    program, extent = _program(key), _extent(steps, sizes, state)
    return run(program, Operands(list(inputs), list(weights), list(vectors)), state, extent, training)


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
    kept = [like.new_empty(N, node.width) for node in program.derivative.kept]
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
    program, extent = _program(key), _extent(steps, sizes, state)
    operands = Operands(list(inputs), list(weights), list(vectors))
    return run_backward(program, operands, state, saved, grads, extent, wanted)


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
    *groups, saved = cut(ctx.saved_tensors, ctx.counts)
    wanted = [want for group in ctx.needs_input_grad[:4] for want in group]
    fields = len(groups[3])
    asked = [grads[0], *grads[fields : 2 * fields]]
    found = iter(backward_operator(*groups, saved, asked, *ctx.loop, wanted))
    gradients = [next(found) if want else None for want in wanted]
    *groups, _ = cut(gradients, ctx.counts)
    no_sizes: list[Any] | None = None if ctx.loop[1] else []  # a list without numbers could be one of tensors
    return *groups, None, no_sizes, None, None


unroll_operator.register_autograd(_backward, setup_context=_setup)
