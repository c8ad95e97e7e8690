"""Products of bfloat16 numbers are those of rounded float32, and nothing else is rounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from test_planted_bugs import Bug, plant
from torch import Tensor

from carousel.cells import CELLS, Cell
from carousel.compiler import bfloat16, kernel, matrix, objects
from carousel.nn import Recurrent, unroll

pytestmark = pytest.mark.skipif(not objects.processor().has_bfloat16, reason="the processor has no bfloat16")

BACKEND: Any = torch.backends.mkldnn


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    BACKEND.rnn.fp32_precision = "none"


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().double()


@pytest.mark.parametrize("across", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize(("M", "K", "N"), [(1, 1, 1), (7, 5, 3), (9, 64, 33), (40, 513, 70), (6, 256, 200)])
def test_a_product_is_that_of_rounded_numbers(M: int, K: int, N: int, across: bool) -> None:
    narrow_product(M, K, N, across=across)


def narrow_product(M: int, K: int, N: int, *, across: bool) -> None:
    torch.manual_seed(0)
    a, b, bias = torch.randn(K, M).t() if across else torch.randn(M, K), torch.randn(K, N), torch.randn(N)
    got = matrix.product(a, b, torch.full((M, N), torch.nan), bias, narrow=True)
    torch.testing.assert_close(got.double(), rounded(a) @ rounded(b) + bias.double(), rtol=1e-5, atol=1e-4)
    twice = matrix.product(a, b, got.clone(), bias, add=True, narrow=True)
    torch.testing.assert_close(twice, 2 * got - bias, rtol=1e-5, atol=1e-4)


def wide_loop() -> None:
    loop_is_near("elman", 300, None)


BUGS = [
    Bug("the two of a pair change places", bfloat16._store_pairs, "(0, 1)", "(1, 0)",
        lambda: narrow_product(7, 5, 3, across=False)),
    Bug("the second of a pair is the first", bfloat16._both, "LONG(1)), w", "LONG(0)), w",
        lambda: narrow_product(7, 5, 3, across=True)),
    Bug("each part of a long sum begins anew", bfloat16.write_narrow_product,
        'b.or_(more, b.icmp_signed(">", chunk, LONG(0)))', "more", wide_loop),
]  # fmt: skip


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_noticed(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix.function.cache_clear()
    bug.check()
    plant(bug, monkeypatch)
    for module in (bfloat16, kernel, matrix):
        if hasattr(module, bug.function.__name__):
            monkeypatch.setattr(module, bug.function.__name__, getattr(bfloat16, bug.function.__name__))
    matrix.function.cache_clear()
    with pytest.raises(AssertionError):
        bug.check()
    matrix.function.cache_clear()


def everything(cell: Cell, inputs: Tensor, lengths: Tensor | None) -> list[Tensor]:
    given = inputs.detach().requires_grad_()
    outputs, state = unroll(cell, given, lengths=lengths, engine="compiled")
    total = (outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum()
    gradients = torch.autograd.grad(total, [given, *cell.parameters()])
    with torch.no_grad():
        torch.testing.assert_close(unroll(cell, inputs, lengths=lengths, engine="compiled")[0], outputs)
    return [outputs, *state, *gradients]


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("kind", ["lstm", "gru", "elman", "lstm-projected", "mut1", "indrnn"])
def test_a_loop_is_near_and_not_the_same(kind: str, ragged: bool) -> None:
    loop_is_near(kind, 34, torch.tensor([9, 2, 7, 7, 1]) if ragged else None)


def loop_is_near(kind: str, hidden_size: int, lengths: Tensor | None) -> None:
    torch.manual_seed(1)
    cell, inputs = CELLS[kind](19, hidden_size), torch.randn(9, 5, 19)
    BACKEND.rnn.fp32_precision = "none"
    exact = everything(cell, inputs, lengths)
    BACKEND.rnn.fp32_precision = "bf16"
    narrow = everything(cell, inputs, lengths)
    for got, want in zip(narrow, exact, strict=True):
        assert (got - want).norm() < 0.02 * want.norm()
    assert not torch.equal(narrow[0], exact[0])


def test_states_and_sums_are_float32() -> None:
    """Outputs are those of a loop of which the factors of products are rounded, and nothing else is."""
    torch.manual_seed(4)
    cell, inputs = CELLS["elman"](19, 34), torch.randn(9, 5, 19)
    BACKEND.rnn.fp32_precision = "bf16"
    with torch.no_grad():
        got, _ = unroll(cell, inputs, engine="compiled")
        h = torch.zeros(5, 34, dtype=torch.float64)
        W, U, b = (parameter.detach() for parameter in cell.parameters())
        for x, output in zip(inputs, got, strict=True):
            h = torch.tanh(rounded(x) @ rounded(W).t() + rounded(h.float()) @ rounded(U).t() + b.double())
            torch.testing.assert_close(output.double(), h, rtol=0, atol=2e-6)
            h = output.double()


def test_it_is_asked_for_as_of_pytorch() -> None:
    torch.manual_seed(2)
    network, inputs = Recurrent("gru", 8, 16), torch.randn(5, 3, 8)
    exact = network(inputs)[0]
    torch.set_float32_matmul_precision("medium")
    narrow = network(inputs)[0]
    assert not torch.equal(narrow, exact)
    BACKEND.rnn.fp32_precision = "ieee"  # what is said of recurrent layers counts
    assert torch.equal(network(inputs)[0], exact)
    torch.set_float32_matmul_precision("highest")
    BACKEND.rnn.fp32_precision = "bf16"
    assert torch.equal(network(inputs)[0], narrow)


@pytest.mark.parametrize("batch", [1, 5, 6, 13])
def test_the_same_bits_in_any_batch(batch: int) -> None:
    torch.manual_seed(3)
    BACKEND.rnn.fp32_precision = "bf16"
    network, inputs = Recurrent("lstm", 30, 40), torch.randn(6, 13, 30)
    whole, some = network(inputs)[0], network(inputs[:, :batch])[0]
    torch.testing.assert_close(some, whole[:, :batch], rtol=0, atol=1e-6)
