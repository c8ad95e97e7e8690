"""The simple recurrent unit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from carousel.cells.cell import Cell, Packed, draw_
from carousel.cells.scan import linear_scan


class SRU(Cell):
    """Simple recurrent unit: no matrix product with the state, and a highway around it.

        f_t = σ(W_f x_t + v_f ⊙ c_{t-1} + b_f)
        c_t = f_t ⊙ c_{t-1} + (1 − f_t) ⊙ (W x_t)
        r_t = σ(W_r x_t + v_r ⊙ c_{t-1} + b_r)
        h_t = r_t ⊙ c_t + (1 − r_t) ⊙ α x_t

    Lei et al. 2018, arXiv:1709.02755v5, eq. 1-4, with the scaling correction α = √(1 + 2 exp(b)) of section 3.2.

    Args:
        recurrent_gates: whether there are v_f and v_r. With them the cell is not linear in its state. Without, the
            gates read the input alone, as in the first version of the paper, and the cell has a scan.
        highway_bias: b, what b_r starts from; negative to begin with α x_t passed on.

    Notes:
        Where the sizes differ, W_h x_t stands for x_t, as in the authors' code. Version 1 of the paper also passed c_t
        through an activation. W starts as the paper says, with variance 1/I; of v it says nothing, U(-1/√H, 1/√H) here.

    >>> cell = SRU(input_size=3, hidden_size=4)
    >>> state = cell.step(torch.ones(2, 3), cell.initial_state(2))
    >>> state.h.shape, state.c.shape
    (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    class State(NamedTuple):
        h: Tensor  # (B, H)
        c: Tensor  # (B, H)

    recurrent_forget: nn.Parameter | None
    recurrent_reset: nn.Parameter | None

    def __init__(
        self, input_size: int, hidden_size: int, *, recurrent_gates: bool = True, highway_bias: float = 0.0
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.gates = Packed(input_size, hidden_size, maps=2, recurrent_size=0)
        self.forget, self.reset = self.gates
        different = input_size != hidden_size
        self.packed = Packed(input_size, hidden_size, maps=1 + different, bias=False, recurrent_size=0)
        self.candidate, *self.skip = self.packed
        for name in ("recurrent_forget", "recurrent_reset"):
            v = draw_(nn.Parameter(torch.empty(hidden_size)), hidden_size) if recurrent_gates else None
            self.register_parameter(name, v)
        for weight in (self.gates.weight_input, self.packed.weight_input):
            nn.init.uniform_(weight, -math.sqrt(3 / input_size), math.sqrt(3 / input_size))
        for gate, bias in ((self.forget, 0.0), (self.reset, highway_bias)):
            assert gate.b is not None
            nn.init.constant_(gate.b, bias)
        self.scale = math.sqrt(1 + 2 * math.exp(highway_bias))

    def step(self, x: Tensor, state: State) -> State:
        f, r = self.forget.input(x), self.reset.input(x)
        if self.recurrent_forget is not None and self.recurrent_reset is not None:
            f, r = f + self.recurrent_forget * state.c, r + self.recurrent_reset * state.c
        f, r = torch.sigmoid(f), torch.sigmoid(r)
        c = f * state.c + (1 - f) * self.candidate.input(x)
        return self.State(self.highway(r, c, x), c)

    def highway(self, r: Tensor, c: Tensor, x: Tensor) -> Tensor:
        """h."""
        around = self.skip[0].input(x) if self.skip else x
        return r * c + (1 - r) * (self.scale * around)

    def scan(self, inputs: Tensor, state: State) -> State:
        f, r = torch.sigmoid(self.forget.input(inputs)), torch.sigmoid(self.reset.input(inputs))
        c = linear_scan(f, (1 - f) * self.candidate.input(inputs), state.c)
        return self.State(self.highway(r, c, inputs), c)

    @property
    def has_scan(self) -> bool:
        return self.recurrent_forget is None

    def recurrent_weights(self) -> Iterator[Tensor]:
        yield from (v for v in (self.recurrent_forget, self.recurrent_reset) if v is not None)
