"""Long short-term memory whose products and memory are normalised over the batch, step by step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from carousel.cells.cell import Cell, Packed
from carousel.errors import ConfigError


class StepNorm(nn.Module):
    """BN(a; γ) = γ ⊙ (a − mean) / √(variance + ε), with statistics of their own for each time step.

    In training those of the batch, which move running ones; in evaluation, and for a batch of one, the running ones,
    for steps past the last that has any those of the last.
    """

    def __init__(self, size: int, longest: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.scale = nn.Parameter(torch.full((size,), 0.1))
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.zeros(longest, size))
        self.register_buffer("variance", torch.ones(longest, size))

    def forward(self, a: Tensor, t: Tensor) -> Tensor:
        """a: (B, ·), of the time steps t: (B, 1), counted from 0."""
        if self.training and len(a) > 1:
            variance, mean = torch.var_mean(a, dim=0, correction=0)
            now = int(t[0])
            if now < len(self.mean):
                with torch.no_grad():
                    self.mean[now].lerp_(mean, self.momentum)
                    self.variance[now].lerp_(variance, self.momentum)
        else:
            steps = t[:, 0].long().clamp(max=len(self.mean) - 1)
            variance, mean = self.variance[steps], self.mean[steps]
        return self.scale * (a - mean) / torch.sqrt(variance + self.eps)


class BatchNormLSTM(Cell):
    """LSTM with recurrent batch normalisation.

        [i_t f_t g_t o_t] = BN(W x_t; γ_x) + BN(U h_{t-1}; γ_h) + b
        c_t = σ(f_t) ⊙ c_{t-1} + σ(i_t) ⊙ tanh(g_t)
        h_t = σ(o_t) ⊙ tanh(BN(c_t; γ_c) + β_c)

    Cooijmans et al. 2017, arXiv:1603.09025, section 3.

    Args:
        longest: T_max, the time steps that have statistics of their own; later ones take those of the last.
        forget_bias: what b_f starts from.

    Notes:
        γ starts at 0.1, and the biases of the first two BN, redundant beside b, are left out, as in the paper. With
        lengths, the statistics of a step are those of the sequences that have it; the paper's sequences are equally
        long. The sequences of a batch know of each other in training, so it runs eagerly, step by step; the state
        counts the steps in a third field, t, and all sequences of a batch should be at the same one.

    >>> cell = BatchNormLSTM(input_size=3, hidden_size=4, longest=10)
    >>> state = cell.step(torch.randn(5, 3), cell.initial_state(5))
    >>> state.h.shape, state.t[0].item()
    (torch.Size([5, 4]), 1.0)
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)
        c: Tensor  # (B, H)
        t: Tensor  # (B, 1) the steps taken

    def __init__(self, input_size: int, hidden_size: int, *, longest: int = 100, forget_bias: float = 1.0) -> None:
        super().__init__(input_size, hidden_size)
        if longest < 1:
            raise ConfigError(f"longest: not a number of steps (got {longest}); 1 or more; the usual sequence length")
        self.packed = Packed(input_size, hidden_size, maps=4, bias=False)
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        self.norm_x, self.norm_h = StepNorm(4 * hidden_size, longest), StepNorm(4 * hidden_size, longest)
        self.norm_c, self.bias_c = StepNorm(hidden_size, longest), nn.Parameter(torch.zeros(hidden_size))
        with torch.no_grad():
            self.bias[hidden_size : 2 * hidden_size] = forget_bias

    def step(self, x: Tensor, state: State) -> State:
        h, c, t = state
        W, U, _ = self.packed.rows(0, 4)
        products = self.norm_x(x @ W.t(), t) + self.norm_h(h @ U.t(), t) + self.bias
        i, f, g, o = products.chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(self.norm_c(c, t) + self.bias_c)
        return self.State(h, c, t + 1)

    def initial_state(
        self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> State:
        zeros = torch.zeros(batch, self.hidden_size, device=device, dtype=dtype)
        if device is None or dtype is None:
            zeros = zeros.to(device=device or self.bias.device, dtype=dtype or self.bias.dtype)
        return self.State(zeros, zeros, zeros[:, :1])
