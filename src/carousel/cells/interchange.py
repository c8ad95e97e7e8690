"""Weights to and from `torch.nn.RNN`, `LSTM` and `GRU`: one cell per layer and direction, in torch's order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from carousel.cells.activations import ACTIVATIONS
from carousel.cells.cell import Cell
from carousel.cells.elman import Elman
from carousel.cells.gru import ResetAfterGRU
from carousel.cells.lstm import LSTM, ProjectedLSTM
from carousel.errors import ConfigError

# These cells pack their maps in torch's order, so that weights are copied block by block.
_LAYERS: dict[type[Cell], Any] = {Elman: nn.RNN, LSTM: nn.LSTM, ProjectedLSTM: nn.LSTM, ResetAfterGRU: nn.GRU}


def from_torch(module: nn.RNNBase) -> list[Cell]:
    """One cell per layer of a `torch.nn.RNN`, `LSTM` or `GRU`, with a copy of its weights.

    torch's two biases of a map, `bias_ih` and `bias_hh`, are added into one. A bidirectional module gives two cells per
    layer: forward, backward, as torch orders them.

    Raises:
        ConfigError: the module is of another class.

    >>> [cell] = from_torch(nn.GRU(3, 4))
    >>> cell
    ResetAfterGRU(
      3, 4
      (packed): Packed(3, 4, maps=3, bias=True)
    )
    """
    if type(module) not in _LAYERS.values():
        raise ConfigError(f"from_torch: no such cell (got {type(module).__name__}); RNN, LSTM or GRU of torch.nn")
    like = next(module.parameters())
    cells = cells_of(module)
    for cell, weights in zip(cells, module.all_weights, strict=True):
        cell.to(device=like.device, dtype=like.dtype)
        with torch.no_grad():
            for name, weight in weights_of(cell, weights).items():
                cell.get_parameter(name).copy_(weight)
    return cells


def cells_of(module: nn.RNNBase) -> list[Cell]:
    """New cells of the kinds and sizes of the module's, their weights their own: for each layer, for each direction.

    >>> [cell.input_size for cell in cells_of(nn.LSTM(3, 8, 2, proj_size=2, bidirectional=True))]
    [3, 3, 4, 4]
    """
    directions = 1 + module.bidirectional
    make: type[Any] = {"LSTM": LSTM, "GRU": ResetAfterGRU}.get(module.mode, Elman)
    options: dict[str, Any] = {"bias": module.bias}
    if module.proj_size:
        make, options["projection_size"] = ProjectedLSTM, module.proj_size
    if make is Elman:
        options["activation"] = module.nonlinearity
    above = directions * (module.proj_size or module.hidden_size)
    return [
        make(above if layer else module.input_size, module.hidden_size, **options)
        for layer in range(module.num_layers)
        for _ in range(directions)
    ]


def weights_of(cell: Cell, weights: Sequence[Tensor]) -> dict[str, Tensor]:
    """What the cell's parameters are, by name, for one layer and direction of `torch.nn.RNNBase.all_weights`.

    Differentiable, so that the module's own parameters can be trained through the cell.

    >>> module = nn.LSTM(3, 4)
    >>> {name: tuple(weight.shape) for name, weight in weights_of(LSTM(3, 4), module.all_weights[0]).items()}
    {'packed.weight_input': (16, 3), 'packed.weight_hidden': (16, 4), 'packed.bias': (16,)}
    """
    W, U, *others = weights
    found = {"packed.weight_input": W, "packed.weight_hidden": U}
    if isinstance(cell, ProjectedLSTM):
        found["projection"] = others.pop()
    if others and isinstance(cell, ResetAfterGRU):
        # The candidate's two biases are on either side of the reset gate, and are not added up.
        input_bias, recurrent_bias = others
        H = cell.hidden_size
        found["recurrent_bias"] = recurrent_bias[-H:]
        found["packed.bias"] = torch.cat([input_bias[:-H] + recurrent_bias[:-H], input_bias[-H:]])
    elif others:
        found["packed.bias"] = others[0] + others[1]
    return found


def to_torch(cells: Sequence[Cell], *, bidirectional: bool = False, **options: Any) -> nn.RNNBase:
    """The `torch.nn` module whose layers are these cells, with a copy of their weights.

    Args:
        cells: one per layer, all of one class and hidden size; bidirectional, two: forward, backward.
        bidirectional: whether they are.
        options: more arguments for the module, such as `batch_first` and `dropout`.

    Raises:
        ConfigError: `torch.nn` has no such cell, or the layers differ.

    >>> to_torch([LSTM(3, 4), LSTM(4, 4)])
    LSTM(3, 4, num_layers=2)
    """
    directions = 1 + bidirectional
    if not cells or len(cells) % directions:
        raise ConfigError(f"to_torch: no whole layers (got {len(cells)} cells); {directions} per layer; give them all")
    first: Any = cells[0]
    if type(first) not in _LAYERS:
        known = ", ".join(cell.__name__ for cell in _LAYERS)
        raise ConfigError(
            f"to_torch: torch.nn has no such cell (got {type(first).__name__}); {known}; keep it as it is"
        )
    for k, cell in enumerate(cells):
        reads = directions * first.output_size if k >= directions else first.input_size
        if _kind(cell) != _kind(first) or cell.input_size != reads:
            got, wanted = f"{cell.input_size} -> {_kind(cell)}", f"{reads} -> {_kind(first)}"
            raise ConfigError(
                f"to_torch: layer {k // directions} differs (got {got}); {wanted}; torch.nn has one kind per module"
            )
    options |= {"bias": first.packed.bias is not None, "bidirectional": bidirectional}
    if isinstance(first, Elman):
        names = [name for name in ("tanh", "relu") if ACTIVATIONS[name] is first.activation]
        if not names:
            raise ConfigError(f"to_torch: torch.nn has no such activation (got {first.activation}); tanh or relu")
        options["nonlinearity"] = names[0]
    if isinstance(first, ProjectedLSTM):
        options["proj_size"] = first.projection_size
    like = next(first.parameters())
    layers = len(cells) // directions
    module: nn.RNNBase = _LAYERS[type(first)](first.input_size, first.hidden_size, num_layers=layers, **options)
    module.to(device=like.device, dtype=like.dtype)
    for cell, weights in zip(cells, module.all_weights, strict=True):
        _write(cell, weights)
    return module


def _kind(cell: Any) -> str:
    """What all layers of one torch.nn module have in common."""
    activation = f", {cell.activation.__name__}" if isinstance(cell, Elman) else ""
    size = f"{cell.hidden_size}" if cell.output_size == cell.hidden_size else f"{cell.hidden_size}/{cell.output_size}"
    return f"{size}, {type(cell).__name__}{activation}, bias={cell.packed.bias is not None}"


@torch.no_grad()
def _write(cell: Any, weights: Sequence[Tensor]) -> None:
    """The inverse of `weights_of`, with all of a sum in `bias_ih`."""
    W, U, *others = weights
    W.copy_(cell.packed.weight_input)
    U.copy_(cell.packed.weight_hidden)
    if isinstance(cell, ProjectedLSTM):
        others.pop().copy_(cell.projection)
    if others:
        input_bias, recurrent_bias = others
        input_bias.copy_(cell.packed.bias)
        recurrent_bias.zero_()
        if isinstance(cell, ResetAfterGRU):
            recurrent_bias[-cell.hidden_size :] = cell.recurrent_bias  # type: ignore[assignment]
