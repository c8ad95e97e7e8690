"""The update gate recurrent network."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from carousel.cells.activations import Activation, activation_function
from carousel.cells.cell import Cell, Packed


class UGRNN(Cell):
    """Update gate recurrent network: a simple recurrent network with one gate, which keeps or replaces.

        g_t = σ(W_g x_t + U_g h_{t-1} + b_g)
        c_t = φ(W_c x_t + U_c h_{t-1} + b_c)
        h_t = g_t ⊙ h_{t-1} + (1 − g_t) ⊙ c_t

    Collins, Sohl-Dickstein and Sussillo 2017, arXiv:1611.09913, ICLR.

    Args:
        activation: φ, a name in `carousel.cells.ACTIVATIONS`, or any function of one tensor.
        forget_bias: what b_g starts from; at 1 a new cell remembers.

    >>> cell = UGRNN(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        activation: str | Activation = "tanh",
        forget_bias: float = 1.0,
        bias: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.activation = activation_function(activation)
        self.gate, self.candidate = self.packed = Packed(input_size, hidden_size, maps=2, bias=bias)
        self.gate.start_bias(forget_bias)

    def step(self, x: Tensor, state: State) -> State:
        g = torch.sigmoid(self.gate(x, state.h))
        c = self.activation(self.candidate(x, state.h))
        return self.State(g * state.h + (1 - g) * c)
