"""Long short-term memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from cell_registry import assert_same
from transcription import Array, assert_transcribed

from carousel.cells import LSTM, LSTM1997, ProjectedLSTM
from carousel.errors import ConfigError
from carousel.nn import unroll


def test_step_is_the_equations() -> None:
    cell = LSTM(3, 4)
    x, h, c = torch.randn(2, 3), torch.randn(2, 4), torch.randn(2, 4)
    W, U, b = cell.packed.weight_input, cell.packed.weight_hidden, cell.packed.bias
    assert b is not None

    def affine(k: int) -> torch.Tensor:
        rows = slice(4 * k, 4 * k + 4)
        return x @ W[rows].t() + h @ U[rows].t() + b[rows]

    i, f, g, o = affine(0).sigmoid(), affine(1).sigmoid(), affine(2).tanh(), affine(3).sigmoid()
    new_c = f * c + i * g
    assert_same(list(cell.step(x, cell.State(h, c))), [o * new_c.tanh(), new_c], tolerance=1e-6)


@pytest.mark.parametrize("value", [1.0, -2.5, 0.0])
def test_the_forget_bias_is_where_it_should_be(value: float) -> None:
    b = LSTM(3, 4, forget_bias=value).packed.bias
    assert b is not None
    i, f, g, o = b.detach().chunk(4)
    assert torch.equal(f, torch.full((4,), value))
    assert not any((other == value).any() for other in (i, g, o))
    assert (LSTM(3, 4).forget.b == 1).all()  # type: ignore[union-attr]


def test_a_large_forget_bias_carries_the_cell_through_time() -> None:
    def kept(forget_bias: float) -> float:
        torch.manual_seed(0)
        cell = LSTM(3, 4, forget_bias=forget_bias)
        torch.nn.init.constant_(cell.input.b, -100)  # type: ignore[arg-type]  # nothing comes in
        start = cell.State(torch.zeros(1, 4), torch.full((1, 4), 5.0))
        return float(unroll(cell, torch.zeros(30, 1, 3), start)[1].c.detach().mean())

    assert kept(12.0) > 4.5
    assert kept(0.0) < 0.5


def test_the_projected_step_is_that_of_an_lstm_whose_output_is_projected() -> None:
    cell, x = ProjectedLSTM(3, 4, projection_size=2), torch.randn(5, 3)
    h, c = torch.randn(5, 2), torch.randn(5, 4)
    W, U, b = cell.packed.weight_input, cell.packed.weight_hidden, cell.packed.bias
    assert (U.shape, cell.projection.shape, cell.output_size) == ((16, 2), (2, 4), 2)
    i, f, g, o = (x @ W.t() + h @ U.t() + b).chunk(4, dim=1)
    new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    new_h = (o.sigmoid() * new_c.tanh()) @ cell.projection.t()
    assert_same(list(cell.step(x, cell.State(h, c))), [new_h, new_c], tolerance=1e-6)


def test_the_projected_cell_starts_as_an_lstm_does() -> None:
    cell = ProjectedLSTM(3, 100, projection_size=20, forget_bias=2.5)
    assert (cell.forget.b == 2.5).all()  # type: ignore[union-attr]
    assert 0.09 < cell.projection.abs().max() <= 0.1
    assert [field.shape for field in cell.initial_state(5)] == [(5, 20), (5, 100)]
    assert "projection_size=20" in repr(cell)


@pytest.mark.parametrize("size", [0, 4, 5])
def test_a_projection_that_is_not_narrower_is_refused(size: int) -> None:
    with pytest.raises(ConfigError) as caught:
        ProjectedLSTM(3, 4, projection_size=size)
    assert str(caught.value) == (
        f"projection_size: does not fit (got {size}); 1 to 3, below hidden_size; LSTM has no projection"
    )


def test_half_of_the_hidden_size_is_projected_to() -> None:
    assert [ProjectedLSTM(3, size).projection_size for size in (2, 3, 8)] == [1, 1, 4]
    with pytest.raises(ConfigError) as caught:
        ProjectedLSTM(3, 1)
    assert str(caught.value) == "hidden_size: too narrow to project (got 1); 2 or more; LSTM has no projection"


def test_a_projection_of_everything_is_an_lstm() -> None:
    """P = H and R = 1, which the constructor refuses for being an LSTM."""
    cell, projected = LSTM(3, 4), ProjectedLSTM(3, 4)
    projected.packed, projected.projection = cell.packed, torch.nn.Parameter(torch.eye(4))
    projected.input, projected.forget, projected.candidate, projected.output = cell.packed
    x, state = torch.randn(2, 3), cell.State(torch.randn(2, 4), torch.randn(2, 4))
    assert_same(list(projected.step(x, state)), list(cell.step(x, state)), tolerance=1e-6)


# As first published.


def test_the_step_of_1997_is_the_equations() -> None:
    def equations(w: Mapping[str, Array], x: Array, s: Mapping[str, Array]) -> Mapping[str, Array]:
        def logistic(k: str) -> Array:
            return 1 / (1 + np.exp(-(x @ w[f"W_{k}"].T + s["h"] @ w[f"U_{k}"].T + w[f"b_{k}"])))

        c = s["c"] + logistic("i") * (4 * logistic("g") - 2)
        return {"h": logistic("o") * (2 / (1 + np.exp(-c)) - 1), "c": c}

    assert_transcribed(LSTM1997(3, 4), "igo", equations)


def test_that_of_1997_is_an_lstm_that_never_forgets() -> None:
    old, new = LSTM1997(3, 4), LSTM(3, 4, forget_bias=100.0)
    with torch.no_grad():
        for name, factor in (("input", 1.0), ("candidate", 0.5), ("output", 1.0)):
            for part in ("W", "U", "b"):
                getattr(getattr(new, name), part).copy_(factor * getattr(getattr(old, name), part))
    h, c = torch.randn(2, 4), torch.randn(2, 4)
    first, second = old.State(h, 2 * c), new.State(h, c)
    for x in torch.randn(5, 2, 3):
        first, second = old.step(x, first), new.step(x, second)
        assert_same([first.h, first.c / 2], [second.h, second.c], tolerance=1e-6)


def test_the_carousel_of_1997_keeps_an_error_constant() -> None:
    cell = LSTM1997(3, 4)
    torch.nn.init.constant_(cell.input.b, -100.0)  # type: ignore[arg-type]  # nothing comes in
    start = cell.State(torch.zeros(1, 4), torch.full((1, 4), 5.0, requires_grad=True))
    _, state = unroll(cell, torch.randn(200, 1, 3), start)
    assert torch.equal(state.c, start.c)
    assert torch.equal(torch.autograd.grad(state.c.sum(), start.c)[0], torch.ones(1, 4))
