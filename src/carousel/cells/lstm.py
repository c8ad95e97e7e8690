"""Long short-term memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from carousel.cells.cell import Cell, Packed


class LSTM(Cell):
    """Long short-term memory with a forget gate.

        i_t = σ(W_i x_t + U_i h_{t-1} + b_i)
        f_t = σ(W_f x_t + U_f h_{t-1} + b_f)
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
        o_t = σ(W_o x_t + U_o h_{t-1} + b_o)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        h_t = o_t ⊙ tanh(c_t)

    Hochreiter and Schmidhuber 1997, Neural Computation 9(8), 1735-1780; the forget gate is that of Gers, Schmidhuber
    and Cummins 2000, Neural Computation 12(10), 2451-2471.

    Args:
        forget_bias: what b_f starts from. At 1 a new cell remembers (Jozefowicz et al. 2015, ICML, section 3.2).

    Notes:
        One cell per memory block and no peepholes; the cell's input and output both pass through tanh. `torch.nn.LSTM`
        computes the same but starts b_f around 0, and so forgets by half at each step.

    >>> cell = LSTM(input_size=3, hidden_size=4)
    >>> state = cell.step(torch.ones(2, 3), cell.initial_state(2))
    >>> state.h.shape, state.c.shape
    (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)
        c: Tensor  # (B, H)

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float = 1.0, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.packed = Packed(input_size, hidden_size, maps=4, bias=bias)
        self.input, self.forget, self.candidate, self.output = self.packed
        if self.forget.b is not None:
            nn.init.constant_(self.forget.b, forget_bias)

    def step(self, x: Tensor, state: State) -> State:
        i = torch.sigmoid(self.input(x, state.h))
        f = torch.sigmoid(self.forget(x, state.h))
        g = torch.tanh(self.candidate(x, state.h))
        o = torch.sigmoid(self.output(x, state.h))
        c = f * state.c + i * g
        h = o * torch.tanh(c)
        return self.State(h, c)
