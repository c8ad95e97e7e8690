"""Run a cell over a sequence."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from carousel.cells import Cell
from carousel.compiler import (
    Engine,
    compiled,
    known,
    plain,
    run_both_compiled,
    run_compiled,
    run_compiled_padded,
    scans,
)
from carousel.errors import ConfigError
from carousel.nn.wrapper import Around


def unroll(
    cell: Cell, inputs: Tensor, state: Any = None, lengths: Tensor | None = None, *, engine: Engine = "auto"
) -> tuple[Tensor, Any]:
    """Run the cell over time; the same as the plain loop

        state, outputs = state or cell.initial_state(B), []
        for x in inputs:
            state = cell.step(x, state)
            outputs.append(state[0])
        return torch.stack(outputs), state

    but with the input products of all time steps in one matrix product before the loop, the loop itself compiled (see
    `carousel.compiler`), and without the steps past a sequence's length.

    Args:
        cell: the recurrence.
        inputs: (T, B, I).
        state: what to start from, fields (B, H); the cell's `initial_state` by default.
        lengths: (B,), integers from 1 to T. Past its length a sequence costs nothing, its outputs are zero and its
            state stands still; what the padding holds, even NaN, is never read.
        engine: "compiled", "eager" (PyTorch, step by step), "scan" (all steps at once, for the cells that have a scan)
            or "auto": compiled wherever that is possible.

    Returns:
        outputs: (T, B, H), and the state after each sequence's own last step.

    Raises:
        ConfigError: a shape, type or length is not as above.

    >>> from carousel.cells import GRU
    >>> outputs, state = unroll(GRU(3, 4), torch.randn(5, 2, 3), lengths=torch.tensor([5, 2]))
    >>> outputs.shape, state.h.shape
    (torch.Size([5, 2, 4]), torch.Size([2, 4]))
    >>> outputs[2:, 1].count_nonzero().item(), torch.equal(outputs[1, 1], state.h[1])
    (0, True)
    """
    check_inputs(inputs, cell.input_size)
    layout = Layout.of(inputs, lengths)
    start = layout.sort(starting_state(cell, inputs, state))
    outputs, state = run_padded(cell, inputs, layout, start, engine=engine)
    return outputs, layout.restore(state)


def run(cell: Cell, inputs: Tensor, sizes: list[int], state: Any, *, engine: Engine = "auto") -> tuple[Tensor, Any]:
    """`unroll` of packed inputs (Σ sizes, I), of which step t reads the next `sizes[t]` rows.

    Sizes never grow: when one falls, the last sequences have ended, and no later step computes them. Outputs are packed
    in the same way; the state is that of every sequence after its own last step. No sizes mean that none ends early.
    """
    if isinstance(cell, Around):
        return cell.run(partial(run, engine=engine), inputs, sizes, state)
    program = compiled(cell, inputs, engine, state)
    if program is not None:
        return run_compiled(program, cell, inputs, sizes, state)
    if not sizes:
        batch = len(state[0])
        sizes = [batch] * (len(inputs) // batch)
    if scans(cell, inputs, engine):
        return _scanned(cell, inputs, sizes, state)
    outputs: list[Tensor] = []
    ended: list[Any] = []
    for size, step in zip(sizes, steps(cell, inputs, sizes), strict=True):
        alive = len(state[0])
        if size < alive:
            halves = zip(*(field.split_with_sizes([size, alive - size]) for field in state), strict=True)
            state, end = (cell.State(*fields) for fields in halves)
            ended.append(end)
        state = step(state)
        outputs.append(state[0])
    if ended:
        state = cell.State(*map(torch.cat, zip(state, *reversed(ended), strict=True)))
    return torch.cat(outputs), state


def run_padded(
    cell: Cell,
    inputs: Tensor,
    layout: Layout,
    state: Any,
    *,
    reads: bool = True,
    gives: bool = True,
    engine: Engine = "auto",
) -> tuple[Tensor, Any]:
    """`run` of inputs (T, B, I) that it `reads` padded, to outputs that it `gives` padded, or either.

    The compiled loop packs them piece by piece, which saves a trip through memory each way.
    """
    if layout.places is not None and not isinstance(cell, Around):
        program = compiled(cell, inputs, engine, state)
        if program is not None:
            found = run_compiled_padded(program, cell, inputs, layout, state, reads=reads, gives=gives)
            if found is not None:
                return found
    outputs, state = run(cell, layout.pack(inputs) if reads else inputs, layout.sizes, state, engine=engine)
    return layout.unpack(outputs) if gives else outputs, state


def run_both(
    cells: Sequence[Cell],
    inputs: Sequence[Tensor],
    sizes: list[int],
    states: Sequence[Any],
    *,
    engine: Engine = "auto",
) -> list[tuple[Tensor, Any]]:
    """`run` of two cells over batches of the same sizes: at the same time, where that is faster."""
    found = None
    if not any(isinstance(cell, Around) for cell in cells):
        found = run_both_compiled(cells, inputs, sizes, states, engine)
    if found is None:
        each = zip(cells, inputs, states, strict=True)
        found = [run(cell, reads, sizes, state, engine=engine) for cell, reads, state in each]
    return found


def _scanned(cell: Cell, inputs: Tensor, sizes: list[int], state: Any) -> tuple[Tensor, Any]:
    """`run` by the cell's scan, over padding that comes after the steps it could change."""
    T, B = len(sizes), sizes[0]
    if sizes[-1] == B:
        outputs, state = cell.scan_to(inputs.view(T, B, -1), state)
        return outputs.flatten(0, 1), state
    alive = torch.arange(B) < torch.tensor(sizes)[:, None]  # (T, B)
    rows, ends = alive.flatten().nonzero()[:, 0].to(inputs.device), (alive.sum(0) - 1).to(inputs.device)
    padded = inputs.new_zeros(T * B, inputs.shape[1]).index_copy(0, rows, inputs)
    outputs, state = cell.scan_to(padded.view(T, B, -1), state, ends)
    return outputs.flatten(0, 1).index_select(0, rows), state


