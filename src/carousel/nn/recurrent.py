"""Any cell, in layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from carousel.cells import Cell, from_torch, to_torch
from carousel.cells.initialisation import initialise_
from carousel.compiler import Engine, check_engine
from carousel.errors import ConfigError
from carousel.nn.dilation import Dilated
from carousel.nn.directions import Directions, run_layers
from carousel.nn.dropouts import CandidateDropout, Zoneout, dropped_weights
from carousel.nn.initial import LearnedStart
from carousel.nn.layers import Kind, build, check_ready_made, one_per_layer
from carousel.nn.locked import Locked, Masked
from carousel.nn.shape import Shape
from carousel.nn.spec import RecurrentSpec
from carousel.nn.stream import Stream
from carousel.nn.unroll import Layout, check_inputs, starting_state, steps
from carousel.nn.wrapper import check_probability


class Recurrent(nn.Module):
    """Layers of a cell, each reading the outputs of the one below; the same as the plain loop

        for cell, state in zip(cells, states):
            inputs, state = unroll(cell, inputs, state, lengths)
            inputs = dropout(inputs)                            # between layers, not after the last

    A bidirectional layer has a second cell, which reads each sequence from its own last element to its first; the layer
    above reads the outputs of both side by side (Schuster and Paliwal 1997, IEEE Trans. Signal Processing 45(11)).

    Args:
        cell: a name in `carousel.cells.CELLS` or a `Cell` class, one for all layers or a sequence, one for each; or
            ready-made cells, one for each layer or, bidirectional, two: forward, backward.
        input_size, hidden_size: I, and H, one for all layers or a sequence; ready-made cells bring their own.
        layers: L; as many as there are cells or hidden sizes, else 1.
        bidirectional: whether there is a backward cell in each layer.
        merge, skip: "concat", "sum" or "mean" of the directions; "residual" or "dense" connections; see `Shape`.
        dilation: d, one for all layers or a sequence: each step starts from the state d steps ago, see `Dilated`.
        dropout: the probability that an output between two layers is zeroed in training; one layer has nothing between.
        locked: between layers, one dropout mask for each sequence and cell, the same at all time steps, see `Locked`.
        input_dropout, state_dropout: of the first layer's inputs, and of the state that each map reads, locked as well.
        candidate_dropout, zoneout: noise inside the recurrence, see `CandidateDropout` and `Zoneout`.
        weight_dropout: of the recurrent weights, drawn once for each call, see `dropped_weights`.
        learn_start: train the initial state too, see `LearnedStart`.
        initialisation: of the recurrent weights, by name: "orthogonal", "identity", "chrono", "chrono:T"; see
            `carousel.cells.initialisation`.
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
        cell: Kind | Cell | Sequence[Kind] | Sequence[Cell],
        input_size: int | None = None,
        hidden_size: int | Sequence[int] | None = None,
        *,
        layers: int | None = None,
        bidirectional: bool = False,
        merge: str = "concat",
        skip: str | None = None,
        dilation: int | Sequence[int] = 1,
        dropout: float = 0.0,
        locked: bool = False,
        input_dropout: float = 0.0,
        state_dropout: float = 0.0,
        candidate_dropout: float = 0.0,
        zoneout: float | Mapping[str, float] = 0.0,
        weight_dropout: float = 0.0,
        learn_start: bool = False,
        initialisation: str = "default",
        batch_first: bool = False,
        engine: Engine = "auto",
        **cell_options: Any,
    ) -> None:
        super().__init__()
        check_engine(engine)
        check_probability("dropout", dropout)
        check_probability("weight_dropout", weight_dropout)
        self.shape = Shape(1 + bidirectional, merge, skip, 0.0 if locked else dropout)
        kinds = [cell] if isinstance(cell, str | type | Cell) else list(cell)
        if kinds and not isinstance(kinds[0], Cell):
            cells = build(cast("list[Kind]", kinds), input_size, hidden_size, layers, self.shape, cell_options)
        else:
            cells = cast("list[Cell]", kinds)
            check_ready_made(cells, input_size, hidden_size, layers, self.shape, cell_options)
        self.input_size, self.hidden_size = cells[0].input_size, cells[-1].hidden_size
        self.output_size = self.shape.width(cells[-1 - bidirectional :])
        dilations = one_per_layer("dilation", dilation, len(cells) // self.shape.directions)
        for k, one in enumerate(cells):
            layer = k // self.shape.directions
            inputs = input_dropout if layer == 0 else dropout if locked else 0.0
            if state_dropout:
                one = Masked(one)
            if candidate_dropout:
                one = CandidateDropout(one, candidate_dropout)
            if zoneout:
                one = Zoneout(one, zoneout)
            if learn_start:
                one = LearnedStart(one)
            if inputs or state_dropout:
                one = Locked(one, inputs=inputs, state=state_dropout)
            cells[k] = one if dilations[layer] == 1 else Dilated(one, dilations[layer])
        self.cells = nn.ModuleList(cells)
        initialise_(self, initialisation)
        self.bidirectional, self.dropout, self.batch_first = bidirectional, dropout, batch_first
        self.weight_dropout, self.engine = weight_dropout, engine

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
        states = self._starting_states(sequence, state)
        with self._dropped_weights():
            outputs, finals = run_layers(
                self._cells(),
                sequence,
                layout,
                states,
                self.shape,
                training=self.training,
                engine=self.engine,
                padded=True,
            )
        return (outputs.transpose(0, 1) if self.batch_first else outputs), self._by_layer(finals)

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

        def take(cell: Cell, before: Any, reads: Tensor) -> Tensor:
            [step] = steps(cell, reads, [len(reads)])
            states.append(step(before))
            output: Tensor = states[-1][0]
            return output

        befores = self._starting_states(x, state)
        with self._dropped_weights():
            layers = [partial(take, cell, before) for cell, before in zip(self._cells(), befores, strict=True)]
            return self.shape.through(layers, x, training=self.training), tuple(states)

    def stream(self, batch: int = 1, state: Any = None) -> Stream:
        """The network as something to feed one element at a time: the fast way, without gradients, see `Stream`.

        Raises:
            ConfigError: the network is bidirectional: a stream has no future to read.
        """
        if self.bidirectional:
            raise ConfigError(
                "stream: reads no future (got bidirectional=True); one direction; run whole sequences instead"
            )
        return Stream(self._cells(), state, batch=batch, shape=self.shape, engine=self.engine)

    def initial_state(self, batch: int) -> tuple[Any, ...]:
        """What a sequence starts from when no state is given: one state per layer."""
        return self._by_layer([cell.initial_state(batch) for cell in self._cells()])

    def _dropped_weights(self) -> AbstractContextManager[None]:
        dropped = self.weight_dropout if self.training else 0.0
        return dropped_weights(self._cells(), dropped) if dropped else nullcontext()

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
    def parse(cls, text: str, input_size: int) -> Recurrent:
        """The network that one line of text describes, see `RecurrentSpec`.

        Raises:
            ConfigError: the text is not as there; the message names the nearest option.

        >>> Recurrent.parse("gru:4 layers=2 bidirectional skip=residual", input_size=3).output_size
        8
        """
        spec = RecurrentSpec.parse(text)
        return cls(spec.cells, input_size, spec.hidden_sizes, **dict(spec.options))

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

        Raises:
            ConfigError: torch.nn has no such cell, or nothing like the options.
        """
        plain = Shape(self.shape.directions, dropout=self.dropout)
        if self.shape != plain or self.weight_dropout:
            raise ConfigError(
                f"to_torch: torch.nn has no such layers (got {self.extra_repr()}); "
                "those without merge, skip, locked and weight_dropout; keep it as it is"
            )
        options = {name: getattr(self, name) for name in ("bidirectional", "dropout", "batch_first")}
        return to_torch(self._cells(), **options)

    def extra_repr(self) -> str:
        other: list[tuple[str, Any, Any]] = [("merge", self.shape.merge, "concat"), ("skip", self.shape.skip, None)]
        other += [("weight_dropout", self.weight_dropout, 0.0)]
        plain = f"bidirectional={self.bidirectional}, dropout={self.dropout}, batch_first={self.batch_first}"
        return ", ".join([plain, *(f"{name}={value}" for name, value, default in other if value != default)])
