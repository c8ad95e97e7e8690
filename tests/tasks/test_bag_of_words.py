"""The baseline is what it says: TF-IDF weights, and the minimum of the regularised loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from carousel.data.ragged import Ragged
from carousel.tasks.bag_of_words import TfIdf, tfidf_logits

TRAIN = Ragged([[4, 5, 4], [4, 5], [6, 7, 3], [6, 7], [8]])


def test_weights_are_those_of_the_formula() -> None:
    bag = TfIdf(TRAIN)
    names = [4, 5, 6, 7, (4, 5), (6, 7)]  # in two documents or more, without the unknown 3
    assert len(bag.known) == len(names)
    inverse = 1 + math.log((1 + 5) / (1 + 2))
    counts = torch.tensor([2.0, 1, 0, 0, 1, 0])
    weights = torch.where(counts > 0, (1 + counts.log()) * inverse, 0)
    found = bag(Ragged([[4, 5, 4, 99], [99]]))
    assert torch.allclose(found.rows.to_dense()[0], weights / weights.norm(), atol=1e-6)
    assert not found.rows.to_dense()[1].any()
    assert torch.equal(found.turned.to_dense().T, found.rows.to_dense())


@pytest.mark.parametrize("several", [False, True])
def test_the_regression_is_at_its_minimum(several: bool) -> None:
    classes = torch.tensor([0, 0, 1, 1, 0])
    targets = F.one_hot(classes, 2).float() if several else classes
    logits = tfidf_logits(TRAIN, targets, TRAIN, targets, TRAIN, 2, strengths=[3.0])
    X = TfIdf(TRAIN)(TRAIN).rows.to_dense()
    weights, bias = torch.zeros(X.shape[1], 2, requires_grad=True), torch.zeros(2, requires_grad=True)
    loss = F.binary_cross_entropy_with_logits if several else F.cross_entropy
    plain = torch.optim.Adam([weights, bias], lr=0.05)
    for _ in range(1500):
        plain.zero_grad()
        (3.0 * loss(X @ weights + bias, targets, reduction="sum") + weights.square().sum() / 2).backward()
        plain.step()
    expected = X @ weights.detach() + bias.detach()
    both = (logits, expected) if several else (logits.softmax(1), expected.softmax(1))
    assert torch.allclose(*both, atol=2e-3)
