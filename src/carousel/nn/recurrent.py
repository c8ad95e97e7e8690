"""Any cell, in layers."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

from carousel.cells import Cell, cell_class, from_torch, to_torch
from carousel.compiler import Engine, check_engine
from carousel.errors import ConfigError
from carousel.nn.directions import Directions, run_layers
from carousel.nn.stream import Stream
from carousel.nn.unroll import Layout, check_inputs, starting_state, steps


class Recurrent(nn.Module):
    """Layers of a cell, each reading the outputs of the one below; the same as the plain loop

        for cell, state in zip(cells, states):
            inputs, state = unroll(cell, inputs, state, lengths)
            inputs = dropout(inputs)                            # between layers, not after the last

    A bidirectional layer has a second cell, which reads each sequence from its own last element to its first; the layer
    above reads the outputs of both side by side (Schuster and Paliwal 1997, IEEE Trans. Signal Processing 45(11)).

    Args:
        cell: a name in `carousel.cells.CELLS`, a `Cell` class, or ready-made cells: one, or a sequence for the layers;
            bidirectional, two for each layer: forward, backward.
        input_size, hidden_size: I and H; ready-made cells bring their own.
        layers: L; as many as there are ready-made cells for.
        bidirectional: whether there is a backward cell in each layer.
        dropout: the probability that an output between two layers is zeroed in training; one layer has nothing between.
        batch_first: inputs and outputs are (B, T, ...) rather than (T, B, ...). States are not affected.
        engine: what runs the time loop, see `unroll`.
        cell_options: passed on to the cell.

    Raises:
        ConfigError: an option is not as above; the message says which.

    The state is a tuple of one `Cell.State` per layer, or one pair of them, `Directions(forward, backward)`.

    >>> import torch
    >>> decoder = Recurrent("lstm", 3, 4, layers=2, dropout=0.5, forget_bias=2.0)
    >>> outputs, state = decoder(torch.randn(7, 2, 3), lengths=torch.tensor([7, 4]))
    >>> outputs.shape, len(state), state[-1].c.shape
    (torch.Size([7, 2, 4]), 2, torch.Size([2, 4]))
    >>> output, state = decoder.step(torch.randn(2, 3), state)
    >>> output.shape
    torch.Size([2, 4])
    >>> outputs, state = Recurrent("gru", 3, 4, bidirectional=True)(torch.randn(7, 2, 3))
    >>> outputs.shape, state[-1].backward.h.shape
    (torch.Size([7, 2, 8]), torch.Size([2, 4]))
    """

    def __init__(
        self,
        cell: str | type[Cell] | Cell | Sequence[Cell],
        input_size: int | None = None,
        hidden_size: int | None = None,
        *,
        layers: int | None = None,
        bidirectional: bool = False,
        dropout: float = 0.0,
        batch_first: bool = False,
        engine: Engine = "auto",
        **cell_options: Any,
    ) -> None:
        super().__init__()
        check_engine(engine)
        if not 0 <= dropout <= 1:
            raise ConfigError(f"dropout: not a probability (got {dropout}); 0 to 1; 0 turns it off")
        if isinstance(cell, str):
            cell = cell_class(cell)
        if isinstance(cell, type):
            layers = 1 if layers is None else layers
            cells = _build(cell, input_size, hidden_size, layers, 1 + bidirectional, cell_options)
        else:
            cells = [cell] if isinstance(cell, Cell) else list(cell)
            _check_ready_made(cells, input_size, hidden_size, layers, 1 + bidirectional, cell_options)
        self.cells = nn.ModuleList(cells)
        self.input_size, self.hidden_size = cells[0].input_size, cells[-1].hidden_size
        self.output_size = sum(cell.output_size for cell in cells[-1 - bidirectional :])
        self.bidirectional, self.dropout, self.batch_first = bidirectional, dropout, batch_first
        self.engine: Engine = engine

    def forward(self, inputs: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """Outputs of the last layer (T, B, `output_size`) and the state after each sequence's own last step.

        Args:
            inputs: (T, B, I), or (B, T, I) with `batch_first`.
            state: as returned; what to start from.
            lengths: (B,) integers from 1 to T, as in `unroll`.
        """
        sequence = inputs.transpose(0, 1) if self.batch_first and inputs.dim() == 3 else inputs
        check_inputs(sequence, self.input_size)
        layout = Layout.of(sequence, lengths)
        outputs, finals = run_layers(
            self._cells(),
            layout.pack(sequence),
            layout,
            self._starting_states(sequence, state),
            directions=1 + self.bidirectional,
            dropout=self.dropout if self.training else 0.0,
            engine=self.engine,
        )
        padded = layout.unpack(outputs)
        return (padded.transpose(0, 1) if self.batch_first else padded), self._by_layer(finals)

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One time step, for streams and decoders: output (B, H) and the state, from x: (B, I).

        Raises:
            ConfigError: a shape is not as above, or the network is bidirectional: a stream has no future to read.
        """
        if self.bidirectional:
            raise ConfigError(
                "step: reads no future (got bidirectional=True); one direction; run whole sequences instead"
            )
        if x.dim() != 2 or x.shape[1] != self.input_size or len(x) == 0:
            raise ConfigError(f"x: wrong shape (got {tuple(x.shape)}); (B, {self.input_size}); one time step")
        states: list[Any] = []
        for cell, before in zip(self._cells(), self._starting_states(x, state), strict=True):
            if states and self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            [step] = steps(cell, x, [len(x)])
            states.append(step(before))
            x = states[-1][0]
        return x, tuple(states)

    def stream(self, batch: int = 1, state: Any = None) -> Stream:
        """The network as something to feed one element at a time: the fast way, without gradients, see `Stream`.

        Raises:
            ConfigError: the network is bidirectional: a stream has no future to read.
        """
        if self.bidirectional:
            raise ConfigError(
                "stream: reads no future (got bidirectional=True); one direction; run whole sequences instead"
            )
        return Stream(self._cells(), state, batch=batch, engine=self.engine)

    def initial_state(self, batch: int) -> tuple[Any, ...]:
        """What a sequence starts from when no state is given: one state per layer."""
        return self._by_layer([cell.initial_state(batch) for cell in self._cells()])

    def _cells(self) -> list[Cell]:
        return cast("list[Cell]", list(self.cells))

    def _by_layer(self, states: list[Any]) -> tuple[Any, ...]:
        """States of cells as a state of the network."""
        if self.bidirectional:
            return tuple(map(Directions, states[::2], states[1::2]))
        return tuple(states)

    def _starting_states(self, inputs: Tensor, state: Any) -> list[Any]:
        """A state of the network, checked, as states of cells; the initial one for None."""
        layers, given = len(self.cells) // (1 + self.bidirectional), state
        if state is None:
            given = [None] * len(self.cells)
        elif not isinstance(state, tuple) or len(state) != layers:
            got = len(state) if isinstance(state, tuple) else type(state).__name__
            raise ConfigError(f"state: does not fit (got {got}); a tuple of {layers}, one state per layer")
        elif self.bidirectional:
            for pair in state:
                if not isinstance(pair, tuple) or len(pair) != 2:
                    got = len(pair) if isinstance(pair, tuple) else type(pair).__name__
                    raise ConfigError(f"state: does not fit (got {got}); a pair per layer; forward and backward")
            given = [one for pair in state for one in pair]
        return [starting_state(cell, inputs, one) for cell, one in zip(self._cells(), given, strict=True)]

    @classmethod
    def from_torch(cls, module: nn.RNNBase) -> Recurrent:
        """The same network as a `torch.nn.RNN`, `LSTM` or `GRU`, with a copy of its weights.

        >>> Recurrent.from_torch(nn.LSTM(3, 4, num_layers=2, batch_first=True)).batch_first
        True
        """
        options = {name: getattr(module, name) for name in ("bidirectional", "dropout", "batch_first")}
        return cls(from_torch(module), **options)

    def to_torch(self) -> nn.RNNBase:
        """The same network as a module of `torch.nn`, with a copy of its weights.

        >>> Recurrent("gru-reset-after", 3, 4).to_torch()
        GRU(3, 4)
        """
        options = {name: getattr(self, name) for name in ("bidirectional", "dropout", "batch_first")}
        return to_torch(self._cells(), **options)

    def extra_repr(self) -> str:
        return f"bidirectional={self.bidirectional}, dropout={self.dropout}, batch_first={self.batch_first}"


