"""What every recurrence is made of: `Cell`, and the affine maps `W x + U h + b` that it reads its weights through."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.errors import ConfigError


def draw_(weight: nn.Parameter, hidden_size: int) -> nn.Parameter:
    """Draw a weight from U(-1/√H, 1/√H), as `torch.nn` does."""
    bound = 1 / math.sqrt(hidden_size)
    nn.init.uniform_(weight, -bound, bound)
    return weight


class Packed(nn.Module):
    """Several affine maps `W x + U h + b` in one block of weights, so that one matrix product serves them all.

    Map `k` owns the rows `k·H ... (k+1)·H` of each parameter:

        weight_input   (K·H, I)   the maps' W, one below the other
        weight_hidden  (K·H, R)   the maps' U; None with a recurrent size of 0
        bias           (K·H,)     the maps' b; None without bias

    This is how `torch.nn.LSTM` and its like store theirs. Iterating gives the maps, one `Affine` each.

    Args:
        input_size, hidden_size, maps: I, H and K.
        bias: whether there is a b.
        recurrent_size: R, the width of the h that the maps read; H by default, 0 for maps of the input alone.

    >>> forget, update = packed = Packed(input_size=3, hidden_size=4, maps=2)
    >>> forget(torch.zeros(5, 3), torch.zeros(5, 4)).shape
    torch.Size([5, 4])
    >>> packed.weight_input.shape
    torch.Size([8, 3])
    """

    weight_hidden: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self, input_size: int, hidden_size: int, maps: int, *, bias: bool = True, recurrent_size: int | None = None
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.maps = input_size, hidden_size, maps
        self.recurrent_size = hidden_size if recurrent_size is None else recurrent_size
        self.weight_input = nn.Parameter(torch.empty(maps * hidden_size, input_size))
        weight_hidden = nn.Parameter(torch.empty(maps * hidden_size, self.recurrent_size))
        self.register_parameter("weight_hidden", weight_hidden if self.recurrent_size else None)
        self.register_parameter("bias", nn.Parameter(torch.empty(maps * hidden_size)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew."""
        for parameter in self.parameters():
            draw_(parameter, self.hidden_size)

    def rows(self, first: int, last: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """W, U and b of the maps `first` up to, not including, `last`."""
        rows = slice(first * self.hidden_size, last * self.hidden_size)
        bias = None if self.bias is None else self.bias[rows]
        W, U = self.weight_input[rows], self.weight_hidden[rows] if self.recurrent_size else None
        return W, U, bias  # type: ignore[return-value]  # nobody reads the U of maps that have none

    def forward(self, k: int, x: Tensor | None, h: Tensor | None) -> Tensor:
        """`W x + U h + b` of map `k`: (B, H). Without `h` it is `W x + b`, without `x` it is `U h`."""
        W, U, b = self.rows(k, k + 1)
        if x is None:
            assert h is not None, "an affine map of nothing"
            return F.linear(h, U)
        product = F.linear(x, W, b)
        return product if h is None else torch.addmm(product, h, U.t())

    def __iter__(self) -> Iterator[Affine]:
        return (Affine(self, k) for k in range(self.maps))

    def extra_repr(self) -> str:
        recurrent = "" if self.recurrent_size == self.hidden_size else f", recurrent_size={self.recurrent_size}"
        return f"{self.input_size}, {self.hidden_size}, maps={self.maps}, bias={self.bias is not None}{recurrent}"


class Affine:
    """One named map of a `Packed` block: `self.update(x, h)` is `W x + U h + b`.

    Its weights are views into the block; the block alone is what the state dict and the optimiser see.
    """

    def __init__(self, packed: Packed, k: int) -> None:
        self.packed, self.k = packed, k

    def __call__(self, x: Tensor, h: Tensor) -> Tensor:
        """`W x + U h + b`, with x: (B, I) and h: (B, R)."""
        product: Tensor = self.packed(self.k, x, h)
        return product

    def input(self, x: Tensor) -> Tensor:
        """`W x + b` alone."""
        product: Tensor = self.packed(self.k, x, None)
        return product

    def hidden(self, h: Tensor) -> Tensor:
        """`U h` alone."""
        product: Tensor = self.packed(self.k, None, h)
        return product

    def start_bias(self, value: float) -> None:
        """Let b begin at that value, where there is a b."""
        if self.b is not None:
            nn.init.constant_(self.b, value)

    @property
    def W(self) -> Tensor:  # noqa: N802  (H, I)
        return self.packed.rows(self.k, self.k + 1)[0]

    @property
    def U(self) -> Tensor:  # noqa: N802  (H, R)
        return self.packed.rows(self.k, self.k + 1)[1]

    @property
    def b(self) -> Tensor | None:  # (H,)
        return self.packed.rows(self.k, self.k + 1)[2]


class Cell(nn.Module):
    """A recurrence: a named state and one method, `step`, written as the paper writes it.

    A subclass names its `State` (a NamedTuple of tensors (B, H); the first field is the output), makes its affine
    maps and writes `step`. `step` is ordinary PyTorch, a function of its arguments and parameters alone, and free of
    control flow that depends on tensors. Unrolling, stacking, lengths and dropout are not the cell's business.

    A cell whose recurrence is linear in its state may also define `scan`: all steps at once, by `linear_scan` or its
    like, with the same numbers as stepping and causal, so that what follows a step does not change it. Where that
    holds for some of its settings only, `has_scan` says for which.

    >>> from typing import NamedTuple
    >>> class LeakyCell(Cell):
    ...     class State(NamedTuple):
    ...         h: Tensor
    ...     def __init__(self, input_size: int, hidden_size: int) -> None:
    ...         super().__init__(input_size, hidden_size)
    ...         (self.candidate,) = self.packed = Packed(input_size, hidden_size, maps=1)
    ...     def step(self, x: Tensor, state: State) -> State:
    ...         return self.State(0.9 * state.h + 0.1 * torch.tanh(self.candidate(x, state.h)))
    >>> cell = LeakyCell(input_size=3, hidden_size=4)
    >>> cell.step(torch.zeros(2, 3), cell.initial_state(2)).h.shape
    torch.Size([2, 4])
    """

    State: type[Any]

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if size < 1:
                raise ConfigError(f"{name}: not a size (got {size}); 1 or more; give the number of features")
        self.input_size, self.hidden_size = input_size, hidden_size

    @property
    def output_size(self) -> int:
        """The width of the output, the first field of the state: H, unless a cell says otherwise."""
        return self.hidden_size

    def step(self, x: Tensor, state: Any) -> Any:
        """The state after one more input, x: (B, I)."""
        raise NotImplementedError(f"{type(self).__name__} defines no step")

    def scan(self, inputs: Tensor, state: Any) -> Any:
        """The states after every step, each field (T, B, ...), for inputs (T, B, I) and the state before the first."""
        raise NotImplementedError(f"{type(self).__name__} defines no scan")

    def scan_to(self, inputs: Tensor, state: Any, last: Tensor | None = None) -> tuple[Tensor, Any]:
        """The outputs of every step (T, B, ·) and the state after step `last` (B,) of each sequence; after all of them
        by default. A cell whose states are too large to have all of them at once does it without."""
        states = self.scan(inputs, state)
        if last is None:
            return states[0], self.State(*(field[-1] for field in states))
        sequences = torch.arange(len(last), device=inputs.device)
        return states[0], self.State(*(field[last, sequences] for field in states))

    @property
    def has_scan(self) -> bool:
        """Whether `scan` can stand in for stepping."""
        return type(self).scan is not Cell.scan

    def forward(self, x: Tensor, state: Any) -> Any:
        return self.step(x, state)

    def initial_state(self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Any:
        """Zeros for every field, by default on the device and in the type of the weights."""
        if device is None or dtype is None:
            like = next(chain(self.parameters(), self.buffers()))  # weights that were given may be no parameters
            device, dtype = device or like.device, dtype or like.dtype
        zeros = torch.zeros(batch, self.hidden_size, device=device, dtype=dtype)
        return self.State(*(zeros for _ in self.State._fields))

    def recurrent_weights(self) -> Iterator[Tensor]:
        """What the state is multiplied by: the U of every map. A cell with others besides gives those too."""
        for block in self.modules():
            if isinstance(block, Packed) and block.recurrent_size:
                yield from (affine.U for affine in block)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}"
