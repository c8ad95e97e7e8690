"""Everything that a model's recurrent layers do while it computes a loss, kept for looking at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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


class _Observed(Around):
    """A cell whose every step is kept; it runs as it is written, on the gradient tape."""

    def __init__(self, cell: Cell, name: str, layouts: list[Layout], layers: list[Layer]) -> None:
        super().__init__(cell)
        self.name, self._layouts, self._layers = name, layouts, layers

    def run(self, run: Run, inputs: Tensor, sizes: list[int], state: Any) -> tuple[Tensor, Any]:
        layout = self._layouts[-1]
        inputs, state = with_gradients(self.cell, inputs, state)
        after, gates = walk(self.cell, inputs, layout.sizes, state)
        before = [
            self.State(*(one[:size] for one in past))
            for past, size in zip([state, *after[:-1]], layout.sizes, strict=True)
        ]
        self._layers.append(Layer(self.name, self.cell, layout, inputs, before, after, gates))
        return outputs_and_end(self.cell, after, layout.sizes)


def with_gradients(cell: Cell, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Inputs and state such that there is a gradient for what is made of them, were all weights frozen."""
    if not inputs.requires_grad:
        inputs = inputs.detach().requires_grad_()
    return inputs, cell.State(*(one if one.requires_grad else one.detach().requires_grad_() for one in state))


def outputs_and_end(cell: Cell, after: list[Any], sizes: list[int]) -> tuple[Tensor, Any]:
    """Packed outputs, and the state of each sequence after its own last step, from the states after each step."""
    pieces = []
    for now, size, then in zip(after, sizes, [*sizes[1:], 0], strict=True):
        if then < size:
            pieces.append([one[then:] for one in now])
    end = cell.State(*map(torch.cat, zip(*reversed(pieces), strict=True)))
    return torch.cat([now[0] for now in after]), end


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
    layers: list[Layer] = []

    def wrap(network: Recurrent, k: int, name: str, layouts: list[Layout]) -> Cell:
        return _Observed(network.cells[k], name, layouts, layers)  # type: ignore[arg-type]

    with wrapping(model, wrap):
        yield layers


Wrap = Callable[[Recurrent, int, str, list[Layout]], Cell]


@contextmanager
def wrapping(model: nn.Module, wrap: Wrap) -> Iterator[None]:
    """While it lasts, cells of the model's `Recurrent` networks are wrapped, and gradients are on.

    Args:
        wrap: the wrapper of a network's k-th cell, given its name in words, and a list that will hold the layout of
            the batch that the network is running on.

    Raises:
        ConfigError: see `observing`.
    """
    networks = {name: module for name, module in model.named_modules() if isinstance(module, Recurrent)}
    if not networks:
        raise ConfigError(
            f"model: has no recurrent network (got {type(model).__name__}); a carousel.Recurrent, or a module with "
            "one in it; make one of a torch.nn layer with Recurrent.from_torch"
        )
    handles, layouts = [], {name: list[Layout]() for name in networks}
    before = {name: (list(network.cells), network.engine) for name, network in networks.items()}
    try:
        for name, network in networks.items():
            handles.append(network.register_forward_pre_hook(partial(_note, layouts[name]), with_kwargs=True))
            for k in range(len(network.cells)):
                said = _spoken(name if len(networks) > 1 else "", k, network.bidirectional)
                network.cells[k] = wrap(network, k, said, layouts[name])
        with torch.enable_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        for name, network in networks.items():
            cells, network.engine = before[name]
            for k, cell in enumerate(cells):
                network.cells[k] = cell
    got = max(map(len, layouts.values()))
    if got != 1:
        raise ConfigError(f"model: its recurrent network ran {got} times (got {got}); once; give one batch")


def _note(layouts: list[Layout], network: Recurrent, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Before a network runs: where in the batch its steps are."""
    inputs, lengths = _inputs_and_lengths(*args, **kwargs)
    sequence = inputs.transpose(0, 1) if network.batch_first else inputs
    layouts.append(Layout.of(sequence, lengths))


def _inputs_and_lengths(inputs: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
    """Of the arguments of `Recurrent.forward`."""
    return inputs, lengths


def _spoken(network: str, k: int, bidirectional: bool) -> str:
    layer, way = divmod(k, 2) if bidirectional else (k, 0)
    return " ".join(filter(None, [network, f"layer {layer + 1}", ("forward", "backward")[way] * bidirectional]))
