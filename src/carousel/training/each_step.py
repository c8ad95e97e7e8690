"""Cells to whose states something is done after each step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from carousel.nn.wrapper import Around, Run


class EachStep(Around):
    """A cell around a cell that runs one step after another, and in between calls `after`.

    Each step is a call of its own, so that autograd has a node for each: such a cell is for studying gradients and for
    changing them, at a price of several times the compiled loop's.

    >>> from carousel.cells import GRU
    >>> from carousel.nn import Recurrent
    >>> class Halved(EachStep):
    ...     def after(self, x, before, state):
    ...         return self.State(state.h / 2)
    >>> outputs, state = Recurrent([Halved(GRU(3, 4))])(torch.randn(5, 2, 3))
    >>> bool((outputs.abs() < 0.5).all())
    True
    """

    def after(self, x: Tensor, before: Any, state: Any) -> Any:
        """What to go on with after a step from `before` to `state`.

        The fields are apart: the gradient of an LSTM's c is what comes into it from the next step, without what comes
        into the h that is made of it.
        """
        return state

    def step(self, x: Tensor, state: Any) -> Any:
        if not isinstance(x, Tensor):  # a tracer: what `after` does is done at each step and cannot be compiled
            raise TypeError(f"{type(self).__name__} runs step by step")
        return self.after(x, state, self._apart(self.cell.step(x, state)))

    def run(self, run: Run, inputs: Tensor, sizes: list[int], state: Any) -> tuple[Tensor, Any]:
        outputs, batch = [], len(state[0])
        sizes = sizes or [batch] * (len(inputs) // batch)
        ended = []  # the last ones first to end
        for size, x in zip(sizes, inputs.split_with_sizes(sizes), strict=True):
            if size < len(state[0]):
                ended.append([field[size:] for field in state])
                state = self.State(*(field[:size] for field in state))
            state = self.after(x, state, self._apart(run(self.cell, x, [size], state)[1]))
            outputs.append(state[0])
        if ended:
            state = self.State(*map(torch.cat, zip(state, *reversed(ended), strict=True)))
        return torch.cat(outputs), state

    def _apart(self, state: Any) -> Any:
        return self.State(*(field.view_as(field) for field in state))
