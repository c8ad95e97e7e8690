"""The clockwork network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.cells.cell import Cell, Packed
from carousel.errors import ConfigError


class Clockwork(Cell):
    """Clockwork network: modules of units, each with a clock of its own.

        h_t = tanh(W x_t + U h_{t-1} + b)       in module i, if t mod T_i = 0
        h_t = h_{t-1}                           in the others

    Koutník, Greff, Gomez and Schmidhuber 2014, arXiv:1402.3511v1, section 3. U is block-upper-triangular: a module
    reads itself and those that are slower.

    Args:
        periods: T_1, T_2, ..., growing. The units are shared among them as evenly as can be, the fast ones first.

    Notes:
        t counts from 0, so that all modules read the first input. The clock is a field of the state: the steps until a
        unit's module is next due. Modules that are not due are computed too and thrown away, so the network is not the
        cheaper for its slow modules, as it is in the paper.

    >>> cell = Clockwork(input_size=3, hidden_size=4, periods=(1, 4))
    >>> state = cell.step(torch.ones(2, 3), cell.initial_state(2))
    >>> state.h.shape, state.clock[0].tolist()
    (torch.Size([2, 4]), [0.0, 0.0, 3.0, 3.0])
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)
        clock: Tensor  # (B, H)

    periods: Tensor
    reads: Tensor

    def __init__(
        self, input_size: int, hidden_size: int, *, periods: Sequence[int] = (1, 2, 4, 8), bias: bool = True
    ) -> None:
        super().__init__(input_size, hidden_size)
        if not periods or min(periods) < 1 or sorted(set(periods)) != list(periods):
            raise ConfigError(f"periods: not periods (got {tuple(periods)}); from 1 on, growing; such as (1, 2, 4, 8)")
        if len(periods) > hidden_size:
            raise ConfigError(f"periods: too many (got {len(periods)}); {hidden_size}, the units; a unit for each")
        (self.candidate,) = self.packed = Packed(input_size, hidden_size, maps=1, bias=bias)
        of_units = torch.tensor([float(periods[unit * len(periods) // hidden_size]) for unit in range(hidden_size)])
        self.register_buffer("periods", of_units, persistent=False)
        self.register_buffer("reads", (of_units[:, None] <= of_units).to(of_units), persistent=False)

    def step(self, x: Tensor, state: State) -> State:
        due = state.clock <= 0
        new = torch.tanh(self.candidate.input(x) + F.linear(state.h, self.candidate.U * self.reads))
        clock = torch.where(due, self.periods, state.clock) - 1
        return self.State(torch.where(due, new, state.h), clock)
