"""Words that may not come next: some never, some because they would repeat an n-gram."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def forbid_words(logits: Tensor, words: Sequence[int]) -> Tensor:
    """Logits (N, V) in which `words` (say, the unknown word and the padding) can never be chosen."""
    if not words:
        return logits
    return logits.index_fill(1, logits.new_tensor(list(words)).long(), float("-inf"))


def forbid_repeats(logits: Tensor, written: Tensor, size: int) -> Tensor:
    """Logits (N, V) in which no word completes an n-gram of `size` words that the sentence, (N, t), already has.

    `size` 1 forbids any word twice, 2 any pair of words twice, and so on; 0 allows everything.

    >>> import torch
    >>> forbid_repeats(torch.zeros(1, 9), torch.tensor([[5, 6, 7, 5]]), 2).tolist()  # "5 6" was there: no 6 after 5
    [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -inf, 0.0, 0.0]]
    """
    length = written.shape[1]
    if size == 0 or length < size:
        return logits
    windows = written.unfold(1, size, 1)  # (N, t - size + 1, size)
    tail = written[:, length - size + 1 :]  # (N, size - 1)
    same = (windows[:, :, :-1] == tail[:, None]).all(2)  # (N, t - size + 1); all of an empty axis is True
    banned = logits.new_zeros(logits.shape).scatter_add(1, windows[:, :, -1], same.to(logits.dtype)) > 0
    return logits.masked_fill(banned, float("-inf"))
