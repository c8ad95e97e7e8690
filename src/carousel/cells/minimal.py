"""Minimal gated cells: their gates read the input alone, so that all steps can be taken at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.cells.cell import Cell, Packed
from carousel.cells.scan import linear_scan


def positive(a: Tensor) -> Tensor:
    """g of the paper's appendix B: a + 0.5 from 0 on, σ(a) below; continuous, and positive everywhere.

    >>> positive(torch.tensor([-10.0, 0.0, 2.0]))
    tensor([4.5398e-05, 5.0000e-01, 2.5000e+00])
    """
    return torch.where(a >= 0, a + 0.5, torch.sigmoid(a))


class MinGRU(Cell):
    """Minimal gated recurrent unit.

        z_t = σ(W_z x_t + b_z)
        a_t = W_a x_t + b_a
        h_t = (1 − z_t) ⊙ h_{t-1} + z_t ⊙ a_t

    Feng et al. 2024, arXiv:2410.01201v1, section 3.1; a_t is their h̃_t.

    Args:
        positive: a_t = g(W_a x_t + b_a) with the g of the paper's appendix B, by which the state stays positive.

    Notes:
        The paper takes the scan of the positive variant in log-space; here both are scanned as they are, exactly, and
        begin at 0.

    >>> cell = MinGRU(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)

    def __init__(self, input_size: int, hidden_size: int, *, positive: bool = False, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.positive = positive
        self.update, self.candidate = self.packed = Packed(input_size, hidden_size, maps=2, bias=bias, recurrent_size=0)

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z and a."""
        a = self.candidate.input(x)
        return torch.sigmoid(self.update.input(x)), positive(a) if self.positive else a

    def step(self, x: Tensor, state: State) -> State:
        z, a = self.gates(x)
        return self.State((1 - z) * state.h + z * a)

    def scan(self, inputs: Tensor, state: State) -> State:
        z, a = self.gates(inputs)
        return self.State(linear_scan(1 - z, z * a, state.h))


class MinLSTM(Cell):
    """Minimal long short-term memory.

        f_t = σ(W_f x_t + b_f)
        i_t = σ(W_i x_t + b_i)
        a_t = W_a x_t + b_a
        h_t = f_t / (f_t + i_t) ⊙ h_{t-1} + i_t / (f_t + i_t) ⊙ a_t

    Feng et al. 2024, arXiv:2410.01201v1, section 3.2; a_t is their h̃_t.

    Args:
        positive: a_t = g(W_a x_t + b_a) with the g of the paper's appendix B, by which the state stays positive.

    Notes:
        The two gates, divided by their sum, are σ(±d) with d = log f_t − log i_t; so they are computed, as f_t + i_t
        may be 0 in floating point. The scan is not in log-space, see `MinGRU`.

    >>> cell = MinLSTM(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)

    def __init__(self, input_size: int, hidden_size: int, *, positive: bool = False, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.positive = positive
        self.packed = Packed(input_size, hidden_size, maps=3, bias=bias, recurrent_size=0)
        self.forget, self.input, self.candidate = self.packed

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The forget gate, divided by the sum of both, and a."""
        difference = F.logsigmoid(self.forget.input(x)) - F.logsigmoid(self.input.input(x))
        a = self.candidate.input(x)
        return torch.sigmoid(difference), positive(a) if self.positive else a

    def step(self, x: Tensor, state: State) -> State:
        f, a = self.gates(x)
        return self.State(f * state.h + (1 - f) * a)

    def scan(self, inputs: Tensor, state: State) -> State:
        f, a = self.gates(inputs)
        return self.State(linear_scan(f, (1 - f) * a, state.h))
