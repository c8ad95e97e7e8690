"""The three mutated gated recurrent units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cell_registry import arrays, assert_same

from carousel.cells import MUT1, MUT2, MUT3, Cell
from carousel.errors import ConfigError
from carousel.nn import Recurrent, unroll


def sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


def by_hand(cell: Cell, x: Any, h: Any) -> Any:
    """One step for one sequence, as the paper has it, P being the identity or a matrix."""
    w, H = arrays(cell), cell.hidden_size
    P = w.get("input_map.weight", np.eye(H))
    W, U, b = (w[f"packed.{name}"] for name in ("weight_input", "weight_hidden", "bias"))
    if isinstance(cell, MUT1):
        z = sigmoid(w["update.weight"] @ x + w["update.bias"])
        r = sigmoid(W @ x + U @ h + b)
        a = np.tanh(w["candidate.weight"] @ (r * h) + np.tanh(P @ x) + w["candidate.bias"])
    elif isinstance(cell, MUT2):
        z = sigmoid(W[:H] @ x + U[:H] @ h + b[:H])
        r = sigmoid(P @ x + w["reset.weight"] @ h + w["reset.bias"])
        a = np.tanh(U[H:] @ (r * h) + W[H:] @ x + b[H:])
    else:
        r = sigmoid(W[:H] @ x + U[:H] @ h + b[:H])
        z = sigmoid(W[H : 2 * H] @ x + U[H : 2 * H] @ np.tanh(h) + b[H : 2 * H])
        a = np.tanh(U[2 * H :] @ (r * h) + W[2 * H :] @ x + b[2 * H :])
    return a * z + h * (1 - z)


@pytest.mark.parametrize(
    ("make", "I", "options"),
    [
        (MUT1, 3, {}),
        (MUT1, 4, {"input_map": "paper"}),
        (MUT2, 3, {}),
        (MUT2, 4, {"input_map": "paper"}),
        (MUT3, 3, {}),
    ],
)
def test_step_is_the_equations(make: type[Any], I: int, options: dict[str, Any]) -> None:  # noqa: E741
    cell, random = make(I, 4, **options).double(), np.random.default_rng(0)
    x, h = random.normal(size=I), random.normal(size=4)
    got = cell.step(torch.tensor(x[None]), cell.State(torch.tensor(h[None]))).h
    assert_same([got], [torch.tensor(by_hand(cell, x, h)[None])])
    assert ("input_map.weight" in cell.state_dict()) == (not options and make is not MUT3)


@pytest.mark.parametrize("make", [MUT1, MUT2])
def test_the_papers_input_is_compiled_too(make: type[Any]) -> None:
    torch.manual_seed(0)
    cell, inputs = make(4, 4, input_map="paper"), torch.randn(5, 2, 4, requires_grad=True)
    results = []
    for engine in ("compiled", "eager"):
        outputs, _ = unroll(cell, inputs, engine=engine)  # type: ignore[arg-type]
        results.append([outputs, *torch.autograd.grad(outputs.square().sum(), [inputs, *cell.parameters()])])
    assert_same(*results, tolerance=1e-5)


@pytest.mark.parametrize("make", [MUT1, MUT2])
def test_an_input_map_that_cannot_be_is_refused(make: type[Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Recurrent(make, 3, 4, layers=2, input_map="paper")
    assert str(caught.value) == (
        'input_map: "paper" adds x to h, which are not of one size (got 3, 4); input_size = hidden_size; '
        '"linear" fits every size'
    )
    with pytest.raises(ConfigError) as caught:
        make(3, 4, input_map="papre")
    assert str(caught.value) == "input_map: unknown (got 'papre'); linear, paper; linear fits every size"
