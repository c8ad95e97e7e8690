"""The LSTM with recurrent batch normalisation."""

from __future__ import annotations

import pytest
import torch
from cell_registry import assert_same

from carousel.cells import BatchNormLSTM
from carousel.errors import ConfigError
from carousel.nn import Recurrent, unroll

LENGTHS = torch.tensor([6, 3, 5, 2])


def test_each_step_is_normalised_over_the_batch() -> None:
    torch.manual_seed(0)
    cell = BatchNormLSTM(3, 4, longest=5).double()
    x, state = torch.randn(50, 3).double(), cell.State(*torch.randn(2, 50, 4).double(), torch.zeros(50, 1).double())
    W, U, _ = cell.packed.rows(0, 4)

    def normal(a: torch.Tensor) -> torch.Tensor:
        return cell.norm_x.scale[0] * (a - a.mean(0)) / (a.var(0, correction=0) + 1e-5).sqrt()

    i, f, g, o = (normal(x @ W.t()) + normal(state.h @ U.t()) + cell.bias).split(4, dim=1)
    c = f.sigmoid() * state.c + i.sigmoid() * g.tanh()
    assert_same([*cell.step(x, state)[:2]], [o.sigmoid() * normal(c).tanh(), c])
    assert (f.mean(0) - 1).abs().max() < 1e-6


def test_evaluation_takes_the_statistics_of_each_step() -> None:
    torch.manual_seed(0)
    cell = BatchNormLSTM(3, 4, longest=3)
    inputs = torch.randn(4, 50, 3) * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None]
    for _ in range(120):
        trained, _ = unroll(cell, inputs, engine="eager")
    for t in range(3):
        W, _, _ = cell.packed.rows(0, 4)
        assert_same([cell.norm_x.variance[t]], [(inputs[t] @ W.t()).var(0, correction=0)], 0.02 * (t + 1) ** 2)
    outputs, _ = unroll(cell.eval(), inputs, engine="eager")
    assert_same([outputs[:3]], [trained[:3]], 0.01)  # later ones have those of the last
    alone, _ = unroll(cell, inputs[:, :1], engine="eager")
    assert_same([alone], [outputs[:, :1]], 1e-5)  # no sequence looks at another


def test_ragged_batches_and_steps() -> None:
    torch.manual_seed(0)
    network = Recurrent(BatchNormLSTM, 3, 4, layers=2, longest=4, engine="eager")
    inputs = torch.randn(6, 4, 3).masked_fill(torch.arange(6)[:, None, None] >= LENGTHS[:, None], torch.nan)
    network(inputs, lengths=LENGTHS)[0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    outputs, state = network.eval()(inputs, lengths=LENGTHS)
    assert state[0].t[:, 0].tolist() == LENGTHS.tolist()
    for b, length in enumerate(LENGTHS.tolist()):
        before = None
        for x, wanted in zip(inputs[:length, b : b + 1], outputs[:, b : b + 1], strict=False):
            output, before = network.step(x, before)
            assert_same([output], [wanted], 1e-6)


def test_no_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^longest: not a number of steps \(got 0\); 1 or more"):
        BatchNormLSTM(3, 4, longest=0)
