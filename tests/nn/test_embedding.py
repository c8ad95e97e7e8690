"""Embeddings that drop words."""

from __future__ import annotations

import pytest
import torch

from carousel.errors import ConfigError
from carousel.nn import Embedding


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_word_is_dropped_throughout_its_sequence(batch_first: bool) -> None:
    torch.manual_seed(0)
    embedding, tokens = Embedding(20, 3, dropout=0.3, batch_first=batch_first), torch.randint(20, (200, 8))
    vectors = embedding(tokens.t() if batch_first else tokens)
    vectors = vectors.transpose(0, 1) if batch_first else vectors
    known = vectors.any(dim=2)
    torch.testing.assert_close(vectors[known], embedding.weight[tokens[known]] / 0.7)
    shares = []
    for b in range(8):
        for word in range(20):
            here = known[:, b][tokens[:, b] == word]
            assert here.all() or not here.any()
            shares.append(bool(here.any()))
    assert 0.6 < sum(shares) / len(shares) < 0.8
    torch.testing.assert_close(embedding.eval()(tokens), embedding.weight[tokens])


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^dropout: not a probability \(got -1\)"):
        Embedding(20, 3, dropout=-1)
