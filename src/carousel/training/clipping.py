"""Against gradients that explode: clipping, of the weights' gradients or of the states' at every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from carousel.cells import Cell, Readings
from carousel.errors import ConfigError
from carousel.nn.wrapper import Wrapper, gauged_state
from carousel.training.names import nearest

Groups: TypeAlias = Sequence[Sequence[nn.Parameter]]
Clip: TypeAlias = Callable[[Groups, Tensor, float], float]


def total_norm(groups: Groups) -> Tensor:
    """The norm of all gradients as one vector; not finite where one of them is not."""
    return nn.utils.get_total_norm([p.grad for group in groups for p in group if p.grad is not None])


def clip_norm(groups: Groups, norm: Tensor, limit: float) -> float:
    """Scale all gradients by one factor, so that the norm of all together is at most `limit`.

        g ← g · limit / ‖g‖        if ‖g‖ > limit

    Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063v2, algorithm 1. Returns 1 if it acted, 0 if not, as the others
    here return the share that they changed.

    >>> weight = nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> clip_norm([[weight]], total_norm([[weight]]), 1.0), weight.grad
    (1.0, tensor([0.6000, 0.8000]))
    """
    nn.utils.clip_grads_with_norm_([p for group in groups for p in group], limit, norm)
    return float(norm > limit)


def clip_group_norm(groups: Groups, norm: Tensor, limit: float) -> float:
    """`clip_norm`, each parameter group for itself; the share of groups that were clipped."""
    return sum(clip_norm([group], total_norm([group]), limit) for group in groups) / len(groups)


def clip_value(groups: Groups, norm: Tensor, limit: float) -> float:
    """Cut every entry of the gradients to ±`limit`, which changes their direction; the share of entries that were cut.

    Mikolov 2012, PhD thesis, Brno University of Technology, section 3.2.2.
    """
    grads = [p.grad for group in groups for p in group if p.grad is not None]
    cut = sum(int((grad.abs() > limit).sum()) for grad in grads)
    torch._foreach_clamp_min_(grads, -limit)
    torch._foreach_clamp_max_(grads, limit)
    return cut / max(1, sum(grad.numel() for grad in grads))


def clip_adaptive(groups: Groups, norm: Tensor, limit: float, smallest: float = 1e-3) -> float:
    """Scale the gradient of each unit that is large beside the unit's weights; the share of units that were clipped.

        G_i ← limit · ‖W_i‖* / ‖G_i‖ · G_i        if ‖G_i‖ / ‖W_i‖* > limit,        ‖W_i‖* = max(‖W_i‖, 10⁻³)

    Brock, De, Smith and Simonyan 2021, arXiv:2102.06171v1, eq. 3. A unit is a row of a matrix: the weights of one map
    that go into one unit. A vector is one unit.
    """
    units = clipped = 0
    for parameter in (p for group in groups for p in group if p.grad is not None):
        assert parameter.grad is not None
        grad, weight = (t.detach().flatten(1) if t.dim() > 1 else t.detach()[None] for t in (parameter.grad, parameter))
        allowed = limit * torch.linalg.vector_norm(weight, dim=1, keepdim=True).clamp(min=smallest)
        size = torch.linalg.vector_norm(grad, dim=1, keepdim=True)
        over = size > allowed
        grad.mul_(torch.where(over, allowed / size, 1.0))
        units, clipped = units + len(grad), clipped + int(over.sum())
    return clipped / max(1, units)


CLIPPINGS: Mapping[str, Clip] = {
    "norm": clip_norm,
    "group-norm": clip_group_norm,
    "value": clip_value,
    "adaptive": clip_adaptive,
}


def clipping_named(name: str) -> Clip:
    """The clipping of that name, or a `ConfigError` with the nearest."""
    return CLIPPINGS[nearest("clipping", name, CLIPPINGS)]


class ClippedSteps(Wrapper):
    """A cell whose states' gradients are clipped at every step on their way back through time.

        dL/dh_t ← dL/dh_t · limit / ‖dL/dh_t‖       if ‖dL/dh_t‖ > limit, for each sequence     (by "norm")
        dL/dh_t ← min(limit, max(−limit, dL/dh_t))                                              (by "value")

    and likewise for c_t and other fields of the state, each by itself. dL/dh_t is all that comes into h_t, from the
    step after it and from what reads the output, and what is clipped is what goes on to the step and those before it:
    unlike a clipped weight gradient, no step can drown the others.

    Graves 2013, arXiv:1308.0850v5, section 2.1, clips by value inside the backward pass.

    Args:
        cell: any cell; in a network, `Recurrent([ClippedSteps(LSTM(64, 128), 1.0)])`.
        limit: the greatest norm or value.

    Notes:
        Graves clips the derivatives of an LSTM's gates before their sigmoids; here it is the states', as in every cell.
        It is part of the compiled loop, see `carousel.cells.gauged`.

    `acted` is the share of gradients, one for each sequence, step and field where there is any, that were clipped since
    `reset_count`; `backward()` counts, but not under `torch.compile` or `torch.func`.

    >>> from carousel.cells import LSTM
    >>> from carousel.nn import Recurrent
    >>> cell = ClippedSteps(LSTM(3, 4), 0.1)
    >>> outputs, _ = Recurrent([cell])(torch.randn(5, 2, 3))
    >>> (100 * outputs[-1].sum()).backward()
    >>> cell.acted > 0.1
    True
    """

    def __init__(self, cell: Cell, limit: float, by: Literal["norm", "value"] = "norm") -> None:
        super().__init__(cell)
        if limit <= 0 or by not in ("norm", "value"):
            raise ConfigError(f"limit: cannot clip to it (got {limit} by {by!r}); above 0, by norm or value; see help")
        self.limit, self.by = float(limit), by
        self.readings = Readings(self._count_later)
        self.reset_count()

    def reset_count(self) -> None:
        """Begin to count anew how often clipping acted."""
        self._seen = self._clipped = 0

    @property
    def acted(self) -> float:
        return self._clipped / max(1, self._seen)

    def step(self, x: Tensor, state: Any) -> Any:
        return gauged_state(self.cell, x, state, self.readings, self.limit, self.by)

    def _count_later(self, reading: Tensor) -> None:
        reading.register_hook(self._count)  # type: ignore[no-untyped-call]

    def _count(self, sizes: Tensor) -> None:
        self._seen += int((sizes > 0).sum())
        self._clipped += int((sizes > self.limit).sum())

    def extra_repr(self) -> str:
        return f"limit={self.limit}, by={self.by!r}"
