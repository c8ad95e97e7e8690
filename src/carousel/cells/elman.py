"""The simple recurrent network, and its like."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from carousel.cells.activations import Activation, activation_function
from carousel.cells.cell import Cell, Packed
from carousel.cells.initialisation import identity_
from carousel.errors import ConfigError


class Elman(Cell):
    """Simple recurrent network.

        h_t = φ(W x_t + U h_{t-1} + b)

    Elman 1990, "Finding structure in time", Cognitive Science 14(2), 179-211, fig. 2.

    Args:
        activation: φ, a name in `carousel.cells.ACTIVATIONS`, or any function of one tensor.

    Notes:
        φ is tanh by default, as is usual since; the paper's units are logistic: `activation="sigmoid"`.

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


class IRNN(Elman):
    """Simple recurrent network of rectified linear units that starts as an accumulator: U = I.

        h_t = max(0, W x_t + U h_{t-1} + b)

    Le, Jaitly and Hinton 2015, arXiv:1504.00941v2, section 2.

    Args:
        scale: U starts as scale · I; below 1, the past fades (the paper has 0.01 where little memory is wanted).

    Notes:
        U starts as the identity, b at 0, and W from a normal distribution of standard deviation 0.001.

    >>> cell = IRNN(input_size=3, hidden_size=4)
    >>> state = cell.State(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    >>> cell.step(torch.zeros(1, 3), state).h
    tensor([[1., 2., 3., 4.]], grad_fn=<ReluBackward0>)
    """

    def __init__(self, input_size: int, hidden_size: int, *, scale: float = 1.0, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, activation="relu", bias=bias)
        identity_(self, scale)
        nn.init.normal_(self.packed.weight_input, std=0.001)
        if self.packed.bias is not None:
            nn.init.zeros_(self.packed.bias)


class Jordan(Cell):
    """Recurrent network whose context is its output, where that of `Elman` is its hidden layer.

        h_t = φ(W x_t + U y_{t-1} + b)
        y_t = ψ(V h_t + c)

    Jordan 1986, "Serial order: a parallel distributed processing approach", ICS Report 8604, UC San Diego.

    Args:
        output_size: O, the width of y_t; H by default.
        activation: φ, as in `Elman`.
        output_activation: ψ, likewise.

    Notes:
        The paper's context also feeds back to itself, as a decaying sum of outputs; here, as is usual since, it is the
        last output alone. φ is tanh and ψ the identity by default; the paper's units are logistic.

    >>> cell = Jordan(input_size=3, hidden_size=8, output_size=2)
    >>> cell.step(torch.ones(5, 3), cell.initial_state(5)).y.shape
    torch.Size([5, 2])
    """

    class State(NamedTuple):
        y: Tensor  # (B, O)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        output_size: int | None = None,
        activation: str | Activation = "tanh",
        output_activation: str | Activation = "identity",
        bias: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self._output_size = hidden_size if output_size is None else output_size
        if self._output_size < 1:
            raise ConfigError(f"output_size: not a size (got {output_size}); 1 or more; hidden_size by default")
        self.activation = activation_function(activation)
        self.output_activation = activation_function(output_activation, "output_activation")
        self.packed = Packed(input_size, hidden_size, maps=1, bias=bias, recurrent_size=self.output_size)
        (self.hidden,) = self.packed
        self.output = nn.Linear(hidden_size, self.output_size, bias=bias)

    @property
    def output_size(self) -> int:
        return self._output_size

    def step(self, x: Tensor, state: State) -> State:
        h = self.activation(self.hidden(x, state.y))
        return self.State(self.output_activation(self.output(h)))

    def initial_state(
        self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> State:
        (like,) = super().initial_state(batch, device=device, dtype=dtype)
        return self.State(like.new_zeros(batch, self.output_size))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, output_size={self.output_size}"
