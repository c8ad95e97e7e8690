"""A network that takes a stream, one element at each call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from carousel.cells import Cell
from carousel.compiler import Engine, compiled, compiled_stream
from carousel.errors import ConfigError
from carousel.nn.shape import Shape
from carousel.nn.unroll import starting_state


class Stream:
    """Layers that keep their state between calls; the same as the plain loop

        for x in stream:
            output, state = recurrent.step(x, state)

    without gradients, and without all that need not be done again at each step: a compiled layer is one call.

    Args:
        cells: the layers.
        shape: what each reads of those below.
        state: what to start from, one state (B, ·) per layer; the cells' initial one by default.
        batch: B, how many streams advance together.

    >>> from carousel.nn import Recurrent
    >>> stream = Recurrent("lstm", 3, 4).stream()
    >>> stream(torch.randn(1, 3)).shape, stream.state[0].c.shape
    (torch.Size([1, 4]), torch.Size([1, 4]))
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        state: Sequence[Any] | None = None,
        *,
        batch: int = 1,
        shape: Shape | None = None,
        engine: Engine = "auto",
    ) -> None:
        if batch < 1:
            raise ConfigError(f"batch: not a number of streams (got {batch}); 1 or more; 1 is a single stream")
        self._cells, self._shape = list(cells), torch.Size([batch, cells[0].input_size])
        like = self._cells[0].initial_state(batch)[0]
        self._type = like.dtype
        before = torch.empty(self._shape, dtype=like.dtype, device=like.device)
        self._skips = shape if shape is not None and shape.skip else None
        self._layers = [_layer(cell, before, batch, engine) for cell in self._cells]
        self.reset(state)

    def __call__(self, x: Tensor) -> Tensor:
        """The output (B, H) of the last layer for one more input (B, I).

        Raises:
            ConfigError: x has another shape or type.
        """
        if x.shape != self._shape or x.dtype is not self._type or not x.is_contiguous():
            x = self._checked(x)
        if self._skips is not None:
            with torch.no_grad():
                return self._skips.through(self._layers, x, training=False)
        for layer in self._layers:
            x = layer(x)
        return x

    def _checked(self, x: Tensor) -> Tensor:
        if x.shape != self._shape or x.dtype is not self._type:
            raise ConfigError(
                f"x: wrong shape or type (got {tuple(x.shape)} of {x.dtype}); {tuple(self._shape)} of {self._type}; "
                "one time step"
            )
        return x.contiguous()

    @property
    def state(self) -> tuple[Any, ...]:
        """The state after the last element: one per layer, as `Recurrent.step` takes it."""
        return tuple(layer.state for layer in self._layers)

    @torch.no_grad()
    def reset(self, state: Sequence[Any] | None = None) -> None:
        """Begin anew, from a state or from the initial one."""
        for index, (cell, layer) in enumerate(zip(self._cells, self._layers, strict=True)):
            x = torch.empty(self._shape[0], cell.input_size, dtype=self._type)
            layer.prepare(starting_state(cell, x, None if state is None else state[index]))


class _EagerStream:
    """A layer of which PyTorch takes the steps."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def prepare(self, state: Any) -> None:
        self.state = state

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        self.state = self.cell.step(x, self.state)
        output: Tensor = self.state[0]
        return output


@torch.no_grad()
def _layer(cell: Cell, like: Tensor, batch: int, engine: Engine) -> Any:
    if compiled(cell, like, "auto" if engine == "scan" else engine) is None:  # of one step there is nothing to scan
        return _EagerStream(cell)
    return compiled_stream(cell, batch)
