"""Long short-term memory with layer normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.cells.cell import Cell, Packed
from carousel.cells.lstm import LSTM


class LayerNormLSTM(Cell):
    """Long short-term memory, layer-normalised.

        [i_t; f_t; g_t; o_t] = LN(U h_{t-1}; α_1, β_1) + LN(W x_t; α_2, β_2) + b
        c_t = σ(f_t) ⊙ c_{t-1} + σ(i_t) ⊙ tanh(g_t)
        h_t = σ(o_t) ⊙ tanh(LN(c_t; α_3, β_3))

    where LN(a; α, β) = α ⊙ (a − mean(a)) / √(var(a) + ε) + β over all columns of a: over all four maps at once.

    Ba, Kiros and Hinton 2016, arXiv:1607.06450v1, eq. 20-22.

    Args:
        forget_bias: what b_f starts from. At 1 a new cell remembers (Jozefowicz et al. 2015, ICML, section 3.2).
        bias: whether there are b and the β.
        epsilon: ε.

    Notes:
        U, W, i and g are the paper's W_h, W_x, i and g; ε is not in its equations.

    >>> cell = LayerNormLSTM(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    State = LSTM.State

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        forget_bias: float = 1.0,
        bias: bool = True,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.packed = Packed(input_size, hidden_size, maps=4, bias=bias)
        self.input, self.forget, self.candidate, self.output = self.packed
        self.norm_hidden = nn.LayerNorm(4 * hidden_size, eps=epsilon, bias=bias)
        self.norm_input = nn.LayerNorm(4 * hidden_size, eps=epsilon, bias=bias)
        self.norm_memory = nn.LayerNorm(hidden_size, eps=epsilon, bias=bias)
        self.forget.start_bias(forget_bias)

    def step(self, x: Tensor, state: LSTM.State) -> LSTM.State:
        W, U, b = self.packed.rows(0, 4)
        maps = self.norm_hidden(F.linear(state.h, U)) + self.norm_input(F.linear(x, W))
        i, f, g, o = (maps if b is None else maps + b).chunk(4, dim=1)
        c = torch.sigmoid(f) * state.c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(self.norm_memory(c))
        return self.State(h, c)
