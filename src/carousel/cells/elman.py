"""The simple recurrent network."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from carousel.cells.activations import Activation, activation_function
from carousel.cells.cell import Cell, Packed


class Elman(Cell):
    """Simple recurrent network.

        h_t = φ(W x_t + U h_{t-1} + b)

    Elman 1990, "Finding structure in time", Cognitive Science 14(2), 179-211, fig. 2.

    Args:
        activation: φ, a name in `carousel.cells.ACTIVATIONS`, or any function of one tensor.

    Notes:
        φ is tanh by default, as is usual since; the paper's units are logistic: `activation="sigmoid"`.

    >>> import torch
    >>> cell = Elman(input_size=3, hidden_size=4, activation="relu")
    >>> state = cell.step(torch.ones(2, 3), cell.initial_state(2))
    >>> state.h.shape
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
        bias: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.activation = activation_function(activation)
        (self.candidate,) = self.packed = Packed(input_size, hidden_size, maps=1, bias=bias)

    def step(self, x: Tensor, state: State) -> State:
        return self.State(self.activation(self.candidate(x, state.h)))
