"""What makes layers of `torch.nn` run on Carousel's cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from carousel.cells import Cell
from carousel.cells.interchange import cells_of, weights_of
from carousel.compiler import Engine, check_engine
from carousel.errors import ConfigError
from carousel.nn.directions import run_layers
from carousel.nn.shape import Shape
from carousel.nn.unroll import Layout


class DropIn(nn.RNNBase):
    """A layer of `torch.nn` that inherits everything from there but the running.

    The parameters are the module's own, under torch's names. The cells that run have none of their own: they are given
    them at each call. They are no submodules, and a copy of the module makes its own.
    """

    def __init__(self, input_size: int, hidden_size: int, engine: Engine, **options: Any) -> None:
        _check_options(input_size, hidden_size, engine, **options)
        super().__init__(input_size, hidden_size, **options)  # type: ignore[arg-type]  # torch.nn.LSTM and its like
        self.engine = engine
        self._cells = _empty_cells(self)

    def _run(self, input: Any, hx: Any, lengths: Tensor | None) -> tuple[Any, list[Tensor]]:
        """Outputs, in the form of the input, and the fields of the final state, each (D·L, B, ·) or (D·L, ·)."""
        self._check_input(input, lengths)
        packed = isinstance(input, PackedSequence)
        batched = packed or input.dim() == 3
        if packed:
            sizes = input.batch_sizes.tolist()
            layout, inputs = Layout((len(sizes), sizes[0]), sizes, input.sorted_indices), input.data
        else:
            inputs = (input.transpose(0, 1) if self.batch_first else input) if batched else input[:, None]
            layout = Layout.of(inputs, lengths)
        outputs, states = run_layers(
            self._filled_cells(),
            inputs,
            layout,
            self._starting_states(inputs, layout.shape[1], hx, batched),
            Shape(1 + self.bidirectional, dropout=self.dropout),
            training=self.training,
            engine=self.engine,
            padded=not packed,
        )
        finals = [torch.stack(field) if batched else torch.cat(field) for field in zip(*states, strict=True)]
        if packed:
            return PackedSequence(outputs, *input[1:]), finals
        if not batched:
            return outputs[:, 0], finals
        return outputs.transpose(0, 1) if self.batch_first else outputs, finals

    def _filled_cells(self) -> tuple[Cell, ...]:
        """The cells with the parameters as they are now, whoever has put them there."""
        for cell, weights in zip(self._cells, self.all_weights, strict=True):
            for name, weight in weights_of(cell, weights).items():
                block, _, attribute = name.rpartition(".")
                _put(cell.get_submodule(block), attribute, weight)
        return self._cells

    def _starting_states(self, inputs: Tensor, batch: int, hx: Any, batched: bool) -> list[Any]:
        zeros = self._cells[0].initial_state(batch, device=inputs.device, dtype=inputs.dtype)
        if hx is None:
            return [zeros] * len(self._cells)
        wanted = [(len(self._cells), *([batch] if batched else []), field.shape[1]) for field in zeros]
        given = [hx] if isinstance(hx, Tensor) else list(hx)
        if (got := [tuple(field.shape) for field in given]) != wanted:
            raise ConfigError(
                f"hx: does not fit (got {_listed(got)}); {_listed(wanted)}; leave it out to begin at zero"
            )
        fields = given if batched else [field[:, None] for field in given]
        return [type(zeros)(*state) for state in zip(*(field.unbind() for field in fields), strict=True)]

    def _check_input(self, input: Any, lengths: Tensor | None) -> None:
        packed = isinstance(input, PackedSequence)
        data, features = input.data if packed else input, self.input_size
        if data.dim() not in ((2,) if packed else (2, 3)) or data.shape[-1] != features or 0 in data.shape:
            batch = f"(B, T, {features})" if self.batch_first else f"(T, B, {features})"
            allowed = f"{batch}, or (T, {features}) of one sequence, none of them 0"
            raise ConfigError(
                f"input: wrong shape (got {tuple(data.shape)}); {allowed}; "
                + ("transpose it" if features in data.shape else "give input_size features")
            )
        weight = self.all_weights[0][0]
        if data.dtype != weight.dtype and not torch.is_autocast_enabled(data.device.type):
            raise ConfigError(f"input: wrong type (got {data.dtype}); {weight.dtype}, that of the weights; convert one")
        if lengths is not None and (packed or data.dim() == 2):
            form = "PackedSequence" if packed else "single sequence"
            raise ConfigError(f"lengths: known already (got a {form}); with a padded batch only; leave them out")

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {name: value for name, value in state.items() if name != "_cells"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._cells = _empty_cells(self)

    def _replicate_for_data_parallel(self) -> Any:
        replica = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        replica._cells = _empty_cells(self)
        return replica


def _empty_cells(module: nn.RNNBase) -> tuple[Cell, ...]:
    """The cells of the module, whose weights are places to put others: nothing is allocated, and nothing drawn."""
    with torch.device("meta"):
        return tuple(cells_of(module))


def _put(block: nn.Module, name: str, weight: Tensor) -> None:
    """Make any tensor the block's weight of that name: a parameter, a sum of two, what `functional_call` gives.

    Among the parameters or the buffers, as it is one or not, so that torch.fx sees an attribute and not a constant.
    """
    here, there = block._parameters, block._buffers
    if not isinstance(weight, nn.Parameter):
        here, there = there, here  # type: ignore[assignment]
    there.pop(name, None)
    here[name] = weight  # type: ignore[assignment]


def _check_options(
    input_size: int,
    hidden_size: int,
    engine: Engine,
    *,
    num_layers: int,
    dropout: float,
    proj_size: int = 0,
    nonlinearity: str = "tanh",
    **others: Any,
) -> None:
    """Raise ConfigError for what torch.nn refuses with errors of other kinds."""
    for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"{name}: not a size (got {size!r}); 1 or more; give the number of features")
    if not isinstance(num_layers, int) or num_layers < 1:
        raise ConfigError(f"num_layers: not a number of layers (got {num_layers!r}); 1 or more; 1 is the plain cell")
    if not 0 <= dropout <= 1:
        raise ConfigError(f"dropout: not a probability (got {dropout}); 0 to 1; 0 turns it off")
    if not 0 <= proj_size < hidden_size:
        raise ConfigError(
            f"proj_size: does not fit (got {proj_size}); 0 to {hidden_size - 1}, below hidden_size; 0 turns it off"
        )
    if nonlinearity not in ("tanh", "relu"):
        raise ConfigError(
            f"nonlinearity: unknown (got {nonlinearity!r}); tanh, relu; for others see carousel.Recurrent('elman')"
        )
    check_engine(engine)


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return " and ".join(map(str, shapes)) or "nothing"
