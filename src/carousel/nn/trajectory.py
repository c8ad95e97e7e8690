"""Everything a cell does on its way through a sequence."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from carousel.cells import Cell
from carousel.nn.unroll import Layout, check_inputs, starting_state
from carousel.nn.wrapper import innermost


class Trajectory(NamedTuple):
    """A cell's way through a batch of sequences; past a sequence's end everything is zero."""

    states: Any  # the cell's State with fields (T, B, ·): after each step
    gates: dict[str, Tensor]  # by their names in `step`, (T, B, ·)


def trajectory(cell: Cell, inputs: Tensor, state: Any = None, lengths: Tensor | None = None) -> Trajectory:
    """The state after every step, and every gate: `unroll`, eagerly, with nothing thrown away.

    Args:
        cell, inputs, state, lengths: as of `unroll`. The gates are the variables of the cell's `step`: whatever tensor
            (B, ·) it gives a name, such as i, f, g and o of an LSTM. Of a cell in wrappers they are the inner cell's.

    Raises:
        ConfigError: a shape, type or length is not as above.

    >>> from carousel.cells import LSTM
    >>> way = trajectory(LSTM(3, 4), torch.randn(5, 2, 3), lengths=torch.tensor([5, 2]))
    >>> way.states.c.shape, sorted(way.gates)
    (torch.Size([5, 2, 4]), ['c', 'f', 'g', 'h', 'i', 'o'])
    """
    check_inputs(inputs, cell.input_size)
    layout = Layout.of(inputs, lengths)
    states, gates = walk(cell, layout.pack(inputs), layout.sizes, layout.sort(starting_state(cell, inputs, state)))
    fields = (layout.unpack(torch.cat(field)) for field in zip(*states, strict=True))
    return Trajectory(cell.State(*fields), {name: layout.unpack(torch.cat(gate)) for name, gate in gates.items()})


def walk(cell: Cell, inputs: Tensor, sizes: list[int], state: Any) -> tuple[list[Any], dict[str, list[Tensor]]]:
    """The states after each step, as autograd knows them, and every gate by step; of packed inputs, as `run` takes."""
    states, gates = [], []
    with _watching(innermost(cell)) as seen:
        for x in inputs.split_with_sizes(sizes):
            state = cell.step(x, cell.State(*(field[: len(x)] for field in state)))
            states.append(state)
            gates.append({name: value for name, value in seen.items() if _is_gate(name, value, len(x))})
    names = [name for name in gates[0] if all(name in step for step in gates)]
    return states, {name: [step[name] for step in gates] for name in names}


def _is_gate(name: str, value: Any, batch: int) -> bool:
    return name != "x" and isinstance(value, Tensor) and value.dim() == 2 and len(value) == batch


@contextmanager
def _watching(cell: Cell) -> Iterator[dict[str, Any]]:
    """The variables of the cell's `step` when it last returned."""
    seen: dict[str, Any] = {}
    code = type(cell).step.__code__

    def watch(frame: FrameType, event: str, result: Any) -> None:
        if event == "return" and frame.f_code is code:
            seen.clear()
            seen.update(frame.f_locals)
        if before is not None:
            before(frame, event, result)  # type: ignore[arg-type]

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield seen
    finally:
        sys.setprofile(before)