def _build(
    cell: type[Cell],
    input_size: int | None,
    hidden_size: int | None,
    layers: int,
    directions: int,
    options: dict[str, Any],
) -> list[Cell]:
    if input_size is None or hidden_size is None:
        missing = "input_size" if input_size is None else "hidden_size"
        raise ConfigError(f"{missing}: missing (got None); 1 or more; needed to make a {cell.__name__}")
    if layers < 1:
        raise ConfigError(f"layers: not a number of layers (got {layers}); 1 or more; 1 is the plain cell")
    allowed = [name for name in inspect.signature(cell).parameters if name not in ("input_size", "hidden_size")]
    for name, value in options.items():
        if name not in allowed:
            nearest = difflib.get_close_matches(name, allowed, n=1, cutoff=0.0)
            mend = f"did you mean {nearest[0]!r}?" if nearest else "leave it out"
            listed = ", ".join(allowed) or "none"
            raise ConfigError(f"{name}: not an option of {cell.__name__} (got {value!r}); {listed}; {mend}")
    cells: list[Cell] = []
    for _ in range(layers):
        reads = sum(below.output_size for below in cells[-directions:]) if cells else input_size
        cells += [cell(reads, hidden_size, **options) for _ in range(directions)]
    return cells


def _check_ready_made(
    cells: Sequence[Cell],
    input_size: int | None,
    hidden_size: int | None,
    layers: int | None,
    directions: int,
    options: dict[str, Any],
) -> None:
    if not cells:
        raise ConfigError("cell: an empty list (got []); at least one cell; give one per layer")
    for name, value in options.items():
        raise ConfigError(f"{name}: ready-made cells take no options (got {value!r}); none; set it on the cell")
    if len(cells) % directions:
        raise ConfigError(
            f"cell: not two per layer (got {len(cells)}); forward and backward; bidirectional layers have both"
        )
    if layers not in (None, len(cells) // directions):
        had, give = len(cells) // directions, "one cell" if directions == 1 else "two cells"
        raise ConfigError(f"layers: not the number of cells (got {layers}); {had}; give {give} per layer")
    if input_size not in (None, cells[0].input_size) or hidden_size not in (None, cells[-1].hidden_size):
        got, allowed = f"{input_size}, {hidden_size}", f"{cells[0].input_size}, {cells[-1].hidden_size}"
        raise ConfigError(f"input_size, hidden_size: not the cells' (got {got}); {allowed}; leave them out")
    for k, cell in enumerate(cells):
        layer = k // directions
        below = cells[(layer - 1) * directions : layer * directions] if layer else []
        reads = sum(one.output_size for one in below) if below else cells[0].input_size
        if cell.input_size != reads:
            what = "the output size below it" if below else "as the other direction"
            raise ConfigError(
                f"cell: layer {layer} does not fit (got input_size {cell.input_size}); {reads}, {what}; match them"
            )
