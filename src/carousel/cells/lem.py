"""The long expressive memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from carousel.cells.cell import Cell, Packed
from carousel.errors import ConfigError


class LEM(Cell):
    """Long expressive memory: two differential equations, with step sizes that each unit learns.

        Δ_t = Δt σ(W_1 y_{t-1} + V_1 x_t + b_1)
        Δ̄_t = Δt σ(W_2 y_{t-1} + V_2 x_t + b_2)
        z_t = (1 − Δ_t) ⊙ z_{t-1} + Δ_t ⊙ tanh(W_z y_{t-1} + V_z x_t + b_z)
        y_t = (1 − Δ̄_t) ⊙ y_{t-1} + Δ̄_t ⊙ tanh(W_y z_t + V_y x_t + b_y)

    Rusch, Mishra, Erichson and Mahoney 2022, arXiv:2110.04744v2, eq. 3; Δ_t is their Δt_n, x_t their u_n.

    Args:
        time_step: Δt, the largest step.

    >>> cell = LEM(input_size=3, hidden_size=4)
    >>> state = cell.step(torch.ones(2, 3), cell.initial_state(2))
    >>> state.y.shape, state.z.shape
    (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    class State(NamedTuple):
        y: Tensor  # (B, H)
        z: Tensor  # (B, H)

    def __init__(self, input_size: int, hidden_size: int, *, time_step: float = 1.0, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        if not 0 < time_step <= 1:
            raise ConfigError(f"time_step: not a step (got {time_step}); above 0, to 1; 1 is the paper's usual one")
        self.time_step = time_step
        self.packed = Packed(input_size, hidden_size, maps=4, bias=bias)
        self.memory_step, self.output_step, self.memory, self.output = self.packed

    def step(self, x: Tensor, state: State) -> State:
        y, z = state
        memory_step = self.time_step * torch.sigmoid(self.memory_step(x, y))
        output_step = self.time_step * torch.sigmoid(self.output_step(x, y))
        z = (1 - memory_step) * z + memory_step * torch.tanh(self.memory(x, y))
        y = (1 - output_step) * y + output_step * torch.tanh(self.output(x, z))
        return self.State(y, z)
