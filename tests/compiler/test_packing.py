"""Packing by compiled loops is packing by PyTorch, whatever the widths and the order in memory; so is the way back."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from carousel.cells import CELLS, Cell
from carousel.compiler import Engine, engine, packing, products
from carousel.nn import unroll
from carousel.nn.unroll import Layout, run_padded


def ragged(seed: int) -> tuple[Tensor, Layout]:
    """A batch of any shape, at any strides, with NaN for padding."""
    torch.manual_seed(seed)
    one = random.Random(seed)
    T, B, width = one.randint(2, 20), one.randint(2, 9), one.randint(1, 70)
    lengths = torch.randint(1, T + 1, (B,))
    lengths[one.randrange(B)] = one.randint(1, T - 1)
    padded = torch.randn(B, T, width).transpose(0, 1) if one.random() < 0.5 else torch.randn(T, B, width + 3)[..., 2:-1]
    padded.masked_fill_((torch.arange(T)[:, None] >= lengths)[..., None], torch.nan)
    return padded, Layout.of(padded, lengths)


@pytest.mark.parametrize("seed", range(40))
def test_a_packed_batch_is_its_rows_in_order(seed: int) -> None:
    padded, layout = ragged(seed)
    wanted = padded.flatten(0, 1).index_select(0, layout.rows)
    assert layout.places is not None
    got = packing.pack(padded, layout.places, layout.sizes, torch.full_like(wanted, torch.inf))
    assert torch.equal(got, wanted)
    back = packing.unpack(got, layout.places, layout.sizes, torch.full(padded.shape, torch.inf))
    assert torch.equal(back, padded.nan_to_num(0.0))


def test_there_and_back_is_differentiated_twice() -> None:
    padded = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    layout = Layout.of(padded, torch.tensor([2, 5, 3]))

    def squares(padded: Tensor) -> Tensor:
        return layout.unpack(layout.pack(padded) ** 2)

    assert torch.autograd.gradcheck(squares, padded)
    assert torch.autograd.gradgradcheck(squares, padded)
    single = padded.detach().float().requires_grad_()
    (wanted,) = torch.autograd.grad(squares(padded).sum(), padded)
    (got,) = torch.autograd.grad(squares(single).sum(), single)
    torch.testing.assert_close(got.double(), wanted, atol=1e-6, rtol=1e-6)


def test_padding_that_is_not_written_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        packing, "_move", lambda w, width, source, into: source and packing_move(w, width, source, into)
    )
    packing.function.cache_clear()
    monkeypatch.setattr(packing.objects, "text", lambda key, make: make())
    with pytest.raises(AssertionError):
        test_a_packed_batch_is_its_rows_in_order(0)
    packing.function.cache_clear()


packing_move = packing._move


def everything(cell: Cell, inputs: Tensor, lengths: Tensor, engine: Engine) -> list[Tensor]:
    """Outputs, the final state, gradients, and gradients of their squares."""
    given = inputs.detach().requires_grad_()
    outputs, state = unroll(cell, given, None, lengths, engine=engine)
    total = (outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum() + state[0].sum()
    weights = list(cell.parameters())
    first = torch.autograd.grad(total, [given, *weights], create_graph=True)
    second = torch.autograd.grad(sum((one**2).sum() for one in first), [given, *weights])
    with torch.no_grad():
        inferred, _ = unroll(cell, inputs, None, lengths, engine=engine)
    return [outputs, *state, *first, *second, inferred]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["lstm", "gru", "mut1", "elman", "indrnn"])
def test_a_loop_packs_piece_by_piece(monkeypatch: pytest.MonkeyPatch, kind: str, threads: int) -> None:
    loop_packs_piece_by_piece(monkeypatch, kind, threads)


def loop_packs_piece_by_piece(patch: pytest.MonkeyPatch, kind: str, threads: int) -> None:
    patch.setattr(products, "PIECE", 0)
    patch.setattr(products, "FEWEST", 7)
    patch.setattr(engine.threads, "count", lambda batch, beside: threads)
    patch.setattr(engine.threads, "FEWEST", 1)
    torch.manual_seed(1)
    cell, lengths = CELLS[kind](3, 5), torch.tensor([2, 8, 5, 8, 1])
    inputs = torch.randn(11, 5, 3).masked_fill(torch.arange(11)[:, None, None] >= lengths[:, None], torch.nan)
    found = everything(cell, inputs, lengths, "compiled")
    exact = everything(cell.double(), inputs.double(), lengths, "eager")
    for got, want in zip(found, exact, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)


def test_either_end_of_a_loop_may_be_padded() -> None:
    """One after the other, so that no script is taken for another's."""
    torch.manual_seed(2)
    cell, inputs = CELLS["gru"](3, 5), torch.randn(6, 4, 3)
    layout, start = Layout.of(inputs, torch.tensor([4, 1, 6, 6])), cell.initial_state(4)
    found = []
    for reads in (False, True):
        for gives in (False, True):
            given = (inputs.clone() if reads else layout.pack(inputs)).requires_grad_()
            outputs, _ = run_padded(cell, given, layout, start, reads=reads, gives=gives)
            (gradient,) = torch.autograd.grad((outputs**2).sum(), given)
            found.append((layout.pack(outputs) if gives else outputs, layout.pack(gradient) if reads else gradient))
    for outputs, gradient in found[1:]:
        assert torch.equal(outputs, found[0][0])
        torch.testing.assert_close(gradient, found[0][1])


def test_one_script_serves_padded_batches_of_any_shape() -> None:
    torch.manual_seed(3)
    cell = CELLS["gru"](3, 5)
    for T, lengths in ((6, [4, 1, 6]), (9, [9, 2, 3, 8, 1]), (5, [2, 3])):
        inputs = torch.randn(T, len(lengths), 3, requires_grad=True)
        found = []
        for way in ("compiled", "eager"):
            outputs, _ = unroll(cell, inputs, lengths=torch.tensor(lengths), engine=way)  # type: ignore[arg-type]
            found.append((outputs, *torch.autograd.grad((outputs**2).sum(), [inputs, *cell.parameters()])))
        for got, want in zip(*found, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
