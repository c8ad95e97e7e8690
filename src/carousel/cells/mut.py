"""Three mutations of the gated recurrent unit, the best of ten thousand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from carousel.cells.cell import Cell, Packed
from carousel.errors import ConfigError

InputMap = Literal["linear", "paper"]


def _input_map(input_size: int, hidden_size: int, kind: InputMap) -> nn.Module:
    """P, what x passes through where the paper has x itself."""
    if kind == "linear":
        return nn.Linear(input_size, hidden_size, bias=False)
    if kind != "paper":
        raise ConfigError(f"input_map: unknown (got {kind!r}); linear, paper; linear fits every size")
    if input_size != hidden_size:
        raise ConfigError(
            f'input_map: "paper" adds x to h, which are not of one size (got {input_size}, {hidden_size}); '
            'input_size = hidden_size; "linear" fits every size'
        )
    return nn.Identity()


class MUT1(Cell):
    """Mutated gated recurrent unit, the first: its update gate reads the input alone.

        z_t = σ(W_z x_t + b_z)
        r_t = σ(W_r x_t + U_r h_{t-1} + b_r)
        a_t = tanh(U_a (r_t ⊙ h_{t-1}) + tanh(P x_t) + b_a)
        h_t = z_t ⊙ a_t + (1 − z_t) ⊙ h_{t-1}

    Jozefowicz, Zaremba and Sutskever 2015, "An empirical exploration of recurrent network architectures", ICML.

    Args:
        input_map: P. The paper has x_t itself, P = I, which needs I = H: "paper". By default, "linear", P is a matrix
            that is learned, so that cells of all sizes, and so all layers of a network, compute the same function.

    Notes:
        The paper's P is the identity, see `input_map`.

    >>> cell = MUT1(input_size=4, hidden_size=4, input_map="paper")
    >>> cell.step(torch.ones(2, 4), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)

    def __init__(self, input_size: int, hidden_size: int, *, input_map: InputMap = "linear", bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.update = nn.Linear(input_size, hidden_size, bias=bias)
        (self.reset,) = self.packed = Packed(input_size, hidden_size, maps=1, bias=bias)
        self.candidate = nn.Linear(hidden_size, hidden_size, bias=bias)
        self.input_map = _input_map(input_size, hidden_size, input_map)

    def step(self, x: Tensor, state: State) -> State:
        z = torch.sigmoid(self.update(x))
        r = torch.sigmoid(self.reset(x, state.h))
        a = torch.tanh(self.candidate(r * state.h) + torch.tanh(self.input_map(x)))
        return self.State(z * a + (1 - z) * state.h)

    def recurrent_weights(self) -> Iterator[Tensor]:
        yield from super().recurrent_weights()
        yield self.candidate.weight


class MUT2(Cell):
    """Mutated gated recurrent unit, the second: its reset gate adds the input as it is.

        z_t = σ(W_z x_t + U_z h_{t-1} + b_z)
        r_t = σ(P x_t + U_r h_{t-1} + b_r)
        a_t = tanh(W_a x_t + U_a (r_t ⊙ h_{t-1}) + b_a)
        h_t = z_t ⊙ a_t + (1 − z_t) ⊙ h_{t-1}

    Jozefowicz, Zaremba and Sutskever 2015, "An empirical exploration of recurrent network architectures", ICML.

    Args:
        input_map: P, as in `MUT1`.

    Notes:
        The paper's P is the identity: `input_map="paper"`.

    >>> cell = MUT2(input_size=4, hidden_size=4, input_map="paper")
    >>> cell.step(torch.ones(2, 4), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)

    def __init__(self, input_size: int, hidden_size: int, *, input_map: InputMap = "linear", bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.update, self.candidate = self.packed = Packed(input_size, hidden_size, maps=2, bias=bias)
        self.reset = nn.Linear(hidden_size, hidden_size, bias=bias)
        self.input_map = _input_map(input_size, hidden_size, input_map)

    def step(self, x: Tensor, state: State) -> State:
        z = torch.sigmoid(self.update(x, state.h))
        r = torch.sigmoid(self.reset(state.h) + self.input_map(x))
        a = torch.tanh(self.candidate(x, r * state.h))
        return self.State(z * a + (1 - z) * state.h)

    def recurrent_weights(self) -> Iterator[Tensor]:
        yield from super().recurrent_weights()
        yield self.reset.weight


class MUT3(Cell):
    """Mutated gated recurrent unit, the third: its update gate reads a squashed state.

        z_t = σ(W_z x_t + U_z tanh(h_{t-1}) + b_z)
        r_t = σ(W_r x_t + U_r h_{t-1} + b_r)
        a_t = tanh(W_a x_t + U_a (r_t ⊙ h_{t-1}) + b_a)
        h_t = z_t ⊙ a_t + (1 − z_t) ⊙ h_{t-1}

    Jozefowicz, Zaremba and Sutskever 2015, "An empirical exploration of recurrent network architectures", ICML.

    >>> cell = MUT3(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.reset, self.update, self.candidate = self.packed = Packed(input_size, hidden_size, maps=3, bias=bias)

    def step(self, x: Tensor, state: State) -> State:
        z = torch.sigmoid(self.update(x, torch.tanh(state.h)))
        r = torch.sigmoid(self.reset(x, state.h))
        a = torch.tanh(self.candidate(x, r * state.h))
        return self.State(z * a + (1 - z) * state.h)
