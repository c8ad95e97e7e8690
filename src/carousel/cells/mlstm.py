"""Long short-term memory with a matrix as its memory."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.cells.cell import Cell, Packed, draw_
from carousel.cells.scan import linear_scan
from carousel.cells.slstm import check_forget, check_heads


class MLSTM(Cell):
    """mLSTM: a matrix C that keeps values by their keys, exponential gates, a normaliser n and a stabiliser m.

        q_t = W_q x_t + b_q,  k_t = (W_k x_t + b_k) / √d,  v_t = W_v x_t + b_v
        i_t = exp(ĩ_t)              ĩ_t = w_i x_t + b_i
        f_t = σ(f̃_t) or exp(f̃_t)   f̃_t = w_f x_t + b_f
        o_t = σ(W_o x_t + b_o)
        C_t = f_t C_{t-1} + i_t v_t k_tᵀ
        n_t = f_t n_{t-1} + i_t k_t
        h_t = o_t ⊙ C_t q_t / max(|n_tᵀ q_t|, 1)

    for each head with its own d = H/heads columns of q, k, v, o and h and its own gates, two numbers. As exp could
    overflow, C and n are kept as multiples of exp(m_t):

        m_t = max(log f_t + m_{t-1}, ĩ_t),  i'_t = exp(ĩ_t − m_t),  f'_t = exp(log f_t + m_{t-1} − m_t)
        h_t = o_t ⊙ C_t q_t / max(|n_tᵀ q_t|, exp(−m_t))

    Beck et al. 2024, arXiv:2405.04517, section 2.3.

    Args:
        heads: how many matrices there are; a divisor of the hidden size.
        forget: "sigmoid" or "exp", what makes f_t of f̃_t.
        forget_bias: what b_f starts from; the authors' code spreads it over the heads, from 3 to 6.
        chunk: how many steps are taken at once where whole sequences are.

    Notes:
        The recurrence alone, without the paper's convolution, group norm and projections around it. The lower bound is
        the paper's 1, which is exp(−m_t) for the multiples; it is held between exp(-14) and exp(80), where the authors'
        code adds 1e-6, so that nothing is divided by 0. b_k is divided by √d too.

        Nothing reads h_{t-1}: there are no recurrent weights, and a sequence is taken chunk by chunk, as attention
        within each and by C from one to the next. The compiler knows no matrices in a state: single steps are eager.

    >>> cell = MLSTM(input_size=3, hidden_size=4, heads=2)
    >>> state = cell.step(torch.ones(5, 3), cell.initial_state(5))
    >>> state.h.shape, state.C.shape
    (torch.Size([5, 4]), torch.Size([5, 2, 2, 2]))
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)
        C: Tensor  # (B, heads, d, d)
        n: Tensor  # (B, heads, d)
        m: Tensor  # (B, heads)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        heads: int = 1,
        forget: Literal["sigmoid", "exp"] = "sigmoid",
        forget_bias: float = 3.0,
        chunk: int = 64,
        bias: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size)
        check_heads(heads, hidden_size)
        check_forget(forget)
        self.heads, self.forget_activation, self.chunk = heads, forget, chunk
        self.packed = Packed(input_size, hidden_size, maps=4, bias=bias, recurrent_size=0)
        self.query, self.key, self.value, self.output = self.packed
        self.input, self.forget = self.gates = Packed(input_size, heads, maps=2, bias=bias, recurrent_size=0)
        for parameter in self.gates.parameters():
            draw_(parameter, hidden_size)
        self.forget.start_bias(forget_bias)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """q, k, v: (..., heads, d), log i and log f: (..., heads), and o: (..., H)."""
        shape = (self.heads, self.hidden_size // self.heads)
        q, k, v = (torch.unflatten(affine.input(x), -1, shape) for affine in (self.query, self.key, self.value))
        log_i, log_f = self.input.input(x), self.forget.input(x)
        if self.forget_activation == "sigmoid":
            log_f = F.logsigmoid(log_f)
        return q, k / math.sqrt(shape[1]), v, log_i, log_f, torch.sigmoid(self.output.input(x))

    def step(self, x: Tensor, state: State) -> State:
        q, k, v, log_i, log_f, o = self.maps(x)
        m = torch.maximum(log_f + state.m, log_i)
        i, f = torch.exp(log_i - m), torch.exp(log_f + state.m - m)
        C = f[..., None, None] * state.C + i[..., None, None] * outer(v, k)
        n = f[..., None] * state.n + i[..., None] * k
        h = o * normalised((C @ q[..., None])[..., 0], (n * q).sum(-1), m)
        return self.State(h, C, n, m)

    def scan(self, inputs: Tensor, state: State) -> State:
        q, k, v, log_i, log_f, o = self.maps(inputs)
        m = _stabiliser(log_i, log_f, state.m)
        before = torch.cat([state.m[None], m[:-1]])
        i, f = torch.exp(log_i - m), torch.exp(log_f + before - m)
        C = linear_scan(f[..., None, None], i[..., None, None] * outer(v, k), state.C)
        n = linear_scan(f[..., None], i[..., None] * k, state.n)
        h = o * normalised((C @ q[..., None])[..., 0], (n * q).sum(-1), m)
        return self.State(h, C, n, m)

    def scan_to(self, inputs: Tensor, state: State, last: Tensor | None = None) -> tuple[Tensor, State]:
        """As `Cell.scan_to`, with one C for each chunk rather than for each step."""
        q, k, v, log_i, log_f, o = self.maps(inputs)
        if last is not None:  # past it a sequence keeps everything and takes nothing
            over = (torch.arange(len(inputs), device=inputs.device)[:, None] > last)[..., None]
            log_i, log_f = log_i.masked_fill(over, -math.inf), log_f.masked_fill(over, 0.0)
        q, k, v = (whole.permute(1, 2, 0, 3) for whole in (q, k, v))  # (B, heads, T, d)
        log_i, log_f = (whole.permute(1, 2, 0) for whole in (log_i, log_f))  # (B, heads, T)
        outputs = []
        _, C, n, m = state
        parts = [torch.split(whole, self.chunk, 2) for whole in (q, k, v, log_i, log_f)]
        for q, k, v, log_i, log_f in zip(*parts, strict=True):
            read, C, n, m = _chunk(q, k, v, log_i, log_f, C, n, m)
            outputs.append(read)
        h = o * torch.cat(outputs, 2).permute(2, 0, 1, 3).flatten(2)
        end = h[-1] if last is None else h[last, torch.arange(len(last), device=inputs.device)]
        return h, self.State(end, C, n, m)

    def initial_state(
        self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> State:
        like = super().initial_state(batch, device=device, dtype=dtype).h
        d = self.hidden_size // self.heads
        shapes = (batch, self.heads, d, d), (batch, self.heads, d), (batch, self.heads)
        return self.State(like, *(like.new_zeros(shape) for shape in shapes))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, heads={self.heads}, forget={self.forget_activation!r}"


def outer(v: Tensor, k: Tensor) -> Tensor:
    """v kᵀ, over the last axis."""
    return v[..., :, None] * k[..., None, :]


def normalised(read: Tensor, length: Tensor, m: Tensor) -> Tensor:
    """C q / max(|nᵀ q|, exp(−m)) of all heads side by side, from C q: (..., heads, d) and nᵀ q: (..., heads)."""
    return (read / _bound(length, m)[..., None]).flatten(-2)


def _bound(length: Tensor, m: Tensor) -> Tensor:
    return torch.maximum(length.abs(), torch.exp(-m.clamp(-80, 14)))


def _stabiliser(log_i: Tensor, log_f: Tensor, m: Tensor) -> Tensor:
    """m_t = max(log f_t + m_{t-1}, ĩ_t) after every step, from the m before the first."""
    total = log_f.cumsum(0)
    return total + torch.maximum(m, (log_i - total).cummax(0).values)


def _chunk(
    q: Tensor, k: Tensor, v: Tensor, log_i: Tensor, log_f: Tensor, C: Tensor, n: Tensor, m: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Some steps at once: what each reads, over its bound, and C, n and m after them.

    Step t reads what each step s <= t wrote as attention does, weighted by how much of it is left, W_ts = exp(ĩ_s +
    log f_{s+1} + ... + log f_t − m_t), and from C what was there before the chunk. q, k, v: (B, heads, L, d); log i,
    log f: (B, heads, L).
    """
    total = log_f.cumsum(-1)
    new_m = total + torch.maximum(m[..., None], (log_i - total).cummax(-1).values)  # (B, heads, L)
    left = (total - new_m)[..., :, None] + (log_i - total)[..., None, :]  # (B, heads, L, L): t, s
    future = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).triu(1)
    W = left.masked_fill(future, -math.inf).exp()
    kept = torch.exp(total + m[..., None] - new_m)
    attention = W * (q @ k.mT)
    read = attention @ v + kept[..., None] * (q @ C.mT)
    length = attention.sum(-1) + kept * (q @ n[..., None])[..., 0]
    written = W[..., -1, :, None] * v
    C = kept[..., -1, None, None] * C + written.mT @ k
    n = kept[..., -1, None] * n + (W[..., -1:, :] @ k)[..., 0, :]
    return read / _bound(length, new_m)[..., None], C, n, new_m[..., -1]
