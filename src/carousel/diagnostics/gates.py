"""Gates over real inputs: how open they are, which saturate, which never move, and how long the units remember."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from carousel.diagnostics.observation import Layer

LOW, HIGH = 0.1, 0.9  # of a sigmoid; a tanh is saturated beyond ±HIGH
STUCK = 0.95  # above it, or as near to 0, at every step: a gate that does not gate
KINDS = {"SigmoidBackward0": "sigmoid", "HardsigmoidBackward0": "sigmoid", "TanhBackward0": "tanh"}
THROUGH = ("Chunk", "Split", "Slice", "Unbind", "View", "Unsafe", "Rsub", "Select", "T", "Alias")  # of one operand


@dataclass(frozen=True)
class Gate:
    """A value of the cell's step that a sigmoid or tanh keeps in bounds, at all steps of all sequences."""

    name: str
    kind: str  # "sigmoid" or "tanh"
    values: Tensor  # (T, B, H), zero in the padding
    real: Tensor  # (T, B) where there is no padding

    @property
    def taken(self) -> Tensor:
        """(Σ lengths, H)"""
        return self.values[self.real]

    @property
    def low(self) -> Tensor:
        """(H,): the share of steps at which each unit is below .1, or for a tanh below -.9."""
        return (self.taken < (LOW if self.kind == "sigmoid" else -HIGH)).float().mean(0)

    @property
    def high(self) -> Tensor:
        """(H,): the share of steps at which each unit is above .9."""
        return (self.taken > HIGH).float().mean(0)

    @property
    def stuck_open(self) -> list[int]:
        """The units that are above .95 at every step."""
        return _where(self.taken.amin(0) > STUCK)

    @property
    def stuck_closed(self) -> list[int]:
        """The units that are below .05 at every step; for a tanh, those within ±.05: they say nothing."""
        return _where(self.taken.abs().amax(0) < 1 - STUCK)


def _where(units: Tensor) -> list[int]:
    found: list[int] = units.nonzero()[:, 0].tolist()
    return found


def gates(layer: Layer) -> list[Gate]:
    """The gates of a layer: all named values of its step, and of its state, that come straight from a sigmoid or tanh.

    >>> from carousel.diagnostics import observing
    >>> from carousel.nn import Recurrent
    >>> network = Recurrent("lstm", 3, 4)
    >>> with observing(network) as layers:
    ...     _ = network(torch.randn(5, 2, 3))
    >>> [(gate.name, gate.kind) for gate in gates(layers[0])]
    [('i', 'sigmoid'), ('f', 'sigmoid'), ('g', 'tanh'), ('o', 'sigmoid')]
    """
    states = {name: [getattr(state, name) for state in layer.after] for name in layer.fields}
    named = layer.gates | {name: steps for name, steps in states.items() if name not in layer.gates}
    kinds = {name: _kind(steps[-1]) for name, steps in named.items()}
    real = torch.arange(layer.layout.shape[0])[:, None] < layer.lengths
    return [Gate(name, kind, layer.padded(named[name]).cpu(), real) for name, kind in kinds.items() if kind]


def _kind(value: Tensor) -> str:
    """What keeps the value in bounds, from how autograd says it was made."""
    node = value.grad_fn
    while node is not None and node.name() not in KINDS:
        before = [function for function, _ in node.next_functions if function is not None]
        if len(before) != 1 or not node.name().startswith(THROUGH):
            return ""
        node = before[0]
    return KINDS[node.name()] if node is not None else ""


class _AsGiven(TorchFunctionMode):
    """Products with weights and sigmoids come out as numbers, on which nothing depends."""

    PRODUCTS = ("linear", "addmm", "mm", "matmul", "bmm", "baddbmm", "einsum", "sigmoid", "hardsigmoid")

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        return result.detach() if getattr(func, "__name__", "").strip("_") in self.PRODUCTS else result


def retention(layer: Layer) -> dict[str, Tensor]:
    """What remains of each unit's own state after one step, the gates as they were: for each field (Σ lengths, H).

        ∂s_t / ∂s_{t-1}  of the same unit, by way of no weight and no gate

    For an LSTM's c that is f_t, for a GRU z_t, for a leaky unit its constant; for a plain network there is none. Fields
    that keep nothing are left out.

    >>> from carousel.diagnostics import observing
    >>> from carousel.nn import Recurrent
    >>> network = Recurrent("lstm", 3, 4)
    >>> with observing(network) as layers:
    ...     _ = network(torch.randn(5, 2, 3))
    >>> kept = retention(layers[0])
    >>> list(kept), torch.allclose(kept["c"], torch.cat(layers[0].gates["f"]))
    (['c'], True)
    """
    state = layer.cell.State(*(torch.cat(fields).detach() for fields in zip(*layer.before, strict=True)))
    found: dict[str, Tensor] = {}
    with torch.enable_grad():
        for name in layer.fields:
            own = getattr(state, name)
            if not own.is_floating_point() or own.dim() != 2:
                continue
            own = own.requires_grad_()
            with _AsGiven():
                after = getattr(layer.cell.step(layer.inputs.detach(), state._replace(**{name: own})), name)
            if after is own or not after.requires_grad:
                continue
            (kept,) = torch.autograd.grad(after.sum(), own, allow_unused=True)
            own.requires_grad_(False)
            if kept is not None and kept.any():
                found[name] = kept.detach().cpu()
    return found


def memory_lengths(kept: Tensor) -> Tensor:
    """For each unit (H,) the steps after which 1/e of its state is left, -1 / mean(log f_t) of what remains (N, H).

    Infinite for a unit that loses nothing.

    >>> memory_lengths(torch.tensor([[0.9, 0.5, 1.0], [0.9, 0.5, 1.0]]))
    tensor([9.4912, 1.4427,    inf])
    """
    rate = -kept.abs().clamp(min=1e-30).log().mean(0)
    return torch.where(rate > 1e-7, 1 / rate, torch.inf)
