"""Pascanu's regulariser, against its formula step by step and against finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cell_registry import CASES, Case
from torch import Tensor
from torch.autograd.functional import jacobian

from carousel.cells import GRU, LSTM, Elman
from carousel.errors import ConfigError
from carousel.nn import Recurrent
from carousel.training.vanishing import Watched, omega

I, H, B, T = 3, 4, 2, 6  # noqa: E741


def run(cell: Any, loss: Any = lambda outputs: outputs[-1].square().sum(), lengths: Tensor | None = None) -> Recurrent:
    network = Recurrent([Watched(cell)]).double()
    draw = torch.Generator().manual_seed(1)
    outputs, _ = network(torch.randn(T, B, I, generator=draw, dtype=torch.float64), lengths=lengths)
    loss(outputs).backward()
    return network


def steps_of(network: Recurrent) -> list[tuple[Tensor, list[Tensor], list[Tensor]]]:
    return [
        (x, before, [torch.zeros_like(f) if f.grad is None else f.grad for f in after])
        for x, before, after in network.cells[0]._steps
    ]


def by_hand(cell: Any, steps: Any, squared: bool = False) -> Tensor:
    """Eq. 9, with the whole Jacobian of each step of each sequence."""
    total: Any = 0.0
    for x, before, deltas in steps:
        for b in range(len(x)):

            def step(*state: Tensor, x: Tensor = x, b: int = b) -> tuple[Tensor, ...]:
                return tuple(cell.step(x[b : b + 1], cell.State(*state)))

            found = jacobian(step, tuple(f[b : b + 1] for f in before), create_graph=True)
            sent = [
                sum(d[b].flatten() @ row[k].reshape(d[b].numel(), -1) for d, row in zip(deltas, found, strict=True))
                for k in range(len(before))
            ]
            size = torch.cat([d[b].flatten() for d in deltas]).square().sum()
            if size > 0:
                ratio = torch.cat(sent).square().sum() / size
                total = total + ((ratio if squared else ratio.sqrt()) - 1) ** 2
    return total / len(steps[0][0])


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("kind", [Elman, GRU, LSTM])
def test_it_is_the_formula_with_whole_jacobians(kind: Any, squared: bool) -> None:
    torch.manual_seed(0)
    network = run(kind(I, H), lambda outputs: outputs[2:].square().sum(), torch.tensor([T, 4]))
    inner, steps = network.cells[0].cell, steps_of(network)
    network.zero_grad()
    expected = by_hand(inner, steps, squared)
    expected.backward()
    wanted = [p.grad.clone() for p in inner.parameters()]
    network.zero_grad()
    found = omega(network, squared=squared)
    found.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close([p.grad for p in inner.parameters()], wanted)


def test_of_a_plain_rnn_it_is_what_the_paper_writes() -> None:
    torch.manual_seed(0)
    network = run(Elman(I, H))
    steps, after = steps_of(network), [step.after[0].detach() for step in network.cells[0]._steps]
    U, expected = network.cells[0].cell.candidate.U.detach(), 0.0
    for (_, _, (delta,)), h in zip(steps, after, strict=True):
        sent = (delta * (1 - h.square())) @ U
        expected += (sent.norm(dim=1) / delta.norm(dim=1) - 1).square().sum().item()
    assert omega(network).item() == pytest.approx(expected / B)
    network = run(network.cells[0].cell)
    assert omega(network, per_step=True).item() == pytest.approx(expected / (B * T))


def test_states_and_gradients_are_constants_in_it() -> None:
    """The immediate derivative: finite differences of the weights with everything else as it was."""
    torch.manual_seed(0)
    network = run(LSTM(I, H))
    cell, steps = network.cells[0].cell, steps_of(network)
    network.zero_grad()
    omega(network).backward()
    weight = cell.packed.weight_hidden
    for place in [(0, 0), (7, 2), (15, 3)]:
        values = []
        for change in (1e-5, -1e-5):
            with torch.no_grad():
                weight[place] += change
            values.append(by_hand(cell, steps).item())
            with torch.no_grad():
                weight[place] -= change
        assert weight.grad[place].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_any_cell_has_one(case: Case) -> None:
    torch.manual_seed(0)
    cell = case.cell()
    network = Recurrent([Watched(cell)])
    outputs, _ = network(torch.randn(T, 4, cell.input_size, dtype=torch.float64))
    outputs[-1].square().sum().backward()
    penalty = omega(network)
    penalty.backward()
    assert penalty.isfinite() and penalty > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_minimising_it_keeps_the_gradient() -> None:
    """A network that forgets at once learns to carry the gradient of its last step back to the first."""
    torch.manual_seed(0)
    network = Recurrent([Watched(Elman(I, 8))])
    with torch.no_grad():
        network.cells[0].cell.packed.weight_hidden.mul_(0.1)
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    reach = []
    for _ in range(150):
        inputs = torch.randn(20, 8, I)
        outputs, _ = network(inputs)
        outputs[-1].sum().backward()
        steps = network.cells[0]._steps
        reach.append((steps[0].after[0].grad.norm() / steps[-1].after[0].grad.norm()).item())
        optimiser.zero_grad()
        omega(network).backward()
        optimiser.step()
    assert reach[0] < 1e-6 and reach[-1] > 0.01


def test_it_is_read_once_and_of_watched_cells() -> None:
    network = run(GRU(I, H))
    omega(network)
    with pytest.raises(ConfigError, match=r"omega: no steps to look at \(got 1 Watched cells\)"):
        omega(network)
    with torch.no_grad():
        network(torch.zeros(T, B, I, dtype=torch.float64))
    assert not network.cells[0]._steps
