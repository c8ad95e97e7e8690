"""Cells around a cell, which change how it is run and leave its equations alone."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from carousel.cells import Cell, Readings, gauged
from carousel.errors import ConfigError


class Wrapper(Cell):
    """A cell around a cell, whose state, sizes and step it has unless it says otherwise.

    >>> from carousel.cells import GRU
    >>> wrapped = Wrapper(GRU(3, 4))
    >>> wrapped.step(torch.zeros(2, 3), wrapped.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell.input_size, cell.hidden_size)
        self.cell = cell

    @property
    def State(self) -> type[Any]:  # type: ignore[override]  # noqa: N802
        return self.cell.State

    @property
    def output_size(self) -> int:
        return self.cell.output_size

    def step(self, x: Tensor, state: Any) -> Any:
        return self.cell.step(x, state)

    def initial_state(self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Any:
        return self.cell.initial_state(batch, device=device, dtype=dtype)

    def recurrent_weights(self) -> Iterator[Tensor]:
        return self.cell.recurrent_weights()

    def extra_repr(self) -> str:
        return ""


def gauged_state(
    cell: Cell, x: Tensor, state: Any, readings: Readings, limit: float = math.inf, by: str = "norm"
) -> Any:
    """A step of the cell, the gradients of whose new state are read and cut, see `carousel.cells.gauged`.

    Each field has readings of its own, in the order of the innermost cell's State; what wrappers add has none. The
    fields are apart: the gradient of an LSTM's c is what comes into it from the next step, without what comes into the
    h that is made of it.
    """
    new = cell.step(x, state)
    names = innermost(cell).State._fields
    return new._replace(**{name: gauged(getattr(new, name), readings(x), limit, by) for name in names})


class Run(Protocol):
    """`carousel.nn.unroll.run`: outputs and final state of a cell over packed inputs."""

    def __call__(self, cell: Cell, inputs: Tensor, sizes: list[int], state: Any) -> tuple[Tensor, Any]: ...


class Around(Wrapper):
    """A wrapper that does something outside the time loop, which its `step` then does at each step."""

    def run(self, run: Run, inputs: Tensor, sizes: list[int], state: Any) -> tuple[Tensor, Any]:
        """What `run` of this cell gives, by way of `run` of the cell inside."""
        raise NotImplementedError(f"{type(self).__name__} defines no run")


def innermost(cell: Cell) -> Cell:
    """The cell inside all wrappers."""
    while isinstance(cell, Wrapper):
        cell = cell.cell
    return cell


def longer_state(base: type[Any], *names: str) -> type[Any]:
    """A State with the fields of another and more: always the same one, and such that its states can be pickled.

    >>> from carousel.cells import LSTM
    >>> longer_state(LSTM.State, "mask")._fields
    ('h', 'c', 'mask')
    """
    base, first = getattr(base, "longer_than", (base, ()))
    names = first + names
    if (base, names) not in _LONGER:
        plain: Any = namedtuple(base.__name__, [*base._fields, *names])  # type: ignore[misc]
        reduce = {"__slots__": (), "__reduce__": lambda state: (_state, (base, names, tuple(state)))}
        _LONGER[base, names] = type(base.__name__, (plain,), reduce | {"longer_than": (base, names)})
    return _LONGER[base, names]


_LONGER: dict[tuple[type[Any], tuple[str, ...]], type[Any]] = {}


def _state(base: type[Any], names: tuple[str, ...], fields: tuple[Any, ...]) -> Any:
    return longer_state(base, *names)(*fields)


def check_probability(name: str, probability: float) -> None:
    """Raise ConfigError unless it is one."""
    if not 0 <= probability <= 1:
        raise ConfigError(f"{name}: not a probability (got {probability}); 0 to 1; 0 turns it off")


def each_step(sizes: list[int], rows: int, field: Tensor) -> Tensor:
    """What each sequence has (B, ·) for each of its packed steps (rows, ·): step t reads the first `sizes[t]`."""
    batch = len(field)
    if not sizes or sizes[-1] == batch:
        return field.repeat(rows // batch, 1)
    return torch.cat([field[:size] for size in sizes])
