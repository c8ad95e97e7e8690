"""Layers that read a sequence forward, or forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from carousel.cells import Cell
from carousel.compiler import Engine
from carousel.nn.shape import Shape
from carousel.nn.unroll import Layout, run_both, run_padded


class Directions(NamedTuple):
    """The state of a bidirectional layer."""

    forward: Any  # after each sequence's own last element
    backward: Any  # after its first, which the backward cell reads last


def run_layers(
    cells: Sequence[Cell],
    inputs: Tensor,
    layout: Layout,
    states: Sequence[Any],
    shape: Shape,
    *,
    training: bool = False,
    engine: Engine = "auto",
    padded: bool = False,
) -> tuple[Tensor, list[Any]]:
    """Run layers over packed inputs (Σ sizes, I), each reading the outputs of the one below.

    Args:
        cells: for each layer a forward cell and, with two directions, a backward one.
        layout: where the inputs are in their batch.
        states: what each cell starts from, its sequences in the order of the batch.
        shape: how the layers are put together.
        training: whether there is dropout.
        engine: what runs the time loop, see `run`.
        padded: whether inputs and outputs are batches (T, B, ·) instead.

    Returns:
        Packed outputs of the last layer, and the state of each cell after its own last step.
    """
    reverse = reversal(layout, inputs.device) if shape.directions == 2 else None
    finals: list[Any] = []
    ends = padded and reverse is None and shape.skip is None  # the cells do the packing themselves

    def run_cell(k: int, reads: Tensor) -> Tensor:
        first, last = ends and k == 0, ends and k == len(cells) - 1
        start = layout.sort(states[k])
        outputs, final = run_padded(cells[k], reads, layout, start, reads=first, gives=last, engine=engine)
        finals.append(layout.restore(final))
        return outputs

    def run_layer(first: int, reads: Tensor) -> Tensor:
        if reverse is None:
            return run_cell(first, reads)
        pair, starts = cells[first : first + 2], [layout.sort(state) for state in states[first : first + 2]]
        found = run_both(pair, [reads, reverse(reads)], layout.sizes, starts, engine=engine)
        finals.extend(layout.restore(final) for _, final in found)
        (forward, _), (backward, _) = found
        return shape.merged(forward, reverse(backward))

    layers = [partial(run_layer, first) for first in range(0, len(cells), shape.directions)]
    outputs = shape.through(layers, layout.pack(inputs) if padded and not ends else inputs, training=training)
    return layout.unpack(outputs) if padded and not ends else outputs, finals


def reversal(layout: Layout, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The function that turns each sequence of a packed batch (Σ sizes, ...) around, within its own length.

    >>> turn_around = reversal(Layout((3, 2), [2, 2, 1]), torch.device("cpu"))  # lengths 3 and 2
    >>> turn_around(torch.tensor([10, 20, 11, 21, 12]))
    tensor([12, 21, 11, 20, 10])
    """
    T, B = len(layout.sizes) or layout.shape[0], layout.shape[1]
    if not layout.sizes or layout.sizes[-1] == B:
        return lambda packed: packed.reshape(T, B, *packed.shape[1:]).flip(0).flatten(0, 1)
    sizes = torch.tensor(layout.sizes)
    alive = torch.arange(B) < sizes[:, None]  # (T, B)
    lengths, starts = alive.sum(0), sizes.cumsum(0) - sizes
    mirrored = (lengths - 1 - torch.arange(T)[:, None]).clamp(min=0)
    rows = (starts[mirrored] + torch.arange(B))[alive].to(device)
    return partial(_turned, rows=rows)


class _Turned(torch.autograd.Function):
    """Rows in another order, of which the same order again is the first: so this is its own gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(packed: Tensor, rows: Tensor) -> Tensor:
        return packed.index_select(0, rows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.rows = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _turned(grad, ctx.rows), None


def _turned(packed: Tensor, rows: Tensor) -> Tensor:
    if not (torch.is_grad_enabled() and packed.requires_grad):
        return packed.index_select(0, rows)
    turned: Tensor = _Turned.apply(packed, rows)  # type: ignore[no-untyped-call]
    return turned
