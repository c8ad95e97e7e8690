"""Weights to and from `torch.nn.RNN`, `LSTM` and `GRU`: one cell per layer, the same numbers in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from carousel.cells.cell import Cell
from carousel.cells.elman import ACTIVATIONS, Elman
from carousel.cells.gru import ResetAfterGRU
from carousel.cells.lstm import LSTM
from carousel.errors import ConfigError

# Elman, LSTM and ResetAfterGRU pack their maps in torch's order, so that weights are copied block by block.
_LAYERS: dict[type[Cell], Any] = {Elman: nn.RNN, LSTM: nn.LSTM, ResetAfterGRU: nn.GRU}


def from_torch(module: nn.RNNBase) -> list[Cell]:
    """One cell per layer of a `torch.nn.RNN`, `LSTM` or `GRU`, with a copy of its weights.

    torch's two biases of a map, `bias_ih` and `bias_hh`, are added into one.

    Raises:
        ConfigError: the module is bidirectional, has projections, or is of another class.

    >>> [cell] = from_torch(nn.GRU(3, 4))
    >>> cell
    ResetAfterGRU(
      3, 4
      (packed): Packed(3, 4, maps=3, bias=True)
    )
    """
    if module.bidirectional or module.proj_size:
        got = "bidirectional=True" if module.bidirectional else f"proj_size={module.proj_size}"
        raise ConfigError(f"from_torch: no such cell (got {got}); one direction, no projection; convert each direction")
    by_layer = {layer: cell for cell, layer in _LAYERS.items()}
    if type(module) not in by_layer:
        raise ConfigError(f"from_torch: no such cell (got {type(module).__name__}); RNN, LSTM or GRU of torch.nn")
    options: dict[str, Any] = {"bias": module.bias}
    if isinstance(module, nn.RNN):
        options["activation"] = module.nonlinearity
    like = next(module.parameters())
    cells: list[Cell] = []
    for layer in range(module.num_layers):
        input_size = module.input_size if layer == 0 else module.hidden_size
        cell = by_layer[type(module)](input_size, module.hidden_size, **options)
        cell.to(device=like.device, dtype=like.dtype)
        _read(cell, {name: getattr(module, f"{name}_l{layer}") for name in _names(module.bias)})
        cells.append(cell)
    return cells


def to_torch(cells: Sequence[Cell], **options: Any) -> nn.RNNBase:
    """The `torch.nn` module whose layers are these cells, with a copy of their weights.

    Args:
        cells: one per layer, all of one class and hidden size.
        options: more arguments for the module, such as `batch_first` and `dropout`.

    Raises:
        ConfigError: `torch.nn` has no such cell, or the layers differ.

    >>> to_torch([LSTM(3, 4), LSTM(4, 4)])
    LSTM(3, 4, num_layers=2)
    """
    if not cells:
        raise ConfigError("to_torch: no layers (got []); at least one cell; give one per layer")
    first: Any = cells[0]
    if type(first) not in _LAYERS:
        known = ", ".join(cell.__name__ for cell in _LAYERS)
        raise ConfigError(
            f"to_torch: torch.nn has no such cell (got {type(first).__name__}); {known}; keep it as it is"
        )
    for layer, cell in enumerate(cells[1:], start=1):
        if _kind(cell) != _kind(first) or cell.input_size != first.hidden_size:
            got, wanted = f"{cell.input_size} -> {_kind(cell)}", f"{first.hidden_size} -> {_kind(first)}"
            raise ConfigError(
                f"to_torch: layer {layer} differs (got {got}); {wanted}; torch.nn has one kind per module"
            )
    options["bias"] = first.packed.bias is not None
    if isinstance(first, Elman):
        names = [name for name in ("tanh", "relu") if ACTIVATIONS[name] is first.activation]
        if not names:
            raise ConfigError(f"to_torch: torch.nn has no such activation (got {first.activation}); tanh or relu")
        options["nonlinearity"] = names[0]
    like = next(first.parameters())
    module: nn.RNNBase = _LAYERS[type(first)](first.input_size, first.hidden_size, num_layers=len(cells), **options)
    module.to(device=like.device, dtype=like.dtype)
    for layer, cell in enumerate(cells):
        _write(cell, {name: getattr(module, f"{name}_l{layer}") for name in _names(module.bias)})
    return module


def _kind(cell: Any) -> str:
    """What all layers of one torch.nn module have in common."""
    activation = f", {cell.activation.__name__}" if isinstance(cell, Elman) else ""
    return f"{cell.hidden_size}, {type(cell).__name__}{activation}, bias={cell.packed.bias is not None}"


def _names(bias: bool) -> list[str]:
    return ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if bias else [])]


def _own_bias(cell: Cell) -> Any:
    """The candidate's second bias, on the other side of the reset gate from its first: the one that is not added in."""
    return cell.recurrent_bias if isinstance(cell, ResetAfterGRU) else None


@torch.no_grad()
def _read(cell: Any, layer: dict[str, torch.Tensor]) -> None:
    cell.packed.weight_input.copy_(layer["weight_ih"])
    cell.packed.weight_hidden.copy_(layer["weight_hh"])
    if "bias_ih" in layer:
        cell.packed.bias.copy_(layer["bias_ih"] + layer["bias_hh"])
        if (own := _own_bias(cell)) is not None:
            cell.candidate.b.copy_(layer["bias_ih"][-len(own) :])
            own.copy_(layer["bias_hh"][-len(own) :])


@torch.no_grad()
def _write(cell: Any, layer: dict[str, torch.Tensor]) -> None:
    layer["weight_ih"].copy_(cell.packed.weight_input)
    layer["weight_hh"].copy_(cell.packed.weight_hidden)
    if "bias_ih" in layer:
        layer["bias_ih"].copy_(cell.packed.bias)
        layer["bias_hh"].zero_()
        if (own := _own_bias(cell)) is not None:
            layer["bias_hh"][-len(own) :] = own
