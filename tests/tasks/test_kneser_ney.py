"""Smoothed n-grams: probabilities that sum to one, and a case worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from carousel.tasks.kneser_ney import KneserNey


@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_sum_to_one(order: int) -> None:
    draw = torch.Generator().manual_seed(0)
    text = (torch.randint(0, 6, (400,), generator=draw) * torch.rand(400, generator=draw)).long()
    model = KneserNey(text, size=7, order=order)
    for context in ([], [2], [6, 6, 6], [0, 1, 0], text[50:53].tolist()):
        chances = [np.exp(-model.surprise(torch.tensor([*context, word]))[-1]) for word in range(7)]
        assert sum(chances) == pytest.approx(1) and min(chances) > 0


def test_two_words_worked_out() -> None:
    """Text 0 1 0 2 0 1: pairs 01 (2), 10, 02, 20 (1 each): n_1 = 3, n_2 = 1, D_2 = 3/5; before 0, 1, 2 stand 2, 1, 1
    different words, so D_1 = 2 / (2 + 2) and p_1(1) = (1 − 1/2 + 1/2 · 3 / 3) / 4 = 1/4."""
    model = KneserNey(torch.tensor([0, 1, 0, 2, 0, 1]), size=3, order=2)
    found = np.exp(-model.surprise(torch.tensor([0, 1])))
    assert found[1] == pytest.approx((2 - 0.6) / 3 + 0.6 * 2 / 3 * 0.25)


def test_long_grams_of_many_words_are_shortened() -> None:
    assert KneserNey(torch.arange(50), size=2**21, order=5).order == 2
