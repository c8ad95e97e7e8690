"""The coupled oscillatory network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.cells.cell import Cell, Packed, draw_
from carousel.errors import ConfigError


class CoRNN(Cell):
    """Coupled oscillatory network: each unit is a damped oscillator, driven by the input and by the others.

        z_t = z_{t-1} + Δt (tanh(W y_{t-1} + U z_{t-1} + V x_t + b) − γ y_{t-1} − ε z_{t-1})
        y_t = y_{t-1} + Δt z_t

    Rusch and Mishra 2021, arXiv:2010.00951v2, eq. 3, with explicit damping; U is their calligraphic W, x_t their u_n.

    Args:
        time_step: Δt.
        frequency: γ, what pulls a unit back.
        damping: ε, what slows it down.

    Notes:
        The paper tunes Δt, γ and ε for each task; the defaults are those of its code for sequential MNIST. Its other
        scheme, with damping at z_t, is not here.

    >>> cell = CoRNN(input_size=3, hidden_size=4)
    >>> state = cell.step(torch.ones(2, 3), cell.initial_state(2))
    >>> state.y.shape, state.z.shape
    (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    class State(NamedTuple):
        y: Tensor  # (B, H) where the oscillators are
        z: Tensor  # (B, H) how fast they move

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        time_step: float = 0.042,
        frequency: float = 2.7,
        damping: float = 4.7,
        bias: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size)
        for name, value in (("time_step", time_step), ("frequency", frequency), ("damping", damping)):
            if value <= 0:
                raise ConfigError(f"{name}: not positive (got {value}); above 0; see CoRNN for usual values")
        self.time_step, self.frequency, self.damping = time_step, frequency, damping
        (self.force,) = self.packed = Packed(input_size, hidden_size, maps=1, bias=bias)
        self.weight_velocity = draw_(nn.Parameter(torch.empty(hidden_size, hidden_size)), hidden_size)

    def step(self, x: Tensor, state: State) -> State:
        y, z = state
        force = torch.tanh(self.force(x, y) + F.linear(z, self.weight_velocity))
        z = z + self.time_step * (force - self.frequency * y - self.damping * z)
        return self.State(y + self.time_step * z, z)

    def recurrent_weights(self) -> Iterator[Tensor]:
        yield from super().recurrent_weights()
        yield self.weight_velocity
