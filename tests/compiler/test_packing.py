"""Packing by compiled loops is packing by PyTorch, whatever the widths and the order in memory; so is the way back."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from carousel.compiler import packing
from carousel.nn.unroll import Layout


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
    packing._function.cache_clear()
    monkeypatch.setattr(packing.objects, "text", lambda key, make: make())
    with pytest.raises(AssertionError):
        test_a_packed_batch_is_its_rows_in_order(0)
    packing._function.cache_clear()


packing_move = packing._move
