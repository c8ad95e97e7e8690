"""The quasi-recurrent network."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from carousel.cells.cell import Cell, Packed
from carousel.cells.scan import linear_scan
from carousel.errors import ConfigError

POOLINGS = ("f", "fo", "ifo")


class QRNN(Cell):
    """Quasi-recurrent network: gates by a convolution over this input and the one before, and a pooling over time.

        z_t = tanh(W_z x_t + U_z x_{t-1} + b_z)
        f_t = σ(W_f x_t + U_f x_{t-1} + b_f)
        o_t = σ(W_o x_t + U_o x_{t-1} + b_o)
        i_t = σ(W_i x_t + U_i x_{t-1} + b_i)
        c_t = f_t ⊙ c_{t-1} + (1 − f_t) ⊙ z_t                       pooling f and fo
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ z_t                             pooling ifo
        h_t = c_t                                                   pooling f
        h_t = o_t ⊙ c_t                                             pooling fo and ifo

    Bradbury et al. 2017, arXiv:1611.01576v2, section 2, with filters of width k = 2; W is their W² and U their W¹.

    Args:
        pooling: "f", "fo" or "ifo".

    Notes:
        The paper has no biases. x_{t-1} is a field of the state, zero before the first step; so a sequence can go on
        where it ended.

    >>> cell = QRNN(input_size=3, hidden_size=4, pooling="ifo")
    >>> state = cell.step(torch.ones(2, 3), cell.initial_state(2))
    >>> state.h.shape, state.c.shape, state.x.shape
    (torch.Size([2, 4]), torch.Size([2, 4]), torch.Size([2, 3]))
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)
        c: Tensor  # (B, H)
        x: Tensor  # (B, I)

    def __init__(self, input_size: int, hidden_size: int, *, pooling: str = "fo", bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        if pooling not in POOLINGS:
            raise ConfigError(f"pooling: unknown (got {pooling!r}); {', '.join(POOLINGS)}; fo is the paper's usual one")
        self.packed = Packed(input_size, hidden_size, maps=1 + len(pooling), bias=bias, recurrent_size=input_size)
        self.candidate, self.forget, *others = self.packed
        self.output = others[0] if "o" in pooling else None
        self.input = others[1] if "i" in pooling else None

    def gates(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        """f, what is added to the memory, and o."""
        z = torch.tanh(self.candidate.input(x) + self.candidate.hidden(before))
        f = torch.sigmoid(self.forget.input(x) + self.forget.hidden(before))
        o = 1.0 if self.output is None else torch.sigmoid(self.output.input(x) + self.output.hidden(before))
        i = 1 - f if self.input is None else torch.sigmoid(self.input.input(x) + self.input.hidden(before))
        return f, i * z, o

    def step(self, x: Tensor, state: State) -> State:
        f, new, o = self.gates(x, state.x)
        c = f * state.c + new
        return self.State(o * c, c, x)

    def scan(self, inputs: Tensor, state: State) -> State:
        f, new, o = self.gates(inputs, torch.cat([state.x[None], inputs[:-1]]))
        c = linear_scan(f, new, state.c)
        return self.State(o * c, c, inputs)

    def initial_state(
        self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> State:
        h, c, _ = super().initial_state(batch, device=device, dtype=dtype)
        return self.State(h, c, c.new_zeros(batch, self.input_size))
