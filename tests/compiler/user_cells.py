"""Cells as users write them: every operation, shape of parameter and form of state that the compiler takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.cells import Cell, Packed


class Plain(Cell):
    """What most of them share: one field `h`, three packed maps, a vector, a row (1, H) and a scalar."""

    class State(NamedTuple):
        h: Tensor

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.first, self.second, self.third = self.packed = Packed(input_size, hidden_size, maps=3)
        self.vector = nn.Parameter(torch.randn(hidden_size) / 2)
        self.row = nn.Parameter(torch.randn(1, hidden_size) / 2)
        self.scalar = nn.Parameter(torch.randn(()) / 2)

    def step(self, x: Tensor, state: Any) -> Any:
        return self.State(self.new(x, state.h))

    def new(self, x: Tensor, h: Tensor) -> Tensor:
        raise NotImplementedError


class Two(Plain):
    """With a second field `c`."""

    class State(NamedTuple):  # type: ignore[assignment]
        h: Tensor
        c: Tensor


class Peephole(Two):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.i, self.f, self.g, self.o = self.gates = Packed(input_size, hidden_size, maps=4)
        self.to_i, self.to_f, self.to_o = (nn.Parameter(torch.randn(hidden_size) / 2) for _ in range(3))

    def step(self, x: Tensor, state: Any) -> Any:
        h, c = state
        i = torch.sigmoid(self.i(x, h) + self.to_i * c)
        f = torch.sigmoid(self.f(x, h) + self.to_f * c)
        c = f * c + i * torch.tanh(self.g(x, h))
        return self.State(torch.sigmoid(self.o(x, h) + self.to_o * c) * torch.tanh(c), c)


class LinearGates(Two):
    """Two nn.Linear, whose sum is cut in four."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.of_input = nn.Linear(input_size, 4 * hidden_size)
        self.of_hidden = nn.Linear(hidden_size, 4 * hidden_size)

    def step(self, x: Tensor, state: Any) -> Any:
        i, f, g, o = (self.of_input(x) + self.of_hidden(state.h)).chunk(4, 1)
        c = f.sigmoid() * state.c + i.sigmoid() * g.tanh()
        return self.State(o.sigmoid() * c.tanh(), c)


class SideBySide(Two):
    """One nn.Linear of [x, h]."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.gates = nn.Linear(input_size + hidden_size, 3 * hidden_size)

    def step(self, x: Tensor, state: Any) -> Any:
        f, g, o = torch.split(self.gates(torch.cat([x, state.h], 1)), self.hidden_size, dim=1)
        c = torch.sigmoid(f) * state.c + (1 - torch.sigmoid(f)) * torch.tanh(g)
        return self.State(torch.sigmoid(o) * c, c)


class NormedGates(Two):
    """A layer norm for each gate."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in range(4))

    def step(self, x: Tensor, state: Any) -> Any:
        f, g, o = (
            norm(map(x, state.h)) for norm, map in zip(self.norms, (self.first, self.second, self.third), strict=False)
        )
        c = torch.sigmoid(f) * state.c + torch.sigmoid(-f) * torch.tanh(g)
        return self.State(torch.sigmoid(o) * torch.tanh(self.norms[3](c)), c)


class NormedTogether(Two):
    """One layer norm over all gates, cut afterwards (Ba et al. 2016, eq. 20)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.of_input = nn.Linear(input_size, 3 * hidden_size, bias=False)
        self.of_hidden = nn.Linear(hidden_size, 3 * hidden_size)
        self.norm = nn.LayerNorm(3 * hidden_size)

    def step(self, x: Tensor, state: Any) -> Any:
        f, g, o = self.norm(self.of_input(x) + self.of_hidden(state.h)).chunk(3, dim=-1)
        c = torch.sigmoid(f) * state.c + torch.sigmoid(-f) * torch.tanh(g)
        return self.State(torch.sigmoid(o) * torch.tanh(c), c)


class WholeAndPart(Plain):
    """The columns of a sum, and that sum as a whole."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.of_input = nn.Linear(input_size, 2 * hidden_size)
        self.of_hidden = nn.Linear(hidden_size, 2 * hidden_size)
        self.wide = nn.Parameter(torch.randn(2 * hidden_size) / 2)

    def new(self, x: Tensor, h: Tensor) -> Tensor:
        a = self.of_input(x) + self.of_hidden(h) + self.wide
        left, right = a.chunk(2, 1)
        return torch.tanh(left) * torch.sigmoid(right) + 0.1 * torch.tanh(a).mean(1, keepdim=True)


class Attending(Plain):
    def new(self, x: Tensor, h: Tensor) -> Tensor:
        weights = torch.softmax(self.first(x, h), dim=1)
        return torch.tanh(self.second(x, h)) * weights * self.hidden_size**0.5 + 0.5 * h


