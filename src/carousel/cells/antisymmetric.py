"""The antisymmetric network, plain and gated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.cells.cell import Cell, Packed, draw_
from carousel.errors import ConfigError


class Antisymmetric(Cell):
    """Antisymmetric network: the Euler steps of a differential equation that neither forgets nor explodes.

        M = W − Wᵀ − γ I
        h_t = h_{t-1} + ε tanh(M h_{t-1} + V x_t + b)

    Chang, Chen, Haber and Chi 2019, arXiv:1902.09689v1, section 3.

    Args:
        step_size: ε, of the Euler method.
        diffusion: γ, by which eigenvalues are to the left of the imaginary axis, so that the steps stay stable.

    Notes:
        The paper tunes ε and γ for each task, on grids that hold the defaults. It draws W from N(0, σ²/H) with a σ that
        is tuned too; here as everywhere from U(-1/√H, 1/√H).

    >>> cell = Antisymmetric(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)

    MAPS = 1  # that read x

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        step_size: float = 0.1,
        diffusion: float = 0.01,
        bias: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size)
        if step_size <= 0:
            raise ConfigError(f"step_size: not a step (got {step_size}); above 0; 0.1 is usual")
        if diffusion < 0:
            raise ConfigError(f"diffusion: not stable (got {diffusion}); 0 or more; 0.01 is usual")
        self.step_size, self.diffusion = step_size, diffusion
        self.packed = Packed(input_size, hidden_size, maps=self.MAPS, bias=bias, recurrent_size=0)
        self.candidate, *self.gate = self.packed
        self.weight_hidden = draw_(nn.Parameter(torch.empty(hidden_size, hidden_size)), hidden_size)

    def recurrent(self, h: Tensor) -> Tensor:
        """M h."""
        return F.linear(h, self.weight_hidden - self.weight_hidden.t()) - self.diffusion * h

    def step(self, x: Tensor, state: State) -> State:
        change = torch.tanh(self.recurrent(state.h) + self.candidate.input(x))
        return self.State(state.h + self.step_size * change)

    def recurrent_weights(self) -> Iterator[Tensor]:
        yield self.weight_hidden


class GatedAntisymmetric(Antisymmetric):
    """Antisymmetric network with a gate, which reads the state through the same matrix.

        M = W − Wᵀ − γ I
        z_t = σ(M h_{t-1} + V_z x_t + b_z)
        h_t = h_{t-1} + ε z_t ⊙ tanh(M h_{t-1} + V x_t + b)

    Chang, Chen, Haber and Chi 2019, arXiv:1902.09689v1, section 3.

    Args:
        step_size, diffusion: ε and γ, as in `Antisymmetric`.

    >>> cell = GatedAntisymmetric(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    MAPS = 2

    def step(self, x: Tensor, state: Antisymmetric.State) -> Antisymmetric.State:
        recurrent = self.recurrent(state.h)
        z = torch.sigmoid(recurrent + self.gate[0].input(x))
        change = torch.tanh(recurrent + self.candidate.input(x))
        return self.State(state.h + self.step_size * z * change)
