"""The minimal gated unit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from carousel.cells.cell import Cell, Packed


class MGU(Cell):
    """Minimal gated unit: a `GRU` whose update gate is also its reset gate.

        f_t = σ(W_f x_t + U_f h_{t-1} + b_f)
        a_t = tanh(W_a x_t + U_a (f_t ⊙ h_{t-1}) + b_a)
        h_t = (1 − f_t) ⊙ h_{t-1} + f_t ⊙ a_t

    Zhou, Wu, Zhang and Zhou 2016, arXiv:1603.09420, with a_t their h̃_t.

    >>> cell = MGU(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.forget, self.candidate = self.packed = Packed(input_size, hidden_size, maps=2, bias=bias)

    def step(self, x: Tensor, state: State) -> State:
        f = torch.sigmoid(self.forget(x, state.h))
        a = torch.tanh(self.candidate(x, f * state.h))
        return self.State((1 - f) * state.h + f * a)
