"""How far back learning reaches: gradients of a loss with respect to the states of every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from carousel.diagnostics.gauges import Gauges, gauging
from carousel.diagnostics.observation import Layer
from carousel.errors import ConfigError
from carousel.nn import Recurrent

SHARE = 0.01  # of the norm at lag 0, below which a gradient counts as gone


@dataclass(frozen=True)
class Flow:
    """‖dL/ds_t‖ of one field s of one layer's state, for every step and sequence.

    The lag of a step is how many steps it lies before the last one whose state the loss depends on.
    """

    layer: str
    field: str
    norms: Tensor  # (T, B), zero in the padding
    last: Tensor  # (B,) the step at lag 0; -1 where the loss depends on no step

    def by_step(self) -> Tensor:
        """(T,): the mean over the sequences alive at each step, of which some may have no gradient."""
        alive = torch.arange(len(self.norms))[:, None] <= self.last
        return (self.norms * alive).sum(1) / alive.sum(1).clamp(min=1)

    def by_lag(self) -> Tensor:
        """(T, B): the norms in order of their lags, NaN for lags that are longer than a sequence."""
        lags = torch.arange(int(self.last.max()) + 1)[:, None]
        steps = self.last - lags
        return self.norms.gather(0, steps.clamp(min=0)).masked_fill(steps < 0, torch.nan)

    @property
    def first(self) -> int:
        """The first lag at which there is a gradient: 0, but for a field that only the next step reads."""
        lags = (self.by_lag() > 0).any(1).nonzero()
        return int(lags[0]) if len(lags) else 0

    def ratios(self) -> Tensor:
        """(T, B): the norms over that at the first lag, NaN where there is none."""
        norms = self.by_lag()
        return (norms / norms[self.first]).masked_fill(norms[self.first] == 0, torch.nan)

    def shares(self) -> Tensor:
        """(T,): for each lag the mean norm over that at the first of the same sequences, those that reach so far."""
        norms = self.by_lag()
        reference = norms[self.first].expand_as(norms).masked_fill(norms.isnan(), torch.nan)
        return norms.nansum(1) / reference.nansum(1)

    def reach(self, share: float = SHARE) -> int | None:
        """The lag from which on no gradient is as much as `share` of that at the first; None if there is none."""
        kept = (self.shares() >= share).nonzero()
        after = int(kept[-1]) + 1 if len(kept) else 0
        return after if after < len(self.shares()) else None


@dataclass(frozen=True)
class GradientFlow:
    """The gradients of one loss with respect to every state; a `Flow` for each layer and field."""

    loss: float
    flows: list[Flow]

    def __getitem__(self, key: tuple[int, str]) -> Flow:
        """By the number of a layer, from 0, and a field: `flow[0, "c"]`."""
        layer, field = key
        names = list(dict.fromkeys(flow.layer for flow in self.flows))
        return next(flow for flow in self.flows if (flow.layer, flow.field) == (names[layer], field))

    def reach(self, share: float = SHARE) -> int | None:
        """That of the field that reaches the farthest."""
        found = [flow.reach(share) for flow in self.flows]
        return None if None in found else max(one for one in found if one is not None)


def gradient_flow(model: nn.Module, batch: Any, loss: Callable[[Any], Tensor] | None = None) -> GradientFlow:
    """‖dL/dh_t‖, ‖dL/dc_t‖ and so on of every layer, time step and sequence, from one backward pass.

        dL/ds_t: what a small change of the state at t does to the loss, by its own output and by all later states

    Args:
        model: a `Recurrent`, or a module with one or several in it, which runs once for a batch.
        batch: what the model is called with: a mapping as keywords, a list or plain tuple as arguments, anything else
            as the one argument.
        loss: a scalar of what the model returns, best a sum over sequences, so that none weighs less in a large batch.
            For gradients by lag it should be a loss of each sequence's last step. For a `Recurrent` it may be left
            out: half the squared norm of the last layer's last output.

    Raises:
        ConfigError: the model has no `Recurrent`, or there is no loss.

    The parameters' own gradients are left as they are. Ended sequences count as far as they go.

    >>> flow = gradient_flow(Recurrent("lstm", 3, 4), torch.randn(50, 2, 3))
    >>> flow[0, "c"].norms.shape
    torch.Size([50, 2])
    """
    if loss is None and not isinstance(model, Recurrent):
        raise ConfigError(f"loss: none (got a {type(model).__name__}); a function of what the model returns; give one")
    with gauging(model) as gauges:
        value = (loss or _last_output)(call(model, batch))
    _check_scalar(value)
    gauges.backward(value)
    return gauged_flow(gauges, value)


def call(model: nn.Module, batch: Any) -> Any:
    """The model's answer to a batch, see `gradient_flow`."""
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, list) or type(batch) is tuple:
        return model(*batch)
    return model(batch)


def _last_output(answer: tuple[Tensor, Any]) -> Tensor:
    _, state = answer
    ends = state[-1]
    output: Tensor = torch.cat([end[0] for end in ends], 1) if isinstance(ends[0], tuple) else ends[0]
    return output.square().sum() / 2


def gauged_flow(gauges: Gauges, loss: Tensor | float) -> GradientFlow:
    """What gauges read in the backward pass of a loss.

    >>> model = Recurrent("lstm", 3, 4)
    >>> with gauging(model) as gauges:
    ...     loss = model(torch.randn(50, 2, 3))[0].square().sum()
    >>> loss.backward()
    >>> gauged_flow(gauges, loss)[0, "c"].norms.shape
    torch.Size([50, 2])
    """
    flows = [flow for name, norms in gauges.norms() for flow in _flows(name, norms)]
    return GradientFlow(float(loss.detach()) if isinstance(loss, Tensor) else loss, flows)


def flow_of(layers: Sequence[Layer], loss: Tensor) -> GradientFlow:
    """The gradients of a scalar with respect to the states of observed layers; the only backward pass there is."""
    _check_scalar(loss)
    states = [getattr(state, name) for layer in layers for name in layer.fields for state in layer.after]
    floating = [state for state in states if state.is_floating_point() and state.requires_grad]
    found = torch.autograd.grad(loss, floating, allow_unused=True, retain_graph=True)
    gradients = {id(state): gradient for state, gradient in zip(floating, found, strict=True)}
    flows = []
    for layer in layers:
        flows += _flows(layer.name, {name: _norms(layer, name, gradients) for name in layer.fields})
    return GradientFlow(float(loss.detach()), flows)


def _check_scalar(loss: Tensor) -> None:
    if loss.dim() or not loss.requires_grad:
        raise ConfigError(
            f"loss: no gradient (got shape {tuple(loss.shape)}, requires_grad={loss.requires_grad}); "
            "a scalar that depends on the network; sum it"
        )


def _flows(layer: str, norms: Mapping[str, Tensor]) -> list[Flow]:
    """Of a layer, from the norms (T, B) of each field's gradients."""
    reached = torch.stack(list(norms.values())).sum(0) > 0
    steps = torch.arange(1, len(reached) + 1)[:, None]
    last = (reached.cpu() * steps).amax(0) - 1
    return [Flow(layer, name, norm.cpu(), last) for name, norm in norms.items()]


def _norms(layer: Layer, name: str, gradients: Mapping[int, Tensor | None]) -> Tensor:
    """(T, B)"""
    steps = []
    for state in layer.after:
        value = getattr(state, name)
        gradient = gradients.get(id(value))
        gradient = torch.zeros_like(value) if gradient is None else gradient
        steps.append(torch.linalg.vector_norm(gradient.flatten(1).float(), dim=1, keepdim=True))
    return layer.padded(steps)[..., 0]
