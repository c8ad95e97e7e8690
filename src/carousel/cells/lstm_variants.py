"""Long short-term memory with peepholes, and with one part taken away at a time (Greff et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.cells.cell import Cell, Packed, draw_
from carousel.cells.lstm import LSTM


class _PeepholeCell(Cell):
    """A cell whose gates see the memory c through peepholes: vectors p_i, p_f and p_o, as far as there are gates."""

    def recurrent_weights(self) -> Iterator[Tensor]:
        yield from super().recurrent_weights()
        yield from (weight for name, weight in self.named_parameters() if name in ("p_i", "p_f", "p_o"))


def _peephole(hidden_size: int) -> nn.Parameter:
    return draw_(nn.Parameter(torch.empty(hidden_size)), hidden_size)


class PeepholeLSTM(_PeepholeCell):
    """Long short-term memory whose gates see the memory: the "vanilla" LSTM of Greff et al., their V.

        i_t = σ(W_i x_t + U_i h_{t-1} + p_i ⊙ c_{t-1} + b_i)
        f_t = σ(W_f x_t + U_f h_{t-1} + p_f ⊙ c_{t-1} + b_f)
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        o_t = σ(W_o x_t + U_o h_{t-1} + p_o ⊙ c_t + b_o)
        h_t = o_t ⊙ tanh(c_t)

    Gers and Schmidhuber 2000, IJCNN, 189-194, and Gers, Schraudolph and Schmidhuber 2002, JMLR 3, 115-143; written as
    in Greff et al. 2016, arXiv:1503.04069v2, section II.

    Args:
        forget_bias: what b_f starts from. At 1 a new cell remembers (Jozefowicz et al. 2015, ICML, section 3.2).

    Notes:
        One cell per memory block. U, g and h are Greff et al.'s R, z and y.

    >>> cell = PeepholeLSTM(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    State = LSTM.State

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float = 1.0, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.packed = Packed(input_size, hidden_size, maps=4, bias=bias)
        self.input, self.forget, self.candidate, self.output = self.packed
        self.p_i, self.p_f, self.p_o = _peephole(hidden_size), _peephole(hidden_size), _peephole(hidden_size)
        self.forget.start_bias(forget_bias)

    def step(self, x: Tensor, state: LSTM.State) -> LSTM.State:
        i = torch.sigmoid(self.input(x, state.h) + self.p_i * state.c)
        f = torch.sigmoid(self.forget(x, state.h) + self.p_f * state.c)
        g = torch.tanh(self.candidate(x, state.h))
        c = f * state.c + i * g
        o = torch.sigmoid(self.output(x, state.h) + self.p_o * c)
        h = o * torch.tanh(c)
        return self.State(h, c)


class NoInputGateLSTM(_PeepholeCell):
    """`PeepholeLSTM` without its input gate (NIG): i_t = 1.

        f_t = σ(W_f x_t + U_f h_{t-1} + p_f ⊙ c_{t-1} + b_f)
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
        c_t = f_t ⊙ c_{t-1} + g_t
        o_t = σ(W_o x_t + U_o h_{t-1} + p_o ⊙ c_t + b_o)
        h_t = o_t ⊙ tanh(c_t)

    Greff et al. 2016, arXiv:1503.04069v2, the variant NIG.

    Args:
        forget_bias: as in `PeepholeLSTM`.

    >>> cell = NoInputGateLSTM(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    State = LSTM.State

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float = 1.0, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.forget, self.candidate, self.output = self.packed = Packed(input_size, hidden_size, maps=3, bias=bias)
        self.p_f, self.p_o = _peephole(hidden_size), _peephole(hidden_size)
        self.forget.start_bias(forget_bias)

    def step(self, x: Tensor, state: LSTM.State) -> LSTM.State:
        f = torch.sigmoid(self.forget(x, state.h) + self.p_f * state.c)
        g = torch.tanh(self.candidate(x, state.h))
        c = f * state.c + g
        o = torch.sigmoid(self.output(x, state.h) + self.p_o * c)
        h = o * torch.tanh(c)
        return self.State(h, c)


class NoForgetGateLSTM(_PeepholeCell):
    """`PeepholeLSTM` without its forget gate (NFG): f_t = 1.

        i_t = σ(W_i x_t + U_i h_{t-1} + p_i ⊙ c_{t-1} + b_i)
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
        c_t = c_{t-1} + i_t ⊙ g_t
        o_t = σ(W_o x_t + U_o h_{t-1} + p_o ⊙ c_t + b_o)
        h_t = o_t ⊙ tanh(c_t)

    Greff et al. 2016, arXiv:1503.04069v2, the variant NFG.

    >>> cell = NoForgetGateLSTM(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    State = LSTM.State

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.input, self.candidate, self.output = self.packed = Packed(input_size, hidden_size, maps=3, bias=bias)
        self.p_i, self.p_o = _peephole(hidden_size), _peephole(hidden_size)

    def step(self, x: Tensor, state: LSTM.State) -> LSTM.State:
        i = torch.sigmoid(self.input(x, state.h) + self.p_i * state.c)
        g = torch.tanh(self.candidate(x, state.h))
        c = state.c + i * g
        o = torch.sigmoid(self.output(x, state.h) + self.p_o * c)
        h = o * torch.tanh(c)
        return self.State(h, c)


class NoOutputGateLSTM(_PeepholeCell):
    """`PeepholeLSTM` without its output gate (NOG): o_t = 1.

        i_t = σ(W_i x_t + U_i h_{t-1} + p_i ⊙ c_{t-1} + b_i)
        f_t = σ(W_f x_t + U_f h_{t-1} + p_f ⊙ c_{t-1} + b_f)
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        h_t = tanh(c_t)

    Greff et al. 2016, arXiv:1503.04069v2, the variant NOG.

    Args:
        forget_bias: as in `PeepholeLSTM`.

    >>> cell = NoOutputGateLSTM(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    State = LSTM.State

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float = 1.0, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.input, self.forget, self.candidate = self.packed = Packed(input_size, hidden_size, maps=3, bias=bias)
        self.p_i, self.p_f = _peephole(hidden_size), _peephole(hidden_size)
        self.forget.start_bias(forget_bias)

    def step(self, x: Tensor, state: LSTM.State) -> LSTM.State:
        i = torch.sigmoid(self.input(x, state.h) + self.p_i * state.c)
        f = torch.sigmoid(self.forget(x, state.h) + self.p_f * state.c)
        g = torch.tanh(self.candidate(x, state.h))
        c = f * state.c + i * g
        h = torch.tanh(c)
        return self.State(h, c)


class NoInputActivationLSTM(PeepholeLSTM):
    """`PeepholeLSTM` without its input activation function (NIAF): what is written is not squashed.

        i_t = σ(W_i x_t + U_i h_{t-1} + p_i ⊙ c_{t-1} + b_i)
        f_t = σ(W_f x_t + U_f h_{t-1} + p_f ⊙ c_{t-1} + b_f)
        g_t = W_g x_t + U_g h_{t-1} + b_g
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        o_t = σ(W_o x_t + U_o h_{t-1} + p_o ⊙ c_t + b_o)
        h_t = o_t ⊙ tanh(c_t)

    Greff et al. 2016, arXiv:1503.04069v2, the variant NIAF.

    Args:
        forget_bias: as in `PeepholeLSTM`.

    >>> cell = NoInputActivationLSTM(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    def step(self, x: Tensor, state: LSTM.State) -> LSTM.State:
        i = torch.sigmoid(self.input(x, state.h) + self.p_i * state.c)
        f = torch.sigmoid(self.forget(x, state.h) + self.p_f * state.c)
        g = self.candidate(x, state.h)
        c = f * state.c + i * g
        o = torch.sigmoid(self.output(x, state.h) + self.p_o * c)
        h = o * torch.tanh(c)
        return self.State(h, c)


class NoOutputActivationLSTM(PeepholeLSTM):
    """`PeepholeLSTM` without its output activation function (NOAF): what is read is not squashed.

        i_t = σ(W_i x_t + U_i h_{t-1} + p_i ⊙ c_{t-1} + b_i)
        f_t = σ(W_f x_t + U_f h_{t-1} + p_f ⊙ c_{t-1} + b_f)
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        o_t = σ(W_o x_t + U_o h_{t-1} + p_o ⊙ c_t + b_o)
        h_t = o_t ⊙ c_t

    Greff et al. 2016, arXiv:1503.04069v2, the variant NOAF.

    Args:
        forget_bias: as in `PeepholeLSTM`.

    >>> cell = NoOutputActivationLSTM(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    def step(self, x: Tensor, state: LSTM.State) -> LSTM.State:
        i = torch.sigmoid(self.input(x, state.h) + self.p_i * state.c)
        f = torch.sigmoid(self.forget(x, state.h) + self.p_f * state.c)
        g = torch.tanh(self.candidate(x, state.h))
        c = f * state.c + i * g
        o = torch.sigmoid(self.output(x, state.h) + self.p_o * c)
        h = o * c
        return self.State(h, c)


class CoupledLSTM(_PeepholeCell):
    """`PeepholeLSTM` with coupled input and forget gates (CIFG): what is written replaces as much.

        i_t = σ(W_i x_t + U_i h_{t-1} + p_i ⊙ c_{t-1} + b_i)
        f_t = 1 − i_t
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        o_t = σ(W_o x_t + U_o h_{t-1} + p_o ⊙ c_t + b_o)
        h_t = o_t ⊙ tanh(c_t)

    Greff et al. 2016, arXiv:1503.04069v2, the variant CIFG.

    Args:
        forget_bias: b_i starts from its negative, so that f_t starts as that of a `PeepholeLSTM` does.

    >>> cell = CoupledLSTM(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    State = LSTM.State

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float = 1.0, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.input, self.candidate, self.output = self.packed = Packed(input_size, hidden_size, maps=3, bias=bias)
        self.p_i, self.p_o = _peephole(hidden_size), _peephole(hidden_size)
        self.input.start_bias(-forget_bias)

    def step(self, x: Tensor, state: LSTM.State) -> LSTM.State:
        i = torch.sigmoid(self.input(x, state.h) + self.p_i * state.c)
        f = 1 - i
        g = torch.tanh(self.candidate(x, state.h))
        c = f * state.c + i * g
        o = torch.sigmoid(self.output(x, state.h) + self.p_o * c)
        h = o * torch.tanh(c)
        return self.State(h, c)


class FullGateLSTM(_PeepholeCell):
    """`PeepholeLSTM` with full gate recurrence (FGR): each gate also reads all three gates of the step before.

        i_t = σ(W_i x_t + U_i h_{t-1} + p_i ⊙ c_{t-1} + R_ii i_{t-1} + R_fi f_{t-1} + R_oi o_{t-1} + b_i)
        f_t = σ(W_f x_t + U_f h_{t-1} + p_f ⊙ c_{t-1} + R_if i_{t-1} + R_ff f_{t-1} + R_of o_{t-1} + b_f)
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        o_t = σ(W_o x_t + U_o h_{t-1} + p_o ⊙ c_t + R_io i_{t-1} + R_fo f_{t-1} + R_oo o_{t-1} + b_o)
        h_t = o_t ⊙ tanh(c_t)

    Greff et al. 2016, arXiv:1503.04069v2, the variant FGR.

    Args:
        forget_bias: as in `PeepholeLSTM`.

    Notes:
        The nine matrices are blocks of `recurrence`: rows in the order of the gates that read, columns in that of the
        gates that are read, each i, f, o. The gates before the first step count as closed.

    >>> cell = FullGateLSTM(input_size=3, hidden_size=4)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).f.shape
    torch.Size([2, 4])
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)
        c: Tensor  # (B, H)
        i: Tensor  # (B, H)
        f: Tensor  # (B, H)
        o: Tensor  # (B, H)

    def __init__(self, input_size: int, hidden_size: int, *, forget_bias: float = 1.0, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size)
        self.packed = Packed(input_size, hidden_size, maps=4, bias=bias)
        self.input, self.forget, self.candidate, self.output = self.packed
        self.p_i, self.p_f, self.p_o = _peephole(hidden_size), _peephole(hidden_size), _peephole(hidden_size)
        self.recurrence = draw_(nn.Parameter(torch.empty(3 * hidden_size, 3 * hidden_size)), hidden_size)
        self.forget.start_bias(forget_bias)

    def recurrent_weights(self) -> Iterator[Tensor]:
        yield from super().recurrent_weights()
        gates = [slice(k * self.hidden_size, (k + 1) * self.hidden_size) for k in range(3)]
        yield from (self.recurrence[reader, read] for reader in gates for read in gates)

    def step(self, x: Tensor, state: State) -> State:
        before = torch.cat([state.i, state.f, state.o], dim=1)
        to_i, to_f, to_o = F.linear(before, self.recurrence).chunk(3, dim=1)
        i = torch.sigmoid(self.input(x, state.h) + self.p_i * state.c + to_i)
        f = torch.sigmoid(self.forget(x, state.h) + self.p_f * state.c + to_f)
        g = torch.tanh(self.candidate(x, state.h))
        c = f * state.c + i * g
        o = torch.sigmoid(self.output(x, state.h) + self.p_o * c + to_o)
        h = o * torch.tanh(c)
        return self.State(h, c, i, f, o)
