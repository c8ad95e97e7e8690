"""The independently recurrent network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from carousel.cells.activations import Activation, activation_function
from carousel.cells.cell import Cell
from carousel.errors import ConfigError


class IndRNN(Cell):
    """Independently recurrent network: each unit sees of the past itself alone.

        h_t = φ(W x_t + u ⊙ h_{t-1} + b)

    Li, Li, Cook, Zhu and Gao 2018, arXiv:1803.04831, eq. 4.

    Args:
        activation: φ, a name in `carousel.cells.ACTIVATIONS`, or any function of one tensor.
        longest: T, the most steps a sequence has. Then u starts between 0 and 2^(1/T), so that over T steps nothing
            grows to more than twice what it was; by default, between 0 and 1.

    Notes:
        The paper keeps u within its bound in training as well; here the bound is where u starts. Units of a layer meet
        in the W of the layer above: use two layers or more.

    >>> cell = IndRNN(input_size=3, hidden_size=4, longest=100)
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
        activation: str | Activation = "relu",
        longest: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size)
        if longest is not None and longest < 1:
            raise ConfigError(
                f"longest: not a number of steps (got {longest}); 1 or more; that of the longest sequence"
            )
        self.activation = activation_function(activation)
        self.candidate = nn.Linear(input_size, hidden_size, bias=bias)
        self.recurrent = nn.Parameter(torch.empty(hidden_size))
        nn.init.uniform_(self.recurrent, 0.0, 1.0 if longest is None else 2 ** (1 / longest))

    def step(self, x: Tensor, state: State) -> State:
        return self.State(self.activation(self.candidate(x) + self.recurrent * state.h))

    def recurrent_weights(self) -> Iterator[Tensor]:
        yield self.recurrent
