"""The gated recurrent unit, in both orders of reset and recurrent product, and with layer normalisation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.cells.cell import Cell, Packed, draw_


class GRU(Cell):
    """Gated recurrent unit, reset before the recurrent product.

        r_t = σ(W_r x_t + U_r h_{t-1} + b_r)
        z_t = σ(W_z x_t + U_z h_{t-1} + b_z)
        a_t = tanh(W_a x_t + U_a (r_t ⊙ h_{t-1}) + b_a)
        h_t = z_t ⊙ h_{t-1} + (1 − z_t) ⊙ a_t

    Cho et al. 2014, arXiv:1406.1078v3, eq. 5-8.

    Notes:
        The paper has no biases. `torch.nn.GRU` is the other order: `ResetAfterGRU`.

    >>> cell = GRU(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.reset, self.update, self.candidate = self.packed = Packed(input_size, hidden_size, maps=3, bias=bias)

    def step(self, x: Tensor, state: State) -> State:
        r = torch.sigmoid(self.reset(x, state.h))
        z = torch.sigmoid(self.update(x, state.h))
        a = torch.tanh(self.candidate(x, r * state.h))
        return self.State(z * state.h + (1 - z) * a)


class ResetAfterGRU(Cell):
    """Gated recurrent unit, reset after the recurrent product: that of `torch.nn.GRU` and cuDNN.

        r_t = σ(W_r x_t + U_r h_{t-1} + b_r)
        z_t = σ(W_z x_t + U_z h_{t-1} + b_z)
        a_t = tanh(W_a x_t + b_a + r_t ⊙ (U_a h_{t-1} + c_a))
        h_t = z_t ⊙ h_{t-1} + (1 − z_t) ⊙ a_t

    Cho et al. 2014, arXiv:1406.1078v1: the first version of the paper, which later ones corrected to `GRU`.

    Notes:
        The paper has no biases; c_a, a second one for the candidate, is `torch.nn.GRU`'s.

    >>> cell = ResetAfterGRU(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)

    recurrent_bias: nn.Parameter | None

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.reset, self.update, self.candidate = self.packed = Packed(input_size, hidden_size, maps=3, bias=bias)
        recurrent_bias = draw_(nn.Parameter(torch.empty(hidden_size)), hidden_size) if bias else None
        self.register_parameter("recurrent_bias", recurrent_bias)

    def step(self, x: Tensor, state: State) -> State:
        r = torch.sigmoid(self.reset(x, state.h))
        z = torch.sigmoid(self.update(x, state.h))
        recurrent = self.candidate.hidden(state.h)
        if self.recurrent_bias is not None:
            recurrent = recurrent + self.recurrent_bias
        a = torch.tanh(self.candidate.input(x) + r * recurrent)
        return self.State(z * state.h + (1 - z) * a)


class LayerNormGRU(Cell):
    """Gated recurrent unit whose products are normalised over the layer, those of input and state each by itself.

        [r_t z_t] = σ(LN(U_rz h_{t-1}; α_1, β_1) + LN(W_rz x_t; α_2, β_2))
        a_t = tanh(LN(W_a x_t; α_3, β_3) + r_t ⊙ LN(U_a h_{t-1}; α_4, β_4))
        h_t = (1 − z_t) ⊙ h_{t-1} + z_t ⊙ a_t

        LN(v; α, β) = (v − mean(v)) / sqrt(var(v) + ε) ⊙ α + β

    Ba, Kiros and Hinton 2016, arXiv:1607.06450, supplementary material, "Gated Recurrent Unit".

    Args:
        bias: whether there is a β.

    Notes:
        As in the paper, both gates are normalised together, over 2 H columns; z_t is 1 − z_t of `GRU`; and there are no
        biases besides β. ε, 1e-5, is within the root.

    >>> cell = LayerNormGRU(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.packed = Packed(input_size, hidden_size, maps=3, bias=False)
        self.reset, self.update, self.candidate = self.packed
        self.gates_hidden_norm = nn.LayerNorm(2 * hidden_size, bias=bias)
        self.gates_input_norm = nn.LayerNorm(2 * hidden_size, bias=bias)
        self.candidate_input_norm = nn.LayerNorm(hidden_size, bias=bias)
        self.candidate_hidden_norm = nn.LayerNorm(hidden_size, bias=bias)

    def step(self, x: Tensor, state: State) -> State:
        W, U, _ = self.packed.rows(0, 2)  # of both gates
        gates = self.gates_hidden_norm(F.linear(state.h, U)) + self.gates_input_norm(F.linear(x, W))
        r, z = torch.sigmoid(gates).chunk(2, dim=1)
        recurrent = self.candidate_hidden_norm(self.candidate.hidden(state.h))
        a = torch.tanh(self.candidate_input_norm(self.candidate.input(x)) + r * recurrent)
        return self.State((1 - z) * state.h + z * a)
