"""The norms of states' gradients, read by the backward pass that there is anyway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from carousel.cells import Cell, Readings, gauged_whole
from carousel.compiler import compilable
from carousel.diagnostics.observation import outputs_and_end, with_gradients, wrapping
from carousel.nn import Recurrent
from carousel.nn.trajectory import walk
from carousel.nn.unroll import Layout
from carousel.nn.wrapper import Around, Run, Wrapper, innermost


class _Reading(Wrapper):
    """A cell that has the gradients of its states read in the compiled loop."""

    def __init__(self, cell: Cell, readings: Readings) -> None:
        super().__init__(cell)
        self.readings = readings

    def step(self, x: Tensor, state: Any) -> Any:
        new = self.cell.step(x, state)
        fields = innermost(self.cell).State._fields
        return new._replace(**{name: gauged_whole(getattr(new, name), self.readings(x)) for name in fields})


class Gauged(Around):
    """A cell the gradients of whose states are kept: in the compiled loop their norms; step by step themselves."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self.gradients: list[Tensor] = []  # what has them as its `grad`; of one step or all, a tensor for each field
        self.compiled = _Reading(cell, Readings(lambda reading: self.gradients.append(reading)))
        self.stepwise = False
        self.fields: tuple[str, ...] = innermost(cell).State._fields

    def run(self, run: Run, inputs: Tensor, sizes: list[int], state: Any) -> tuple[Tensor, Any]:
        if not self.stepwise and compilable(self.compiled, inputs, state):
            return run(self.compiled, inputs, sizes, state)
        inputs, state = with_gradients(self.cell, inputs, state)
        after, _ = walk(self.cell, inputs, sizes, state)
        self.gradients += [getattr(now, name) for now in after for name in self.fields]
        for one in self.gradients:
            if one.requires_grad:
                one.retain_grad()
        return outputs_and_end(self.cell, after, sizes)


@dataclass(frozen=True)
class _Gauge:
    name: str
    cell: Gauged
    layouts: list[Layout]
    gradients: list[Tensor] = field(default_factory=list)

    def norms(self, k: int) -> Tensor:
        """Of the k-th field (T, B), zero in the padding."""
        steps = self.gradients[k :: len(self.cell.fields)]
        each = [torch.zeros(len(one), 1) if one.grad is None else _norm(one.grad) for one in steps]
        return self.layouts[0].unpack(torch.cat(each))[..., 0]


def _norm(gradient: Tensor) -> Tensor:
    """(B, 1); the norm of what is a norm already is itself."""
    norm: Tensor = torch.linalg.vector_norm(gradient.flatten(1).float(), dim=1, keepdim=True)
    return norm.cpu()


@dataclass(frozen=True)
class Gauges:
    """What `gauging` put around the cells of a model; after the backward pass it has the norms."""

    _gauges: list[_Gauge] = field(default_factory=list)

    def backward(self, loss: Tensor) -> None:
        """The backward pass for the norms alone: weights keep the gradients that they have."""
        gradients = [one for gauge in self._gauges for one in gauge.gradients if one.requires_grad]
        torch.autograd.backward(loss, inputs=gradients)

    def norms(self) -> list[tuple[str, dict[str, Tensor]]]:
        """Of each layer and direction its name and, by field, ‖dL/ds_t‖ of every step and sequence (T, B)."""
        return [(one.name, {name: one.norms(k) for k, name in enumerate(one.cell.fields)}) for one in self._gauges]


_MADE: WeakKeyDictionary[Recurrent, list[Gauged]] = WeakKeyDictionary()  # tracing them again would take its time


@contextmanager
def gauging(model: nn.Module) -> Iterator[Gauges]:
    """Have the backward pass read ‖dL/dh_t‖, ‖dL/dc_t‖ and so on of every layer, step and sequence on its way.

    The loops stay compiled, there is no second pass, and the gradients of the weights are what they were. For the norms
    in a form to draw conclusions from, see `gauged_flow`.

    Raises:
        ConfigError: there is no `Recurrent` in the model, or it did not run once inside.

    >>> model = Recurrent("lstm", 3, 4, layers=2)
    >>> with gauging(model) as gauges:
    ...     outputs, _ = model(torch.randn(50, 2, 3), lengths=torch.tensor([50, 20]))
    >>> outputs.square().sum().backward()
    >>> for name, norms in gauges.norms():
    ...     print(name, {field: tuple(norm.shape) for field, norm in norms.items()})
    layer 1 {'h': (50, 2), 'c': (50, 2)}
    layer 2 {'h': (50, 2), 'c': (50, 2)}
    """
    gauges = Gauges()

    def wrap(network: Recurrent, k: int, name: str, layouts: list[Layout]) -> Cell:
        cell = _gauged(network, k)
        gauges._gauges.append(_Gauge(name, cell, layouts, cell.gradients))
        return cell

    with wrapping(model, wrap):
        yield gauges


def _gauged(network: Recurrent, k: int) -> Gauged:
    """The gauge around the network's k-th cell, the one of last time if it is the same cell."""
    made, cell = _MADE.setdefault(network, []), network.cells[k]
    if k >= len(made) or made[k].cell is not cell:
        made[k:] = [Gauged(cell)]  # type: ignore[arg-type]
    made[k].gradients, made[k].stepwise = [], network.engine == "eager"
    if network.engine == "scan":
        network.engine = "auto"
    return made[k]
