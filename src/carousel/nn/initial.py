"""Where a sequence starts from, learned."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from carousel.cells import Cell
from carousel.nn.wrapper import Wrapper, innermost


class LearnedStart(Wrapper):
    """A cell whose initial state is trained with its weights: one row for each field, the same for all sequences.

    It begins where the cell's own does. `initial_state` gives it, and so does a state of None.

    >>> from carousel.cells import LSTM
    >>> cell = LearnedStart(LSTM(3, 4))
    >>> [name for name, _ in cell.named_parameters() if name.startswith("start")]
    ['start.c', 'start.h']
    """

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        state = cell.initial_state(1)
        rows = {name: nn.Parameter(getattr(state, name).detach().clone()) for name in innermost(cell).State._fields}
        self.start = nn.ParameterDict(rows)

    def initial_state(self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Any:
        state = self.cell.initial_state(batch, device=device, dtype=dtype)
        rows = {name: row.to(device=device, dtype=dtype) for name, row in self.start.items()}
        return state._replace(**{name: row.expand(batch, *row.shape[1:]) for name, row in rows.items()})
