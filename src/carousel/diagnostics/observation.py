"""Everything that a model's recurrent layers do while it computes a loss, kept for looking at."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from carousel.cells import Cell
from carousel.errors import ConfigError
from carousel.nn import Recurrent
from carousel.nn.trajectory import walk
from carousel.nn.unroll import Layout
from carousel.nn.wrapper import Around, Run, innermost


@dataclass(frozen=True)
class Layer:
    """One cell's way through a batch, step by step as it was run, a node of autograd's graph at every step."""

    name: str
    cell: Cell
    layout: Layout
    inputs: Tensor  # (Σ sizes, I), packed
    before: list[Any]  # the state before each step, of the sequences alive at it
    after: list[Any]
    gates: dict[str, list[Tensor]]  # by their names in `step`, as `carousel.trajectory` has them

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the cell's state, such as h and c, without what wrappers add to it."""
        names: tuple[str, ...] = innermost(self.cell).State._fields
        return names

    @property
    def lengths(self) -> Tensor:
        """(B,)"""
        sizes = torch.tensor(self.layout.sizes)
        lengths = (torch.arange(self.layout.shape[1]) < sizes[:, None]).sum(0)
        return lengths if self.layout.order is None else lengths[self.layout.order.cpu().argsort()]

    def padded(self, steps: list[Tensor]) -> Tensor:
        """What there is at each step (sizes[t], ...) as one tensor (T, B, -1), zero in the padding."""
        return self.layout.unpack(torch.cat(steps).detach().flatten(1))

    def states(self, name: str) -> Tensor:
        """A field of the state after every step: (T, B, H)."""
        return self.padded([getattr(state, name) for state in self.after])


@dataclass
class _Notes:
    layouts: dict[str, list[Layout]] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)


class _Observed(Around):
    """A cell whose every step is kept; it runs as it is written, on the gradient tape."""

    def __init__(self, cell: Cell, network: str, name: str, notes: _Notes) -> None:
        super().__init__(cell)
        self.network, self.name, self.notes = network, name, notes

    def run(self, run: Run, inputs: Tensor, sizes: list[int], state: Any) -> tuple[Tensor, Any]:
        layout = self.notes.layouts[self.network][-1]
        if not inputs.requires_grad:
            inputs = inputs.detach().requires_grad_()
        state = self.State(*(one if one.requires_grad else one.detach().requires_grad_() for one in state))
        after, gates = walk(self.cell, inputs, layout.sizes, state)
        before = [
            self.State(*(one[:size] for one in past))
            for past, size in zip([state, *after[:-1]], layout.sizes, strict=True)
        ]
        self.notes.layers.append(Layer(self.name, self.cell, layout, inputs, before, after, gates))
        return torch.cat([now[0] for now in after]), self._final(after, layout.sizes)

    def _final(self, after: list[Any], sizes: list[int]) -> Any:
        """The state of each sequence after its own last step."""
        pieces = []
        for now, size, then in zip(after, sizes, [*sizes[1:], 0], strict=True):
            if then < size:
                pieces.append([one[then:] for one in now])
        return self.State(*map(torch.cat, zip(*reversed(pieces), strict=True)))


@contextmanager
def observing(model: nn.Module) -> Iterator[list[Layer]]:
    """Keep what every cell of the model's `Recurrent` networks does inside, in the order in which they run.

    Gradients are on inside, and the cells run step by step, as they are written; outputs are the same.

    Raises:
        ConfigError: there is no `Recurrent` in the model, or it ran never, or more than once.

    >>> network = Recurrent("lstm", 3, 4, layers=2)
    >>> with observing(network) as layers:
    ...     outputs, _ = network(torch.randn(5, 2, 3), lengths=torch.tensor([5, 2]))
    >>> [(layer.name, layer.states("c").shape, layer.lengths.tolist()) for layer in layers]
    [('layer 1', torch.Size([5, 2, 4]), [5, 2]), ('layer 2', torch.Size([5, 2, 4]), [5, 2])]
    """
    networks = {name: module for name, module in model.named_modules() if isinstance(module, Recurrent)}
    if not networks:
        raise ConfigError(
            f"model: has no recurrent network (got {type(model).__name__}); a carousel.Recurrent, or a module with "
            "one in it; make one of a torch.nn layer with Recurrent.from_torch"
        )
    notes = _Notes()
    handles, cells = [], {name: list(network.cells) for name, network in networks.items()}
    for name, network in networks.items():
        handles.append(network.register_forward_pre_hook(partial(_note, notes, name), with_kwargs=True))
        for k, cell in enumerate(cells[name]):
            said = _spoken(name if len(networks) > 1 else "", k, network.bidirectional)
            network.cells[k] = _Observed(cell, name, said, notes)  # type: ignore[arg-type]
    try:
        with torch.enable_grad():
            yield notes.layers
    finally:
        for handle in handles:
            handle.remove()
        for name, network in networks.items():
            for k, cell in enumerate(cells[name]):
                network.cells[k] = cell
    if not notes.layers or any(len(calls) > 1 for calls in notes.layouts.values()):
        got = max(map(len, notes.layouts.values()), default=0)
        raise ConfigError(f"model: its recurrent network ran {got} times (got {got}); once; give one batch")


def _note(notes: _Notes, name: str, network: Recurrent, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Before a network runs: where in the batch its steps are."""
    given = inspect.signature(network.forward).bind(*args, **kwargs).arguments
    inputs = given["inputs"]
    sequence = inputs.transpose(0, 1) if network.batch_first else inputs
    notes.layouts.setdefault(name, []).append(Layout.of(sequence, given.get("lengths")))


def _spoken(network: str, k: int, bidirectional: bool) -> str:
    layer, way = divmod(k, 2) if bidirectional else (k, 0)
    return " ".join(filter(None, [network, f"layer {layer + 1}", ("forward", "backward")[way] * bidirectional]))