def steps(cell: Cell, inputs: Tensor, sizes: list[int]) -> Iterable[Callable[[Any], Any]]:
    """For each time step of packed inputs, the function from the state before it to the state after it."""
    fast = known(cell).hoisted
    if fast is not None:
        return fast.steps(cell, inputs, sizes)
    return [partial(cell.step, x) for x in inputs.split_with_sizes(sizes)]


@dataclass(frozen=True)
class Layout:
    """Where the real steps of a batch (T, B) are.

    Packed, they stand one below the other: all of the first time step, all of the second and so on, in each the longest
    sequence first, so that those still alive are the first `sizes[t]`. Where nothing is padded, packing is a view.
    """

    shape: tuple[int, int]  # T, B
    sizes: list[int]  # the sequences alive at each step, down to the last with any; none if all live to the end
    order: Tensor | None = None  # (B,) the sequences, longest first; None if nothing is padded
    places: np.ndarray[Any, Any] | None = None  # the same as numbers, where there is padding

    @classmethod
    def of(cls, inputs: Tensor, lengths: Tensor | None) -> Layout:
        """The layout of inputs (T, B, I) of the given lengths (B,), None for all T."""
        T, B = inputs.shape[:2]
        if lengths is None:
            return cls((T, B), [] if torch.compiler.is_compiling() else [B] * T)
        if lengths.shape != (B,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
            got = f"{tuple(lengths.shape)} of {lengths.dtype}"
            raise ConfigError(f"lengths: wrong shape or type (got {got}); integers of shape ({B},); one per sequence")
        steps = np.asarray(lengths.tolist())
        order = np.argsort(-steps, kind="stable")
        longest, shortest = int(steps[order[0]]), int(steps[order[-1]])
        if shortest < 1 or longest > T:
            outside = shortest if shortest < 1 else longest
            raise ConfigError(f"lengths: out of range (got {outside}); 1 to {T}, the time steps; drop empty sequences")
        if shortest == T:
            return cls((T, B), [B] * T)
        ended = np.bincount(steps, minlength=T)[:longest].cumsum()
        return cls((T, B), (B - ended).tolist(), torch.from_numpy(order).to(inputs.device), order)

    @cached_property
    def rows(self) -> Tensor:
        """(Σ sizes,) where in (T·B, ...) each real step is."""
        assert self.order is not None and self.places is not None, "a batch without padding"
        B, sizes = self.shape[1], np.asarray(self.sizes)[:, None]
        rows = (B * np.arange(len(sizes))[:, None] + self.places)[np.arange(B) < sizes]
        return torch.from_numpy(rows).to(self.order.device)

    @cached_property
    def inverse(self) -> Tensor:
        """(B,) the place of each sequence in the order."""
        assert self.order is not None, "a batch in its own order"
        return self.order.argsort()

    def pack(self, padded: Tensor) -> Tensor:
        """(T, B, ...) -> (Σ sizes, ...)."""
        if self.places is None:
            return padded.flatten(0, 1)
        if not (torch.is_grad_enabled() and padded.requires_grad):
            return _packed(padded, self)
        packed: Tensor = _Pack.apply(padded, self)  # type: ignore[no-untyped-call]
        return packed

    def unpack(self, packed: Tensor) -> Tensor:
        """(Σ sizes, ...) -> (T, B, ...), zero in the padding."""
        if self.places is None:
            return packed.view(*self.shape, *packed.shape[1:])
        if not (torch.is_grad_enabled() and packed.requires_grad):
            return _unpacked(packed, self)
        padded: Tensor = _Unpack.apply(packed, self)  # type: ignore[no-untyped-call]
        return padded

    def sort(self, state: Any) -> Any:
        """The state with its sequences in the order of packing."""
        return state if self.order is None else _rows(state, self.order)

    def restore(self, state: Any) -> Any:
        """The state with its sequences in their own order: the inverse of `sort`."""
        return state if self.order is None else _rows(state, self.inverse)


def _room(rows: int, like: Tensor) -> Tensor:
    """Memory for so many rows: the same again and again in a thread, where nobody has kept it.

    Fresh memory of some megabytes costs as much as a tenth of a forward pass: the system zeroes every page.
    """
    numbers = rows * like[0].numel()
    room: Any = getattr(_KEPT, "room", None)
    if room is None or len(room) < numbers or sys.getrefcount(room) > 3:  # here, there, and its argument
        room = _KEPT.room = np.empty(numbers, np.float32)
    return torch.from_numpy(room[:numbers]).view(rows, *like.shape[1:])


_KEPT = threading.local()


class _Pack(torch.autograd.Function):
    """Each row is taken at most once: so gradients are put back, not added up."""

    generate_vmap_rule = True

    @staticmethod
    def forward(padded: Tensor, layout: Layout) -> Tensor:
        return _packed(padded, layout)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.layout = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.layout.unpack(grad), None


class _Unpack(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(packed: Tensor, layout: Layout) -> Tensor:
        return _unpacked(packed, layout)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.layout = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.layout.pack(grad), None


def _packed(padded: Tensor, layout: Layout) -> Tensor:
    if layout.places is not None and padded.dim() == 3 and plain(padded) and padded.stride(2) == 1:
        from carousel.compiler.packing import pack  # loads LLVM

        rows = sum(layout.sizes)
        into = padded.new_empty(rows, padded.shape[2]) if torch.is_grad_enabled() else _room(rows, padded[0])
        return pack(padded, layout.places, layout.sizes, into)
    return padded.flatten(0, 1).index_select(0, layout.rows)


def _unpacked(packed: Tensor, layout: Layout) -> Tensor:
    T, B = layout.shape
    if layout.places is not None and packed.dim() == 2 and plain(packed):
        from carousel.compiler.packing import unpack  # loads LLVM

        return unpack(packed.contiguous(), layout.places, layout.sizes, packed.new_empty(T, B, packed.shape[1]))
    whole = packed.new_zeros(T * B, *packed.shape[1:]).index_copy(0, layout.rows, packed)
    return whole.view(T, B, *packed.shape[1:])


def _rows(state: Any, rows: Tensor) -> Any:
    return type(state)(*(field.index_select(0, rows) for field in state))


def check_inputs(inputs: Tensor, input_size: int) -> None:
    """Raise ConfigError unless inputs are (T, B, input_size) with T and B at least 1."""
    if inputs.dim() != 3 or inputs.shape[2] != input_size or 0 in inputs.shape:
        raise ConfigError(
            f"inputs: wrong shape (got {tuple(inputs.shape)}); "
            f"(T, B, {input_size}) with T and B at least 1; drop empty batches"
        )


def starting_state(cell: Cell, inputs: Tensor, state: Any) -> Any:
    """The given state, checked, or the cell's initial one."""
    initial = cell.initial_state(inputs.shape[-2], device=inputs.device, dtype=inputs.dtype)
    if state is None:
        return initial
    wanted = {name: tuple(field.shape) for name, field in zip(initial._fields, initial, strict=True)}
    got = [tuple(field.shape) for field in state] if isinstance(state, tuple) else type(state).__name__
    if got != list(wanted.values()):
        raise ConfigError(f"state: does not fit the inputs (got {got}); {wanted}; see initial_state")
    return cell.State(*state)
