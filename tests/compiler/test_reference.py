"""The graph evaluated by PyTorch is the plain loop, to the last bits of float64."""

from __future__ import annotations

import pytest
import torch
from user_cells import USER_CELLS

from carousel.compiler import reference
from carousel.compiler.trace import trace


@pytest.mark.parametrize("name", USER_CELLS)
def test_the_graph_of_a_step_is_the_step(name: str) -> None:
    torch.manual_seed(0)
    cell = USER_CELLS[name](3, 4).double().eval()
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    state = cell.State(*(torch.randn_like(field).requires_grad_() for field in cell.initial_state(6)))
    recurrence = trace(cell)
    got, _ = reference.run(recurrence, recurrence.operands(cell, x), state, (6,))
    wanted = cell.step(x, state)[0]
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    of = [x, *state, *cell.parameters()]
    pairs = [torch.autograd.grad(result.sin().sum(), of, allow_unused=True) for result in (got, wanted)]
    for one, other in zip(*pairs, strict=True):
        assert (one is None or not one.any()) if other is None else torch.allclose(one, other, atol=1e-12)  # type: ignore[arg-type]