class Mut1(Plain):
    """Jozefowicz et al. 2015, section 4, MUT1."""

    def new(self, x: Tensor, h: Tensor) -> Tensor:
        z = torch.sigmoid(self.first.input(x))
        r = torch.sigmoid(self.second(x, h))
        return torch.tanh(self.third.hidden(r * h) + torch.tanh(self.third.input(x))) * z + h * (1 - z)


class Mut2(Plain):
    def new(self, x: Tensor, h: Tensor) -> Tensor:
        z = torch.sigmoid(self.first(x, h))
        r = torch.sigmoid(self.vector + self.second.hidden(h))
        return torch.tanh(self.third(x, r * h)) * z + h * (1 - z)


class Mut3(Plain):
    def new(self, x: Tensor, h: Tensor) -> Tensor:
        z = torch.sigmoid(self.first(x, torch.tanh(h)))
        r = torch.sigmoid(self.second(x, h))
        return torch.tanh(self.third(x, r * h)) * z + h * (1 - z)


class PassedThrough(Two):
    """A field that stays what it was, as a context does, and one that only counts."""

    def step(self, x: Tensor, state: Any) -> Any:
        return self.State(torch.tanh(self.first(x, state.h) + self.second.hidden(state.c)), state.c)


class Swapped(Two):
    def step(self, x: Tensor, state: Any) -> Any:
        return self.State(state.c, torch.tanh(self.first(x, state.h) + self.vector * state.c))


class Rotating(Plain):
    class State(NamedTuple):  # type: ignore[assignment]
        a: Tensor
        b: Tensor
        c: Tensor

    def step(self, x: Tensor, state: Any) -> Any:
        return self.State(state.b, state.c, torch.tanh(self.first(x, state.a) + self.scalar * state.b))


class Doubled(Two):
    """One value in both fields."""

    def step(self, x: Tensor, state: Any) -> Any:
        h = torch.tanh(self.first(x, state.h) + self.second.hidden(state.c))
        return self.State(h, h)


class Widths(Cell):
    """Fields of different widths, each read by products into the other."""

    class State(NamedTuple):
        h: Tensor
        m: Tensor
        one: Tensor

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.wide = 2 * hidden_size + 3
        self.into_h = nn.Linear(input_size + self.wide, hidden_size)
        self.into_m = nn.Linear(hidden_size, self.wide)
        self.into_one = nn.Linear(self.wide, 1)

    def initial_state(self, batch: int, **options: Any) -> Any:
        (h, *_) = super().initial_state(batch, **options)
        return self.State(h, h.new_zeros(batch, self.wide), h.new_zeros(batch, 1))

    def step(self, x: Tensor, state: Any) -> Any:
        h = torch.tanh(self.into_h(torch.cat([x, state.m], dim=1)) + state.one)
        m = 0.5 * state.m + torch.tanh(self.into_m(h))
        one = torch.sigmoid(self.into_one(m)) + 0.5 * state.one
        return self.State(h, m, one)


class Activations(Plain):
    def new(self, x: Tensor, h: Tensor) -> Tensor:
        a, b = self.first(x, h), self.second(x, h)
        a = F.elu(a, 0.7) + F.softplus(b, beta=2) + F.silu(a - b) + F.relu(b) + F.leaky_relu(a, 0.2)
        return F.softsign(a) * torch.exp(-b.abs()) + F.logsigmoid(self.third(x, h)) / 4


class Roots(Plain):
    def new(self, x: Tensor, h: Tensor) -> Tensor:
        a = self.first(x, h)
        positive = torch.exp(a / 2) + 0.1
        return (
            torch.log(positive) * torch.sqrt(positive + h**2)
            + (positive**1.5 - positive**-2 * 0.01 + positive.rsqrt()).tanh()
            + torch.reciprocal(1 + positive**3)
        ) / 3


class Clamps(Plain):
    def new(self, x: Tensor, h: Tensor) -> Tensor:
        a, b, c = self.first(x, h), self.second(x, h), self.third(x, h)
        a = torch.clamp(a, -0.3, 0.5) + torch.minimum(b, c) - torch.maximum(a, h * b)
        return F.hardtanh(a) + torch.where(b > c, a * h, torch.tanh(b)) * 0.5 + (c >= 0) * a * 0.1


class Scalars(Plain):
    """Parameters of shapes (), (1, H) and (H,), each used twice."""

    def new(self, x: Tensor, h: Tensor) -> Tensor:
        a = torch.tanh(self.first(x, h) * self.row + self.scalar * h - self.vector)
        return a * torch.sigmoid(self.scalar + self.row) + self.vector * self.scalar * h * 0.5


