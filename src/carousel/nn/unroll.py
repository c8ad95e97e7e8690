"""Run a cell over a sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from carousel.cells import Cell
from carousel.errors import ConfigError
from carousel.nn.hoist import hoisted


def unroll(cell: Cell, inputs: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
    """Run the cell over time; the same as the plain loop

        state, outputs = state or cell.initial_state(B), []
        for x in inputs:
            state = cell.step(x, state)
            outputs.append(state[0])
        return torch.stack(outputs), state

    but with the input products of all time steps in one matrix product before the loop (see `carousel.nn.hoist`).

    Args:
        cell: the recurrence.
        inputs: (T, B, I).
        state: what to start from, fields (B, H); the cell's `initial_state` by default.
        lengths: (B,), integers from 1 to T. Past its length a sequence's outputs are zero and its state stands still;
            what the padding holds, even NaN, reaches neither results nor gradients.

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
    ragged = None if lengths is None else Ragged.of(lengths, inputs)
    if ragged is not None:
        inputs = ragged.clear(inputs)
    return run(cell, inputs, starting_state(cell, inputs, state), ragged)


def run(cell: Cell, inputs: Tensor, state: Any, ragged: Ragged | None) -> tuple[Tensor, Any]:
    """`unroll` of arguments that are checked, and zero in the padding."""
    outputs = []
    longest, shortest = (len(inputs), len(inputs)) if ragged is None else (ragged.longest, ragged.shortest)
    for t, step in enumerate(steps(cell, inputs[:longest])):
        before, state = state, step(state)
        if ragged is not None and t >= shortest:
            here = ragged.valid[t]
            state = cell.State(*(torch.where(here, new, old) for new, old in zip(state, before, strict=True)))
        outputs.append(state[0])
    stacked = torch.stack(outputs)
    return (stacked if ragged is None else ragged.clear(stacked, len(inputs))), state


def steps(cell: Cell, inputs: Tensor) -> Iterable[Callable[[Any], Any]]:
    """For each time step of inputs (T, B, I), the function from the state before it to the state after it."""
    fast = hoisted(cell)
    return [partial(cell.step, x) for x in inputs.unbind()] if fast is None else fast.steps(cell, inputs)


@dataclass(frozen=True)
class Ragged:
    """Which steps of a padded batch are real."""

    valid: Tensor  # (T, B, 1) bool
    shortest: int
    longest: int

    @classmethod
    def of(cls, lengths: Tensor, inputs: Tensor) -> Ragged | None:
        """None if no sequence of inputs (T, B, I) has padding."""
        T, B = inputs.shape[:2]
        if lengths.shape != (B,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
            got = f"{tuple(lengths.shape)} of {lengths.dtype}"
            raise ConfigError(f"lengths: wrong shape or type (got {got}); integers of shape ({B},); one per sequence")
        shortest, longest = (int(bound) for bound in lengths.aminmax())
        if shortest < 1 or longest > T:
            outside = shortest if shortest < 1 else longest
            raise ConfigError(f"lengths: out of range (got {outside}); 1 to {T}, the time steps; drop empty sequences")
        if shortest == T:
            return None
        time = torch.arange(T, device=inputs.device)
        return cls((time[:, None] < lengths.to(inputs.device)).unsqueeze(-1), shortest, longest)

    def clear(self, sequence: Tensor, length: int | None = None) -> Tensor:
        """The sequence (T, B, ...) with zeros in its padding, drawn out to `length` by more of them."""
        cleared = sequence.masked_fill(~self.valid[: len(sequence)], 0)
        missing = 0 if length is None else length - len(sequence)
        return torch.cat([cleared, cleared.new_zeros(missing, *cleared.shape[1:])]) if missing else cleared


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
