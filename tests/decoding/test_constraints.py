"""What may not come next."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from carousel.decoding import forbid_repeats, forbid_words

from .table import V, repeats


def test_forbidden_words_are_impossible_and_others_as_they_were() -> None:
    logits = torch.randn(3, V)
    before = logits.clone()
    held = forbid_words(logits, [0, 3])
    assert (held[:, [0, 3]] == float("-inf")).all()
    assert torch.equal(held[:, [1, 2, 4, 5, 6]], before[:, [1, 2, 4, 5, 6]]) and torch.equal(logits, before)
    assert torch.equal(forbid_words(logits, []), before)


@given(
    rows=st.integers(0, 8).flatmap(
        lambda length: st.lists(
            st.lists(st.integers(0, V - 1), min_size=length, max_size=length), min_size=1, max_size=4
        )
    ),
    size=st.integers(0, 4),
)
def test_exactly_what_would_repeat_is_forbidden(rows: list[list[int]], size: int) -> None:
    written = torch.tensor(rows, dtype=torch.long).reshape(len(rows), -1)
    held = forbid_repeats(torch.zeros(len(rows), V), written, size)
    for row, logits in zip(rows, held.tolist(), strict=True):
        assert [value != 0 for value in logits] == [repeats((*row, word), size) for word in range(V)]
