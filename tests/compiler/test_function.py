"""The compiled loop as a function that PyTorch differentiates: again, later, elsewhere, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from differential import OURS
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from user_cells import USER_CELLS

from carousel.cells import GRU, LSTM, Cell
from carousel.nn import unroll

CELLS = {**OURS, **USER_CELLS}


def second_order(cell: Cell, inputs: Tensor, state: Any, engine: Any) -> list[Tensor]:
    """The gradients of the squared norm of the gradients."""
    of = [inputs, *cell.parameters()]
    outputs, end = unroll(cell, inputs, state(inputs) if state else None, engine=engine)
    loss = outputs.square().sum() + end[-1].sin().sum()
    first = torch.autograd.grad(loss, of, create_graph=True, allow_unused=True)
    norm: Any = sum(g.square().sum() for g in first if g is not None)
    found = torch.autograd.grad(norm, of, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(of, found, strict=True)]


@pytest.mark.parametrize("name", ["LSTM", "Shared", "NormedTogether", "Scalars", "PerSequence"])
@pytest.mark.parametrize("given", [False, True], ids=["", "one tensor as both fields"])
def test_second_gradients_are_those_of_the_plain_loop(name: str, given: bool) -> None:
    if given and name != "LSTM":
        pytest.skip("one cell with two fields is enough")
    torch.manual_seed(0)
    cell, inputs = CELLS[name](3, 4), torch.randn(3, 2, 3)
    state = (lambda x: cell.State(*[x[0, :, :1] * x.new_ones(4)] * 2)) if given else None
    got = second_order(cell, inputs.requires_grad_(), state, "compiled")
    exact = second_order(cell.double(), inputs.detach().double().requires_grad_(), state, "eager")
    for a, b in zip(got, exact, strict=True):
        assert float((a - b).abs().max()) <= 1e-5 * max(1.0, float(b.abs().max()))


def test_gradcheck_of_the_eager_loop() -> None:
    cell = GRU(2, 3).double()
    inputs = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([3, 2])

    def outputs(inputs: Tensor, *weights: Tensor) -> Tensor:
        return unroll(cell, inputs, lengths=lengths)[0]

    assert torch.autograd.gradcheck(outputs, (inputs, *cell.parameters()))
    assert torch.autograd.gradgradcheck(outputs, (inputs, *cell.parameters()))


def test_a_graph_that_is_kept_gives_the_same_again() -> None:
    cell, inputs = LSTM(3, 21), torch.randn(4, 5, 3, requires_grad=True)
    outputs, _ = unroll(cell, inputs, engine="compiled")
    of = [inputs, *cell.parameters()]
    first, again = (torch.autograd.grad(outputs.sum(), of, retain_graph=True) for _ in range(2))
    assert all(map(torch.equal, first, again))
    torch.autograd.grad(outputs.sum(), of)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(outputs.sum(), of)


def test_without_gradients_the_outputs_are_the_same() -> None:
    cell, inputs = LSTM(3, 21), torch.randn(4, 5, 3)
    lengths = torch.tensor([4, 1, 3, 2, 4])
    wanted, end = unroll(cell, inputs, lengths=lengths, engine="compiled")
    assert wanted.requires_grad
    for mode in (torch.no_grad(), torch.inference_mode(), torch.set_grad_enabled(False)):
        with mode:
            outputs, state = unroll(cell, inputs, lengths=lengths, engine="compiled")
        assert not outputs.requires_grad
        assert torch.equal(outputs, wanted) and torch.equal(state.h, end.h) and torch.equal(state.c, end.c)


def test_a_weight_changed_before_the_backward_pass_is_noticed() -> None:
    cell, inputs = LSTM(3, 4), torch.randn(4, 5, 3, requires_grad=True)
    outputs, _ = unroll(cell, inputs, engine="compiled")
    with torch.no_grad():
        cell.packed.weight_hidden.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()


def test_weights_are_read_as_they_are_at_each_call() -> None:
    cell, inputs = LSTM(3, 4), torch.randn(4, 5, 3)
    optimizer = torch.optim.SGD(cell.parameters(), lr=0.5)
    for _ in range(3):
        outputs, _ = unroll(cell, inputs, engine="compiled")
        torch.testing.assert_close(outputs, unroll(cell, inputs, engine="eager")[0], rtol=0, atol=1e-6)
        optimizer.zero_grad()
        outputs.square().sum().backward()
        optimizer.step()


def test_several_threads_at_once() -> None:
    cell = GRU(3, 21)
    batches = [torch.randn(4, 5, 3, requires_grad=True) for _ in range(8)]

    def work(inputs: Tensor) -> list[Tensor]:
        outputs, _ = unroll(cell, inputs, engine="compiled")
        return [outputs, *torch.autograd.grad(outputs.square().sum(), [inputs, *cell.parameters()])]

    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(work, batches * 5))
    for results, inputs in zip(got, batches * 5, strict=True):
        assert all(map(torch.equal, results, work(inputs)))


def test_under_checkpointing() -> None:
    cell, inputs = LSTM(3, 21), torch.randn(4, 5, 3, requires_grad=True)

    def outputs(inputs: Tensor) -> Tensor:
        return unroll(cell, inputs, engine="compiled")[0]

    of = [inputs, *cell.parameters()]
    plain = torch.autograd.grad(outputs(inputs).square().sum(), of)
    saved = torch.autograd.grad(checkpoint(outputs, inputs, use_reentrant=False).square().sum(), of)  # type: ignore[union-attr]
    assert all(map(torch.equal, plain, saved))


FORK = """
import os, torch
from carousel.cells import GRU
from carousel.nn import unroll
torch.set_num_threads(THREADS)
torch.manual_seed(0)
cell, inputs = GRU(3, 21), torch.randn(5, 16, 3)
lengths = torch.tensor([5, 4, 3, 2, 1, 1, 1, 1] * 2)
def run():
    with torch.no_grad():
        return unroll(cell, inputs, lengths=lengths, engine="compiled")[0]
before = run()
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(run(), before) else 7)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert torch.equal(run(), before)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("threads", [1, 2])
def test_after_a_fork(threads: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK.replace("THREADS", str(threads))], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
