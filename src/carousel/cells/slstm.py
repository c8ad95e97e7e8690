"""Long short-term memory with exponential gates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.cells.cell import Cell, Packed
from carousel.errors import ConfigError


class Heads(Packed):
    """Affine maps `W x + U h + b` whose U are block-diagonal: each head reads its own part of h alone.

        weight_hidden  (K·H, H/heads)   of each map the blocks of its heads, one below the other

    >>> Heads(input_size=3, hidden_size=4, maps=1, heads=2).rows(0, 1)[1].count_nonzero(dim=1)
    tensor([2, 2, 2, 2])
    """

    def __init__(self, input_size: int, hidden_size: int, maps: int, *, heads: int, bias: bool = True) -> None:
        super().__init__(input_size, hidden_size, maps, bias=bias, recurrent_size=hidden_size // heads)

    def rows(self, first: int, last: int) -> tuple[Tensor, Tensor, Tensor | None]:
        W, U, b = super().rows(first, last)
        d, heads = self.recurrent_size, self.hidden_size // self.recurrent_size
        if heads > 1:
            blocks = [U[start : start + d] for start in range(0, (last - first) * self.hidden_size, d)]
            maps = [blocks[k : k + heads] for k in range(0, len(blocks), heads)]
            U = torch.cat([torch.block_diag(*own) for own in maps])  # type: ignore[no-untyped-call]
        return W, U, b


class SLSTM(Cell):
    """sLSTM: long short-term memory with exponential gates, a normaliser n and a stabiliser m.

        z_t = tanh(W_z x_t + R_z h_{t-1} + b_z)
        i_t = exp(ĩ_t)              ĩ_t = W_i x_t + R_i h_{t-1} + b_i
        f_t = σ(f̃_t) or exp(f̃_t)   f̃_t = W_f x_t + R_f h_{t-1} + b_f
        o_t = σ(W_o x_t + R_o h_{t-1} + b_o)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ z_t
        n_t = f_t ⊙ n_{t-1} + i_t
        h_t = o_t ⊙ c_t / n_t

    in which exp could overflow. So c and n are kept as multiples of exp(m_t), which cancels in h_t:

        m_t = max(log f_t + m_{t-1}, ĩ_t),  i'_t = exp(ĩ_t − m_t),  f'_t = exp(log f_t + m_{t-1} − m_t)

    Beck et al. 2024, arXiv:2405.04517, section 2.2.

    Args:
        heads: R are block-diagonal with so many blocks, H/heads wide each; a divisor of the hidden size.
        forget: "sigmoid" or "exp", what makes f_t of f̃_t.
        forget_bias: what b_f starts from.

    Notes:
        The recurrence alone, without the paper's convolution, group norm and projections around it. A state of zeros
        holds nothing, n = 0, and its m counts for nothing: then m_t = ĩ_t, as in the authors' code. From there on n_t
        is at least 1. More heads have fewer weights; the loop multiplies by the whole of R, zeros included.

    >>> cell = SLSTM(input_size=3, hidden_size=4, heads=2)
    >>> cell.step(torch.ones(2, 3), cell.initial_state(2)).n
    tensor([[1., 1., 1., 1.],
            [1., 1., 1., 1.]], grad_fn=<AddBackward0>)
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)
        c: Tensor  # (B, H)
        n: Tensor  # (B, H)
        m: Tensor  # (B, H)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        heads: int = 1,
        forget: Literal["sigmoid", "exp"] = "sigmoid",
        forget_bias: float = 1.0,
        bias: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size)
        check_heads(heads, hidden_size)
        check_forget(forget)
        self.heads, self.forget_activation = heads, forget
        self.packed = Heads(input_size, hidden_size, maps=4, heads=heads, bias=bias)
        self.input, self.forget, self.candidate, self.output = self.packed
        self.forget.start_bias(forget_bias)

    def recurrent_weights(self) -> Iterator[Tensor]:
        d = self.packed.recurrent_size
        yield from (self.packed.weight_hidden[k : k + d] for k in range(0, 4 * self.hidden_size, d))

    def step(self, x: Tensor, state: State) -> State:
        z = torch.tanh(self.candidate(x, state.h))
        log_i = self.input(x, state.h)
        log_f = self.forget(x, state.h)
        if self.forget_activation == "sigmoid":
            log_f = F.logsigmoid(log_f)
        o = torch.sigmoid(self.output(x, state.h))
        kept = torch.where(state.n == 0, log_i, log_f + state.m)
        m = torch.maximum(kept, log_i)
        i = torch.exp(log_i - m)
        f = torch.exp(kept - m)
        c = f * state.c + i * z
        n = f * state.n + i
        h = o * c / n
        return self.State(h, c, n, m)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, heads={self.heads}, forget={self.forget_activation!r}"


def check_heads(heads: int, hidden_size: int) -> None:
    """Raise ConfigError unless the hidden size can be shared out among the heads."""
    if heads < 1 or hidden_size % heads:
        divisors = ", ".join(str(k) for k in range(1, hidden_size + 1) if hidden_size % k == 0)
        raise ConfigError(f"heads: does not divide hidden_size (got {heads}); {divisors}; 1 is one head for all")


def check_forget(forget: str) -> None:
    """Raise ConfigError unless it names what makes a forget gate."""
    if forget not in ("sigmoid", "exp"):
        raise ConfigError(f"forget: unknown (got {forget!r}); sigmoid, exp; sigmoid never grows what is kept")
