"""Variational dropout: masks that stay for a whole sequence."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.cells import Affine, Cell
from carousel.errors import ConfigError
from carousel.nn.wrapper import Around, Run, Wrapper, check_probability, each_step, longer_state

INPUT, STATE = "input_mask", "state_mask"


class Locked(Around):
    """A cell with one dropout mask for each sequence: of its inputs, of the states that its maps read, or of both.

        i_t = σ(W_i (m_x ⊙ x_t) + U_i (m_h ⊙ h_{t-1}) + b_i)          and so for every gate

    Gal and Ghahramani 2016, arXiv:1512.05287, section 4: m_x and m_h are drawn once and used at every time step.

    Args:
        cell: any cell; with `state`, one whose maps are attributes and read states as wide as its output.
        inputs, state: the probabilities of an input and of a state unit to be dropped in training.

    Notes:
        One mask for all gates: the paper's "tied weights". The masks are fields of the state, `input_mask` and
        `state_mask`, so that a sequence that is fed in pieces, or step by step, keeps its own; `initial_state` draws.

    >>> from carousel.cells import LSTM
    >>> cell = Locked(LSTM(3, 4), inputs=0.2, state=0.5)
    >>> cell.initial_state(2)._fields
    ('h', 'c', 'state_mask', 'input_mask')
    """

    def __init__(self, cell: Cell, *, inputs: float = 0.0, state: float = 0.0) -> None:
        check_probability("input_dropout", inputs)
        check_probability("state_dropout", state)
        super().__init__(Masked(cell) if state and STATE not in cell.State._fields else cell)
        self.inputs, self.state = inputs, state

    @property
    def State(self) -> type[Any]:  # type: ignore[override]  # noqa: N802
        return longer_state(self.cell.State, INPUT) if self.inputs else self.cell.State

    def initial_state(self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Any:
        fields = self.cell.initial_state(batch, device=device, dtype=dtype)
        if self.state:
            ones = torch.ones_like(getattr(fields, STATE))
            fields = fields._replace(**{STATE: F.dropout(ones, self.state, self.training)})
        if not self.inputs:
            return fields
        ones = fields[0].new_ones(batch, self.input_size)
        return self.State(*fields, F.dropout(ones, self.inputs, self.training))

    def step(self, x: Tensor, state: Any) -> Any:
        if not self.inputs:
            return self.cell.step(x, state)
        *fields, mask = state
        return self.State(*self.cell.step(x * mask if self.training else x, self.cell.State(*fields)), mask)

    def run(self, run: Run, inputs: Tensor, sizes: list[int], state: Any) -> tuple[Tensor, Any]:
        """The inputs are masked before the loop."""
        if not self.inputs:
            return run(self.cell, inputs, sizes, state)
        *fields, mask = state
        if self.training:
            inputs = inputs * each_step(sizes, len(inputs), mask)
        outputs, final = run(self.cell, inputs, sizes, self.cell.State(*fields))
        return outputs, self.State(*final, mask)

    def extra_repr(self) -> str:
        return f"inputs={self.inputs}, state={self.state}"


class Masked(Wrapper):
    """A cell whose maps read `state_mask ⊙ h` for h. The mask is a field of the state, ones until `Locked` draws it."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        state, read = cell.initial_state(1), set[int]()
        with torch.no_grad():
            masked = _masked(cell, torch.ones_like(state[0]), read)
            masked.step(state[0].new_zeros(1, cell.input_size), state)
        maps = [value for value in vars(masked).values() if isinstance(value, Affine) and value.packed.recurrent_size]
        if not maps or any(id(one) not in read or one.packed.recurrent_size != cell.output_size for one in maps):
            raise ConfigError(
                f"state_dropout: no maps to drop for (got {type(cell).__name__}); "
                f"a step that calls its maps, of {cell.output_size} columns of state; use zoneout"
            )

    @property
    def State(self) -> type[Any]:  # type: ignore[override]  # noqa: N802
        return longer_state(self.cell.State, STATE)

    def initial_state(self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Any:
        fields = self.cell.initial_state(batch, device=device, dtype=dtype)
        return self.State(*fields, torch.ones_like(fields[0]))

    def step(self, x: Tensor, state: Any) -> Any:
        *fields, mask = state
        cell = _masked(self.cell, mask) if self.training else self.cell
        return self.State(*cell.step(x, self.cell.State(*fields)), mask)


def _masked(cell: Cell, mask: Tensor, read: set[int] | None = None) -> Cell:
    """The same cell, of the same parts, but for its maps; `read` learns which of them read a state."""
    masked = copy.copy(cell)
    maps = {name: value for name, value in vars(cell).items() if isinstance(value, Affine)}
    vars(masked).update({name: _MaskedAffine(affine, mask, read) for name, affine in maps.items()})
    return masked


class _MaskedAffine(Affine):
    def __init__(self, affine: Affine, mask: Tensor, read: set[int] | None) -> None:
        super().__init__(affine.packed, affine.k)
        self.mask, self.read = mask, read

    def __call__(self, x: Tensor, h: Tensor) -> Tensor:
        return super().__call__(x, self._masked(h))

    def hidden(self, h: Tensor) -> Tensor:
        return super().hidden(self._masked(h))

    def _masked(self, h: Tensor) -> Tensor:
        if self.read is None:
            return h * self.mask
        self.read.add(id(self))
        return h
