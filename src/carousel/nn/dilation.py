"""Recurrences over every d-th step, run d at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from carousel.cells import Cell
from carousel.errors import ConfigError
from carousel.nn.wrapper import Around, Run, longer_state


class Dilated(Around):
    """A cell that starts each step from the state d steps ago; the same as the plain loop

        for t, x in enumerate(inputs):
            states[t] = cell.step(x, states[t - d])             # the initial one for t < d

    The steps t, t + d, t + 2d, ... know nothing of those between. So the d interleaved sequences stand side by side in
    the batch, (T, B) -> (T/d, d·B), and there is 1/d of the serial steps. With lengths, each of them has its own.

    Chang et al. 2017, arXiv:1710.02224, eq. 1 and section 2.2.

    Args:
        cell: any cell.
        dilation: d; 1 is the cell as it is.

    The state is that of the last d steps, the newest first: `h, c` after the last step, `h_1, c_1` the step before it
    and so on. The next step starts from the oldest, so a sequence may be cut anywhere.

    >>> from carousel.cells import GRU
    >>> cell = Dilated(GRU(3, 4), 3)
    >>> cell.initial_state(2)._fields
    ('h', 'h_1', 'h_2')
    """

    def __init__(self, cell: Cell, dilation: int) -> None:
        super().__init__(cell)
        if dilation < 1:
            raise ConfigError(f"dilation: not a number of steps (got {dilation}); 1 or more; 1 is the plain cell")
        self.dilation = dilation

    @property
    def State(self) -> type[Any]:  # type: ignore[override]  # noqa: N802
        fields = self.cell.State._fields
        return longer_state(self.cell.State, *(f"{name}_{k}" for k in range(1, self.dilation) for name in fields))

    def initial_state(self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Any:
        return self.State(*self.cell.initial_state(batch, device=device, dtype=dtype) * self.dilation)

    def step(self, x: Tensor, state: Any) -> Any:
        *newer, _ = ages = self._ages(state)
        new = self.cell.step(x, ages[-1])
        return self.State(*new, *(field for age in newer for field in age))

    def _ages(self, state: Any) -> list[Any]:
        """The cell's state after the last step, after the one before it and so on."""
        (*fields,), width = state, len(self.cell.State._fields)
        return [self.cell.State(*fields[k : k + width]) for k in range(0, len(fields), width)]

    def run(self, run: Run, inputs: Tensor, sizes: list[int], state: Any) -> tuple[Tensor, Any]:
        d, batch = self.dilation, len(state[0])
        # Sequence j·B + b of the fold is what sequence b has at steps j, j + d, ...; it starts from age d − 1 − j.
        start = [torch.cat(field) for field in zip(*reversed(self._ages(state)), strict=True)]
        steps = len(sizes) or len(inputs) // batch
        if steps % d == 0 and (not sizes or sizes[-1] == batch):
            folded = [d * batch] * (steps // d) if sizes else []
            outputs, final = run(self.cell, inputs, folded, self.cell.State(*start))
            parts = [*zip(*(field.chunk(d) for field in final), strict=True)]
            return outputs, self.State(*(field for age in reversed(parts) for field in age))
        fold = _Fold(sizes or [batch] * steps, batch, d)
        rows, order = (torch.from_numpy(found).to(inputs.device) for found in (fold.rows, fold.order))
        sorted_start = [field.index_select(0, order) for field in start]
        begun = self.cell.State(*(field[: fold.sizes[0]] for field in sorted_start))
        outputs, final = run(self.cell, inputs.index_select(0, rows), fold.sizes, begun)
        ends = [torch.cat([f, rest[fold.sizes[0] :]]) for f, rest in zip(final, sorted_start, strict=True)]
        ages = torch.from_numpy(fold.ages).to(inputs.device)
        finals = [[end.index_select(0, age) for end in ends] for age in ages]
        return outputs.index_select(0, rows.argsort()), self.State(*(field for age in finals for field in age))

    def extra_repr(self) -> str:
        return f"dilation={self.dilation}"


class _Fold:
    """Where the steps of a packed batch are when d interleaved sequences are made of each of its sequences."""

    def __init__(self, sizes: list[int], batch: int, d: int) -> None:
        alive = np.arange(batch) < np.asarray(sizes)[:, None]  # (T, B)
        alive = np.concatenate([alive, np.zeros((-len(sizes) % d, batch), dtype=bool)])
        at = (np.cumsum(alive) - 1).reshape(-1, d * batch)  # where each step is in the packed inputs
        steps, lengths = len(alive) // d, alive.sum(0)
        folded = alive.reshape(steps, d * batch)
        self.order = np.argsort(-folded.sum(0), kind="stable")  # the sequences of the fold, the longest first
        self.sizes: list[int] = folded.sum(1).tolist()
        self.rows = at[:, self.order][folded[:, self.order]]
        age = np.arange(d)[:, None]
        place = np.argsort(self.order)  # of each sequence of the fold among the sorted
        self.ages = place[(lengths - 1 - age) % d * batch + np.arange(batch)]  # (d, B)
