"""The linear recurrent unit."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.cells.cell import Cell, Packed
from carousel.cells.scan import linear_scan
from carousel.errors import ConfigError


class LRU(Cell):
    """Linear recurrent unit: a complex diagonal recurrence, and its real part mixed for the output.

        λ = exp(−exp(ν) + i exp(θ))
        s_t = λ ⊙ s_{t-1} + exp(γ) ⊙ (B x_t)
        h_t = Re(C s_t) + D x_t

    Orvieto et al. 2023, arXiv:2303.06349v1, section 3 and appendix A; s_t is their x_k, x_t their u_k, h_t their y_k,
    and ν, θ, γ their ν^log, θ^log, γ^log.

    Args:
        state_size: N, the width of s; H by default.
        r_min, r_max: |λ| starts in this ring, evenly over its area. Close to 1 for long sequences.
        max_phase: the angle of λ starts between 0 and this.

    Notes:
        s is two real fields. In the code of the paper's appendix, D is diagonal; here it is a matrix, as in its
        equations, and starts with variance 1/I. What follows the unit in the paper's block, normalisation, a gated
        linear unit and a skip connection, is not in the cell: its outputs are linear in its inputs.

    >>> cell = LRU(input_size=3, hidden_size=4, state_size=8, r_min=0.9, r_max=0.999)
    >>> state = cell.step(torch.ones(2, 3), cell.initial_state(2))
    >>> state.h.shape, state.real.shape, state.imaginary.shape
    (torch.Size([2, 4]), torch.Size([2, 8]), torch.Size([2, 8]))
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)
        real: Tensor  # (B, N)
        imaginary: Tensor  # (B, N)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        state_size: int | None = None,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
    ) -> None:
        super().__init__(input_size, hidden_size)
        N = self.state_size = hidden_size if state_size is None else state_size
        if N < 1:
            raise ConfigError(f"state_size: not a size (got {state_size}); 1 or more; hidden_size by default")
        if not 0 <= r_min < r_max <= 1:
            raise ConfigError(
                f"r_min, r_max: no ring (got {r_min}, {r_max}); 0 <= r_min < r_max <= 1; where |λ| starts"
            )
        if not 0 < max_phase <= 2 * math.pi:
            raise ConfigError(f"max_phase: not an angle (got {max_phase}); above 0, to 2π; the largest of a λ")
        self.real, self.imaginary = self.B = Packed(input_size, N, maps=2, bias=False, recurrent_size=0)
        self.C_real = nn.Parameter(torch.empty(hidden_size, N))
        self.C_imaginary = nn.Parameter(torch.empty(hidden_size, N))
        self.D = nn.Parameter(torch.empty(hidden_size, input_size))
        for weight, variance in (
            (self.B.weight_input, 1 / (2 * input_size)),
            (self.C_real, 1 / N),
            (self.C_imaginary, 1 / N),
            (self.D, 1 / input_size),
        ):
            nn.init.normal_(weight, std=math.sqrt(variance))
        # Away from the ends of [0, 1], at which ν, θ or γ would be infinite.
        area, turn = torch.rand(2, N, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
        square = r_min**2 + area * (r_max**2 - r_min**2)  # |λ|²
        self.nu = nn.Parameter((-square.log() / 2).log().float())
        self.theta = nn.Parameter((max_phase * turn).log().float())
        self.gamma = nn.Parameter(((1 - square).log() / 2).float())

    def eigenvalues(self) -> tuple[Tensor, Tensor]:
        """The real and the imaginary part of λ."""
        radius, phase = torch.exp(-torch.exp(self.nu)), torch.exp(self.theta)
        return radius * torch.cos(phase), radius * torch.sin(phase)

    def driven(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The real and the imaginary part of exp(γ) ⊙ (B x)."""
        scale = torch.exp(self.gamma)
        return scale * self.real.input(x), scale * self.imaginary.input(x)

    def output(self, real: Tensor, imaginary: Tensor, x: Tensor) -> Tensor:
        """Re(C s) + D x."""
        return F.linear(real, self.C_real) + F.linear(-imaginary, self.C_imaginary) + F.linear(x, self.D)

    def step(self, x: Tensor, state: State) -> State:
        a, b = self.eigenvalues()
        p, q = self.driven(x)
        real = a * state.real - b * state.imaginary + p
        imaginary = b * state.real + a * state.imaginary + q
        return self.State(self.output(real, imaginary, x), real, imaginary)

    def scan(self, inputs: Tensor, state: State) -> State:
        before = torch.complex(state.real, state.imaginary)
        s = linear_scan(torch.complex(*self.eigenvalues()), torch.complex(*self.driven(inputs)), before)
        return self.State(self.output(s.real, s.imag, inputs), s.real, s.imag)

    def initial_state(
        self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> State:
        h, *_ = super().initial_state(batch, device=device, dtype=dtype)
        s = h.new_zeros(batch, self.state_size)
        return self.State(h, s, s)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, state_size={self.state_size}"