class Shared(Plain):
    """One matrix for the input of one map and the hidden state of another, twice in one step."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.shared = nn.Parameter(torch.randn(hidden_size, hidden_size) / hidden_size**0.5)
        self.embed = nn.Linear(input_size, hidden_size)

    def new(self, x: Tensor, h: Tensor) -> Tensor:
        inner = torch.tanh(F.linear(h, self.shared) + F.linear(self.embed(x), self.shared))
        return torch.tanh(inner @ self.shared.T + h @ self.shared + self.vector)


class Antisymmetric(Plain):
    """h + ε tanh((W - Wᵀ - γ) h + V x + b) (Chang et al. 2019, eq. 12)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.W = nn.Parameter(torch.randn(hidden_size, hidden_size) / hidden_size**0.5)

    def new(self, x: Tensor, h: Tensor) -> Tensor:
        W = self.W - self.W.T - 0.1 * torch.eye(self.hidden_size, dtype=self.W.dtype)
        z = torch.sigmoid(h @ W.t() + self.second.input(x))
        return h + 0.2 * z * torch.tanh(F.linear(h, W) + self.first.input(x))


class PerSequence(Plain):
    """Numbers of each sequence, used as they are and over all columns."""

    def new(self, x: Tensor, h: Tensor) -> Tensor:
        mean = h.mean(1, keepdim=True)
        gate = torch.sigmoid(mean * self.scalar + x.sum(dim=-1, keepdim=True) * 0.3)
        level = torch.tanh(self.first(x, h).sum(1, keepdim=True) + mean)
        a = torch.tanh(self.second(x, h)) * gate + (1 - gate) * level * h
        return a - a.var(dim=1, keepdim=True, unbiased=False) * mean


class ScalarGate(Two):
    """A product into one column, whose gate is used wide and narrow."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.gate = nn.Linear(input_size + hidden_size, 1)

    def step(self, x: Tensor, state: Any) -> Any:
        p = torch.sigmoid(self.gate(torch.cat((x, state.h), -1)))
        c = p * state.c + (1 - p) * torch.tanh(self.first(x, state.h))
        return self.State(c * torch.tanh(p * p), c)


class Zoneout(Two):
    """Each field keeps its old value at random columns (Krueger et al. 2017, eq. 3)."""

    rate = 0.3

    def step(self, x: Tensor, state: Any) -> Any:
        h, c = state
        new = torch.sigmoid(self.first(x, h)) * c + torch.tanh(self.second(x, h))
        c = c + (1 - self.rate) * F.dropout(new - c, self.rate, self.training)
        out = torch.sigmoid(self.third(x, h)) * torch.tanh(c)
        return self.State(h + (1 - self.rate) * F.dropout(out - h, self.rate, self.training), c)


class Indexed(Two):
    """Fields read by index, keywords, slices of columns."""

    def step(self, x: Tensor, state: Any) -> Any:
        both = F.linear(state[0], self.packed.weight_hidden) + F.linear(x, self.packed.weight_input, self.packed.bias)
        H = self.hidden_size
        a, b = both[:, :H], both[..., H : 2 * H]
        c = torch.tanh(a) + 0.5 * state[-1]
        return self.State(c=c, h=torch.sigmoid(b) * c)


class Deep(Plain):
    """Three products in a row within a step."""

    def new(self, x: Tensor, h: Tensor) -> Tensor:
        a = torch.tanh(self.first(x, h))
        b = torch.tanh(self.second(x, a) + self.vector * h)
        return torch.tanh(self.third.hidden(b) + a) + 0.3 * h


class Buffers(Plain):
    """A mask of booleans and a row of whole numbers beside the weights."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        columns = torch.arange(hidden_size)
        self.register_buffer("even", columns % 2 == 0)
        self.register_buffer("period", columns % 3 + 1)

    def new(self, x: Tensor, h: Tensor) -> Tensor:
        a = torch.tanh(self.first(x, h) / self.period)
        return torch.where(self.even, a, 0.5 * h) + self.even * self.second(x, h) * 0.1


class Powers(Plain):
    """Whole, broken and negative powers, of zero too: the first state is."""

    def new(self, x: Tensor, h: Tensor) -> Tensor:
        a = torch.tanh(self.first(x, h))
        return a**9 - a**3 + F.relu(h) ** 1.5 + 0.1 * h**0 + (1 + a * a) ** -0.7 + torch.pow(1 + h * h, 0.5) - 1


class Detached(Two):
    """Gradients cut at a state, at a value of the step and at the input."""

    def step(self, x: Tensor, state: Any) -> Any:
        h, c = state
        i = torch.sigmoid(self.first(x, h.detach()))
        a = torch.tanh(self.second(x.detach(), h))
        c = i.detach() * c + (1 - i) * a
        return self.State(torch.tanh(c + self.third(x, h * c.detach())), c)


USER_CELLS: dict[str, Callable[[int, int], Cell]] = {
    cell.__name__: cell
    for cell in (
        Peephole, LinearGates, SideBySide, NormedGates, NormedTogether, WholeAndPart, Attending, Mut1, Mut2, Mut3,
        PassedThrough, Swapped, Rotating, Doubled, Widths, Activations, Roots, Clamps, Scalars, Shared, Antisymmetric,
        PerSequence, ScalarGate, Zoneout, Indexed, Deep, Buffers, Powers, Detached,
    )
}  # fmt: skip
