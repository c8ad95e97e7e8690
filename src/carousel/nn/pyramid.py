"""Layers of which each reads a shorter sequence than the one below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.errors import ConfigError
from carousel.nn.recurrent import Recurrent
from carousel.nn.unroll import Layout, check_inputs
from carousel.nn.wrapper import check_probability


class Shortened(NamedTuple):
    """What a `Pyramid` gives."""

    outputs: Tensor  # (T', B, ·)
    state: tuple[Any, ...]  # of each layer
    lengths: Tensor | None  # (B,) those of the outputs; None if none were given


def join_steps(inputs: Tensor, lengths: Tensor | None = None, *, factor: int = 2) -> tuple[Tensor, Tensor | None]:
    """Every `factor` steps side by side as one: (T, B, I) -> (⌈T / factor⌉, B, factor · I), and the new lengths.

    A sequence whose length is no multiple ends with zeros beside its last steps.

    >>> joined, lengths = join_steps(torch.arange(1.0, 4).view(3, 1, 1), torch.tensor([3]))
    >>> joined[:, 0].tolist(), lengths.tolist()
    ([[1.0, 2.0], [3.0, 0.0]], [2])
    """
    time, batch = inputs.shape[:2]
    if lengths is not None:
        Layout.of(inputs, lengths)  # checks them
        padding = torch.arange(time, device=inputs.device)[:, None] >= lengths.to(inputs.device)
        inputs = inputs.masked_fill(padding[:, :, None], 0)
        lengths = (lengths + factor - 1) // factor
    whole = F.pad(inputs, (0, 0, 0, 0, 0, -time % factor))
    return whole.view(-1, factor, batch, inputs.shape[2]).transpose(1, 2).flatten(2), lengths


class Pyramid(nn.Module):
    """Layers of a cell, of which each above the first reads every two outputs of the one below as one.

        h_i^j = cell(h_{i-1}^j, [h_{2i}^{j-1}, h_{2i+1}^{j-1}])

    So L layers leave ⌈T / 2^(L-1)⌉ steps for a decoder to attend to.

    Chan et al. 2016, arXiv:1508.01211, "Listen, attend and spell", eq. 5.

    Args:
        cell, input_size, hidden_size: as of `Recurrent`, for every layer.
        layers: L; the paper has 4, the first of them as it is.
        factor: how many outputs become one.
        dropout: the probability that what a layer above the first reads is zeroed in training.
        batch_first: inputs and outputs are (B, T, ...).
        options: others of `Recurrent`, for every layer; the paper's are bidirectional.

    >>> listener = Pyramid("lstm", 3, 4, layers=3, bidirectional=True)
    >>> outputs, state, lengths = listener(torch.randn(7, 2, 3), lengths=torch.tensor([7, 3]))
    >>> outputs.shape, lengths.tolist()
    (torch.Size([2, 2, 8]), [2, 1])
    """

    class State(NamedTuple):
        """Where a stream stands between two steps."""

        layers: tuple[Any, ...]  # the state of each, None for one that has read nothing yet
        waiting: tuple[tuple[Tensor, ...], ...]  # for each, what it has not read yet, (B, ·): too few to be joined

    def __init__(
        self,
        cell: Any,
        input_size: int,
        hidden_size: int,
        *,
        layers: int = 2,
        factor: int = 2,
        dropout: float = 0.0,
        batch_first: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        check_probability("dropout", dropout)
        for name, number in (("layers", layers), ("factor", factor)):
            if number < 1:
                raise ConfigError(f"{name}: too few (got {number}); 1 or more; 1 leaves every step")
        self.factor, self.dropout, self.batch_first = factor, dropout, batch_first
        self.layers = nn.ModuleList()
        for _ in range(layers):
            layer = Recurrent(cell, input_size, hidden_size, **options)
            self.layers.append(layer)
            input_size = factor * layer.output_size

    def forward(self, inputs: Tensor, state: Sequence[Any] | None = None, lengths: Tensor | None = None) -> Shortened:
        """Outputs of the last layer, the state of each after its own last step, and the outputs' lengths.

        Args:
            inputs: (T, B, I), or (B, T, I) with `batch_first`.
            state: as returned; what to start from.
            lengths: (B,) integers from 1 to T, as in `unroll`.
        """
        reads = inputs.transpose(0, 1) if self.batch_first and inputs.dim() == 3 else inputs
        first: Any = self.layers[0]
        check_inputs(reads, first.input_size)
        finals = []
        for k, (layer, start) in enumerate(zip(self.layers, self._one_per_layer(state), strict=True)):
            if k:
                reads, lengths = join_steps(reads, lengths, factor=self.factor)
                reads = F.dropout(reads, self.dropout, self.training)
            reads, final = layer(reads, start, lengths)
            finals.append(final)
        return Shortened(reads.transpose(0, 1) if self.batch_first else reads, tuple(finals), lengths)

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor | None, State]:
        """One time step of a stream, x: (B, I): the output (B, ·) that it completes, mostly None, and the state.

            outputs, state = [], None
            for x in inputs:
                output, state = pyramid.step(x, state)
                outputs.append(output)
            output, state = pyramid.finish(state)
            outputs.append(output)

        gives, where it is not None, the outputs of the whole sequence.

        Raises:
            ConfigError: a shape is not as above, or the layers are bidirectional: a stream has no future to read.

        >>> network = Pyramid("gru", 3, 4, layers=2)
        >>> first, state = network.step(torch.randn(1, 3))
        >>> second, state = network.step(torch.randn(1, 3), state)
        >>> first is None, second.shape
        (True, torch.Size([1, 4]))
        """
        layers, waiting = self._standing(state)
        first: Any = self.layers[0]
        output, layers[0] = first.step(x, layers[0])
        return self._climb(output, layers, waiting)

    def finish(self, state: State) -> tuple[Tensor | None, State]:
        """The output (B, ·) of steps that still wait to be joined, beside zeros as in `join_steps`; None if none do."""
        return self._climb(None, *self._standing(state), last=True)

    def _climb(
        self, output: Tensor | None, layers: list[Any], waiting: list[tuple[Tensor, ...]], last: bool = False
    ) -> tuple[Tensor | None, State]:
        """Hand an output of the first layer on, as far up as there is enough to read; if it is the last, to the top."""
        for k in range(1, len(layers)):
            reads = waiting[k] if output is None else (*waiting[k], output)
            output, waiting[k] = None, reads
            if len(reads) == self.factor or (last and reads):
                zeros = [torch.zeros_like(reads[0])] * (self.factor - len(reads))
                joined = F.dropout(torch.cat([*reads, *zeros], 1), self.dropout, self.training)
                layer: Any = self.layers[k]
                output, layers[k] = layer.step(joined, layers[k])
                waiting[k] = ()
        return output, self.State(tuple(layers), tuple(waiting))

    def _standing(self, state: State | None) -> tuple[list[Any], list[tuple[Tensor, ...]]]:
        if state is None:
            return self._one_per_layer(None), [()] * len(self.layers)
        return self._one_per_layer(state.layers), self._one_per_layer(state.waiting)

    def _one_per_layer(self, given: Sequence[Any] | None) -> list[Any]:
        if given is None:
            return [None] * len(self.layers)
        if len(given) != len(self.layers):
            raise ConfigError(f"state: does not fit (got {len(given)}); one per layer, {len(self.layers)}; as returned")
        return list(given)
