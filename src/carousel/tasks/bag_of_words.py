"""Baselines for texts with labels: the commonest label, and TF-IDF with logistic regression."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.data.ragged import Ragged
from carousel.data.vocabulary import UNKNOWN

LEAST = 2  # documents that a word or pair must be in


class Weighted(NamedTuple):
    """Documents as rows (N, V) of a sparse matrix, and the matrix turned over."""

    rows: Tensor
    turned: Tensor


class _Product(torch.autograd.Function):
    """X W for a sparse X, which autograd would turn over at every step."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, weights: Tensor, X: Weighted) -> Tensor:
        ctx.turned = X.turned  # type: ignore[attr-defined]
        return X.rows @ weights

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.turned @ gradient, None  # type: ignore[attr-defined]


class TfIdf:
    """Words and pairs of neighbours, weighed.

        x_d,w = (1 + ln count_d,w) · (1 + ln (1 + N) / (1 + documents with w)),    each row scaled to length 1

    of words and pairs that are in `LEAST` training documents. Salton and Buckley 1988, Inf. Proc. & Management 24(5).

    Args:
        training: documents as ids below V.

    >>> bag = TfIdf(Ragged([[4, 5, 6], [4, 5], [7, 8]]))
    >>> bag(Ragged([[4, 5, 9]])).rows.to_dense().shape            # of 4, 5 and the pair 4 5
    torch.Size([1, 3])
    """

    def __init__(self, training: Ragged) -> None:
        self.size = int(training.ids.max()) + 1 if len(training.ids) else 1
        _, grams, _ = self._grams(training)
        known, counts = torch.unique(grams, return_counts=True)
        self.known = known[counts >= LEAST]
        frequency = counts[counts >= LEAST].double()
        self.inverse = 1 + ((1 + len(training)) / (1 + frequency)).log()

    def _grams(self, texts: Ragged) -> tuple[Tensor, Tensor, Tensor]:
        """Each document's different words and pairs: documents, grams and how often, all (M,)."""
        ids = texts.ids.long()
        documents = torch.arange(len(texts)).repeat_interleave(texts.lengths)
        pairs = documents[1:] == documents[:-1]
        grams = torch.cat([ids, (self.size + ids[:-1] * self.size + ids[1:])[pairs]])
        places = torch.cat([documents, documents[1:][pairs]])
        good = (ids > UNKNOWN) & (ids < self.size)
        known = torch.cat([good, (good[:-1] & good[1:])[pairs]])
        grams, places = grams[known], places[known]
        span = self.size**2 + self.size
        keys, counts = torch.unique(places * span + grams, return_counts=True)
        return keys // span, keys % span, counts

    def __call__(self, texts: Ragged) -> Weighted:
        """Rows (N, V) of weights."""
        documents, grams, counts = self._grams(texts)
        places = torch.searchsorted(self.known, grams).clamp(max=max(0, len(self.known) - 1))
        there = self.known[places] == grams if len(self.known) else torch.zeros_like(grams, dtype=torch.bool)
        documents, places, counts = documents[there], places[there], counts[there]
        weights = (1 + counts.double().log()) * self.inverse[places]
        norms = torch.zeros(len(texts), dtype=torch.double).index_add_(0, documents, weights**2).sqrt()
        values = (weights / norms[documents]).float()
        shape = (len(texts), len(self.known))
        return Weighted(_csr(documents, places, values, shape), _csr(places, documents, values, shape[::-1]))


def _csr(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    order = torch.argsort(rows * shape[1] + columns)
    starts = torch.zeros(shape[0] + 1, dtype=torch.long)
    starts[1:] = torch.bincount(rows, minlength=shape[0]).cumsum(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return torch.sparse_csr_tensor(starts, columns[order], values[order], shape, check_invariants=False)


def tfidf_logits(
    train: Ragged, targets: Tensor, val: Ragged, val_targets: Tensor, test: Ragged, classes: int,
    strengths: Sequence[float] = (1.0, 10.0),
) -> Tensor:  # fmt: skip
    """The logits (N, K) of the test documents, by logistic regression on TF-IDF weights of words and pairs.

        min over W, b of  C Σ_d loss(x_d W + b, y_d) + |W|² / 2,   C the best on the validation data of `strengths`

    by L-BFGS. Targets are classes (N,), or zeros and ones (N, K).
    """
    bag = TfIdf(train)
    X, held, shown = bag(train), bag(val), bag(test)
    best, chosen = None, torch.zeros(len(test), classes)
    for C in strengths:
        weights, bias = _regression(X, targets, classes, C)
        loss = float(_loss(held.rows @ weights + bias, val_targets))
        if best is None or loss < best:
            best, chosen = loss, shown.rows @ weights + bias
    return chosen


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    if targets.dim() == 2:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    return F.cross_entropy(logits, targets, reduction="sum")


def _regression(X: Weighted, targets: Tensor, classes: int, C: float) -> tuple[Tensor, Tensor]:
    weights = torch.zeros(X.rows.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights, bias], max_iter=60, history_size=8, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = _Product.apply(weights, X) + bias  # type: ignore[no-untyped-call]
        objective = (C * _loss(logits, targets) + weights.square().sum() / 2) / len(targets)
        objective.backward()  # type: ignore[no-untyped-call]
        return objective

    with torch.enable_grad():
        optimiser.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach(), bias.detach()
