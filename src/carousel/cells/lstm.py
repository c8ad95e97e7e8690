"""Long short-term memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.cells.cell import Cell, Packed, draw_
from carousel.errors import ConfigError


class LSTM1997(Cell):
    """Long short-term memory as first published: no forget gate, the plain constant error carousel.

        i_t = σ(W_i x_t + U_i h_{t-1} + b_i)
        o_t = σ(W_o x_t + U_o h_{t-1} + b_o)
        c_t = c_{t-1} + i_t ⊙ g(W_g x_t + U_g h_{t-1} + b_g)
        h_t = o_t ⊙ h(c_t)

    with the squashing functions g(a) = 4σ(a) − 2, within [-2, 2], and h(c) = 2σ(c) − 1, within [-1, 1].

    Hochreiter and Schmidhuber 1997, Neural Computation 9(8), 1735-1780, section 4 and appendix A.1.

    Notes:
        One cell per memory block. The gradient is the whole one: the paper cuts it wherever it leaves a memory cell.
        As g(a) = 2 tanh(a/2) and h(c) = tanh(c/2), it is an `LSTM` with f_t = 1, half of W_g, U_g, b_g and half of c.

    >>> cell = LSTM1997(input_size=3, hidden_size=4)
    >>> state = cell.step(torch.ones(2, 3), cell.initial_state(2))
    >>> state.h.shape, state.c.shape
    (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)
        c: Tensor  # (B, H)

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.input, self.candidate, self.output = self.packed = Packed(input_size, hidden_size, maps=3, bias=bias)

    def step(self, x: Tensor, state: State) -> State:
        i = torch.sigmoid(self.input(x, state.h))
        g = 4 * torch.sigmoid(self.candidate(x, state.h)) - 2
        o = torch.sigmoid(self.output(x, state.h))
        c = state.c + i * g
        h = o * (2 * torch.sigmoid(c) - 1)
        return self.State(h, c)


class LSTM(Cell):
    """Long short-term memory with a forget gate.

        i_t = σ(W_i x_t + U_i h_{t-1} + b_i)
        f_t = σ(W_f x_t + U_f h_{t-1} + b_f)
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
        o_t = σ(W_o x_t + U_o h_{t-1} + b_o)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        h_t = o_t ⊙ tanh(c_t)

    Hochreiter and Schmidhuber 1997, Neural Computation 9(8), 1735-1780; the forget gate is that of Gers, Schmidhuber
    and Cummins 2000, Neural Computation 12(10), 2451-2471.

    Args:
        forget_bias: what b_f starts from. At 1 a new cell remembers (Jozefowicz et al. 2015, ICML, section 3.2).

    Notes:
        One cell per memory block and no peepholes; the cell's input and output both pass through tanh. `torch.nn.LSTM`
        computes the same but starts b_f around 0, and so forgets by half at each step.

    >>> cell = LSTM(input_size=3, hidden_size=4)
    >>> state = cell.step(torch.ones(2, 3), cell.initial_state(2))
    >>> state.h.shape, state.c.shape
    (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)
        c: Tensor  # (B, H)

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float = 1.0, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.packed = Packed(input_size, hidden_size, maps=4, bias=bias)
        self.input, self.forget, self.candidate, self.output = self.packed
        self.forget.start_bias(forget_bias)

    def step(self, x: Tensor, state: State) -> State:
        i = torch.sigmoid(self.input(x, state.h))
        f = torch.sigmoid(self.forget(x, state.h))
        g = torch.tanh(self.candidate(x, state.h))
        o = torch.sigmoid(self.output(x, state.h))
        c = f * state.c + i * g
        h = o * torch.tanh(c)
        return self.State(h, c)


class ProjectedLSTM(Cell):
    """Long short-term memory with a recurrent projection layer: a wide memory behind a narrow output.

        i_t = σ(W_i x_t + U_i h_{t-1} + b_i)
        f_t = σ(W_f x_t + U_f h_{t-1} + b_f)
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
        o_t = σ(W_o x_t + U_o h_{t-1} + b_o)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        h_t = R (o_t ⊙ tanh(c_t))

    Sak, Senior and Beaufays 2014, arXiv:1402.1128, eq. 7-12, with R their W_rm and h_t their r_t.

    Args:
        projection_size: P, the width of h_t and of what the next layer reads; less than the hidden size, by default
            half of it.
        forget_bias: as in `LSTM`.

    Notes:
        No peepholes and no second, non-recurrent projection p_t, as in `torch.nn.LSTM(proj_size=P)`.

    >>> cell = ProjectedLSTM(input_size=3, hidden_size=8, projection_size=2)
    >>> state = cell.step(torch.ones(5, 3), cell.initial_state(5))
    >>> state.h.shape, state.c.shape
    (torch.Size([5, 2]), torch.Size([5, 8]))
    """

    class State(NamedTuple):
        h: Tensor  # (B, P)
        c: Tensor  # (B, H)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        projection_size: int | None = None,
        forget_bias: float = 1.0,
        bias: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size)
        if hidden_size == 1:
            raise ConfigError("hidden_size: too narrow to project (got 1); 2 or more; LSTM has no projection")
        if projection_size is None:
            projection_size = hidden_size // 2
        if not 1 <= projection_size < hidden_size:
            raise ConfigError(
                f"projection_size: does not fit (got {projection_size}); 1 to {hidden_size - 1}, below hidden_size; "
                "LSTM has no projection"
            )
        self.projection_size = projection_size
        self.packed = Packed(input_size, hidden_size, maps=4, bias=bias, recurrent_size=projection_size)
        self.input, self.forget, self.candidate, self.output = self.packed
        self.projection = draw_(nn.Parameter(torch.empty(projection_size, hidden_size)), hidden_size)
        self.forget.start_bias(forget_bias)

    @property
    def output_size(self) -> int:
        return self.projection_size

    def step(self, x: Tensor, state: State) -> State:
        i = torch.sigmoid(self.input(x, state.h))
        f = torch.sigmoid(self.forget(x, state.h))
        g = torch.tanh(self.candidate(x, state.h))
        o = torch.sigmoid(self.output(x, state.h))
        c = f * state.c + i * g
        h = F.linear(o * torch.tanh(c), self.projection)
        return self.State(h, c)

    def initial_state(
        self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> State:
        _, c = super().initial_state(batch, device=device, dtype=dtype)
        return self.State(c.new_zeros(batch, self.projection_size), c)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, projection_size={self.projection_size}"
