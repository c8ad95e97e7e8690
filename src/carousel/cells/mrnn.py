"""The multiplicative recurrent network."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from carousel.cells.cell import Cell, Packed
from carousel.errors import ConfigError


class MRNN(Cell):
    """Multiplicative recurrent network: the input chooses the recurrent weights, by way of factors.

        f_t = diag(W_fx x_t) W_fh h_{t-1}
        h_t = tanh(W_hf f_t + W_hx x_t + b)

    Sutskever, Martens and Hinton 2011, "Generating text with recurrent neural networks", ICML.

    Args:
        factor_size: F, the width of f_t; H by default.

    >>> cell = MRNN(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)

    def __init__(self, input_size: int, hidden_size: int, *, factor_size: int | None = None, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        F = hidden_size if factor_size is None else factor_size
        if F < 1:
            raise ConfigError(f"factor_size: not a size (got {factor_size}); 1 or more; hidden_size by default")
        self.factors = Packed(input_size, F, maps=1, bias=False, recurrent_size=hidden_size)
        self.packed = Packed(input_size, hidden_size, maps=1, bias=bias, recurrent_size=F)
        (self.factor,), (self.candidate,) = self.factors, self.packed

    def step(self, x: Tensor, state: State) -> State:
        f = self.factor.input(x) * self.factor.hidden(state.h)
        return self.State(torch.tanh(self.candidate(x, f)))
