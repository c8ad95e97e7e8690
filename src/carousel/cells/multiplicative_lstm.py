"""Long short-term memory whose recurrent weights the input chooses."""

from __future__ import annotations

import torch
from torch import Tensor

from carousel.cells.cell import Cell, Packed
from carousel.cells.lstm import LSTM


class MultiplicativeLSTM(Cell):
    """Multiplicative long short-term memory: gates read the state as the input has transformed it.

        m_t = (W_m x_t) ⊙ (U_m h_{t-1})
        i_t = σ(W_i x_t + U_i m_t + b_i)
        f_t = σ(W_f x_t + U_f m_t + b_f)
        g_t = tanh(W_g x_t + U_g m_t + b_g)
        o_t = σ(W_o x_t + U_o m_t + b_o)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        h_t = o_t ⊙ tanh(c_t)

    Krause, Lu, Murray and Renals 2016, arXiv:1609.07959, eq. 17-21, with those of the LSTM for c_t and h_t.

    Args:
        forget_bias: what b_f starts from. At 1 a new cell remembers (Jozefowicz et al. 2015, ICML, section 3.2).

    Notes:
        The paper has no biases. It is not the mLSTM of Beck et al. 2024.

    >>> cell = MultiplicativeLSTM(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    State = LSTM.State

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float = 1.0, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        (self.multiplicative,) = self.transition = Packed(input_size, hidden_size, maps=1, bias=False)
        self.packed = Packed(input_size, hidden_size, maps=4, bias=bias)
        self.input, self.forget, self.candidate, self.output = self.packed
        self.forget.start_bias(forget_bias)

    def step(self, x: Tensor, state: LSTM.State) -> LSTM.State:
        m = self.multiplicative.input(x) * self.multiplicative.hidden(state.h)
        i = torch.sigmoid(self.input(x, m))
        f = torch.sigmoid(self.forget(x, m))
        g = torch.tanh(self.candidate(x, m))
        o = torch.sigmoid(self.output(x, m))
        c = f * state.c + i * g
        h = o * torch.tanh(c)
        return self.State(h, c)
