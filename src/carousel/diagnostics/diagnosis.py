"""Everything there is to see of a recurrent network on one batch, as numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from carousel.diagnostics.gates import Gate, gates, memory_lengths, retention
from carousel.diagnostics.gradients import GradientFlow, call, flow_of
from carousel.diagnostics.observation import Layer, observing
from carousel.diagnostics.spectra import singular_values, spectrum


@dataclass(frozen=True)
class LayerDiagnosis:
    """What one layer did."""

    name: str
    lengths: Tensor  # (B,)
    states: dict[str, Tensor]  # by field, (T, B, H)
    gates: list[Gate]
    memory: dict[str, Tensor]  # by field that keeps anything, (H,): see `memory_lengths`
    eigenvalues: Tensor | None  # (K, D), complex, see `spectrum`
    singular: dict[str, Tensor]  # by recurrent weight, see `singular_values`

    @property
    def network(self) -> str:
        """Where several run, the name of that which the layer is in; else ""."""
        return self.name.rpartition("layer ")[0].strip()

    @property
    def real(self) -> Tensor:
        """(T, B): where there is no padding."""
        steps = len(next(iter(self.states.values())))
        return torch.arange(steps)[:, None] < self.lengths

    @property
    def memory_field(self) -> str:
        """The field that keeps most: c of an LSTM; the output where none keeps anything."""
        kept = {name: float(lengths.median()) for name, lengths in self.memory.items()}
        return max(kept, key=lambda name: kept[name]) if kept else next(iter(self.states))

    def in_order(self, steps: Sequence[Any]) -> list[Any]:
        """The steps of a sequence in the order in which the layer reads them, or such an order as that of the text."""
        return list(steps)[::-1] if self.name.endswith("backward") else list(steps)

    def norms(self, field: str) -> Tensor:
        """‖s_t‖ of every step and sequence (T, B), NaN in the padding."""
        norms: Tensor = torch.linalg.vector_norm(self.states[field], dim=2)
        return norms.masked_fill(~self.real, torch.nan)


@dataclass(frozen=True)
class Diagnosis:
    """What a network did on a batch, layer by layer, and how its loss's gradients flow back through time."""

    flow: GradientFlow
    layers: list[LayerDiagnosis]

    def networks(self) -> dict[str, Diagnosis]:
        """That of each recurrence alone, by name, in the order in which they run."""
        found = {}
        for name in dict.fromkeys(layer.network for layer in self.layers):
            layers = [layer for layer in self.layers if layer.network == name]
            names = {layer.name for layer in layers}
            flows = [flow for flow in self.flow.flows if flow.layer in names]
            found[name] = Diagnosis(GradientFlow(self.flow.loss, flows), layers)
        return found


def diagnose(model: nn.Module, batch: Any, loss: Callable[[Any], Tensor]) -> Diagnosis:
    """Run the model once and look at its recurrent layers; arguments and errors as of `gradient_flow`.

    >>> from carousel.nn import Recurrent
    >>> found = diagnose(Recurrent("lstm", 3, 4), torch.randn(9, 2, 3), lambda answer: answer[0][-1].sum())
    >>> [gate.name for gate in found.layers[0].gates], list(found.layers[0].memory)
    (['i', 'f', 'g', 'o'], ['c'])
    """
    with observing(model) as layers:
        value = loss(call(model, batch))
    return Diagnosis(flow_of(layers, value), [_layer(layer) for layer in layers])


def _layer(layer: Layer) -> LayerDiagnosis:
    return LayerDiagnosis(
        layer.name,
        layer.lengths,
        {name: layer.states(name).cpu() for name in layer.fields},
        gates(layer),
        {name: memory_lengths(kept) for name, kept in retention(layer).items()},
        spectrum(layer),
        singular_values(layer.cell),
    )
