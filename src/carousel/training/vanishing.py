"""Against gradients that vanish: a penalty on what each step loses of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from carousel.cells import Cell
from carousel.errors import ConfigError
from carousel.training.each_step import EachStep


class _Step(NamedTuple):
    x: Tensor
    before: list[Tensor]
    after: list[Tensor]  # in the graph, with their gradients once it went backward


class Watched(EachStep):
    """A cell that keeps its steps for `omega`, until that has read them."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self._steps: list[_Step] = []

    def after(self, x: Tensor, before: Any, state: Any) -> Any:
        if torch.is_grad_enabled() and any(field.requires_grad for field in state):
            for field in state:
                if field.requires_grad:
                    field.retain_grad()
            self._steps.append(_Step(x.detach(), [field.detach() for field in before], list(state)))
        return state


def omega(network: nn.Module, *, squared: bool = False, per_step: bool = False, bound: float = 1e-20) -> Tensor:
    """Pascanu's regulariser: how far each step is from keeping the norm of the gradient that goes back through it.

        Ω = Σ_k Ω_k = Σ_k (‖∂E/∂s_{k+1} · ∂s_{k+1}/∂s_k‖ / ‖∂E/∂s_{k+1}‖ − 1)²

    the mean over sequences, for every `Watched` cell in the network; s is the whole state, h and c of an LSTM. To be
    called after the backward pass of E, and to be differentiated: s_k and ∂E/∂s_{k+1} count as constants in it, so that
    what it gives the weights is the immediate derivative ∂⁺Ω/∂W, exact for any cell.

        network = Recurrent([Watched(Elman(I, H))])
        loss.backward()
        (alpha * omega(network)).backward()
        optimiser.step()

    Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063v2, eq. 9 and 10.

    Args:
        squared: the ratio of squared norms, as in eq. 10 and in the authors' program, rather than that of eq. 9.
        per_step: divide the sum by the number of steps that count, as the authors' program does.
        bound: sequences count in a step where ‖∂E/∂s_{k+1}‖² is at least this, so where there is a gradient to keep.

    Notes:
        The paper's state is x_{k+1} = W σ(x_k) + ..., before the activation, so that ∂⁺Ω/∂W holds σ' fixed; ours is the
        cell's, and whatever of ∂s_{k+1}/∂s_k depends on a weight counts, σ' and gates included.
        A step that draws random numbers (zoneout) draws others here.

    >>> from carousel.cells import LSTM
    >>> from carousel.nn import Recurrent
    >>> network = Recurrent([Watched(LSTM(3, 4))])
    >>> outputs, _ = network(torch.randn(20, 2, 3))
    >>> outputs[-1].square().sum().backward()
    >>> penalty = omega(network)
    >>> bool(penalty > 0), penalty.requires_grad
    (True, True)
    """
    cells = [module for module in network.modules() if isinstance(module, Watched)]
    if not any(cell._steps for cell in cells):
        raise ConfigError(
            f"omega: no steps to look at (got {len(cells)} Watched cells); a network of Watched cells that ran; call "
            "it after the loss's backward()"
        )
    with torch.enable_grad():
        return torch.stack([_omega(cell, squared, per_step, bound) for cell in cells if cell._steps]).sum()


def _omega(watched: Watched, squared: bool, per_step: bool, bound: float) -> Tensor:
    """All steps at once, as one batch: they are constants to one another."""
    steps, watched._steps = watched._steps, []
    carried = [k for k, field in enumerate(steps[-1].after) if field.requires_grad]
    before = [torch.cat([step.before[k] for step in steps]) for k in range(len(steps[0].before))]
    for k in carried:
        before[k].requires_grad_()
    after = watched.cell.step(torch.cat([step.x for step in steps]), watched.State(*before))
    received = [torch.cat([_gradient(step.after[k]) for step in steps]) for k in carried]
    sent = torch.autograd.grad(
        [after[k] for k in carried], [before[k] for k in carried], received, create_graph=True, materialize_grads=True
    )
    size, kept = (torch.linalg.vector_norm(torch.cat([f.flatten(1) for f in fs], 1), dim=1) for fs in (received, sent))
    alive = size.square() >= bound
    ratio = kept[alive] / size[alive]
    penalty: Tensor = ((ratio.square() if squared else ratio) - 1).square().sum()
    return penalty / max(1, int(alive.sum())) if per_step else penalty / len(steps[0].x)


def _gradient(field: Tensor) -> Tensor:
    return torch.zeros_like(field) if field.grad is None else field.grad
