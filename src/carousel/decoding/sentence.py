"""What decoding returns, and how a decoder's state follows the sentences it belongs to."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeVar

from torch import Tensor

State = TypeVar("State")


class Step(Protocol):
    """A decoder: the last word of N sentences and their state -> the next word's logits and the new state."""

    def __call__(self, words: Tensor, state: Any, /) -> tuple[Tensor, Any]:  # (N,) int64 -> (N, V)
        ...


class Sentence(NamedTuple):
    """A decoded sentence without its start and stop symbols.

    `word_logprobs` has one entry a word. `logprob` is the sum over the words and, where the sentence is `finished`, the
    stop symbol: ``log p(S | I) = Σ_t log p(S_t | I, S_0 .. S_{t-1})``, natural logarithm.
    """

    words: tuple[int, ...]
    word_logprobs: tuple[float, ...]
    logprob: float
    finished: bool


def select_rows(state: State, rows: Tensor) -> State:
    """The rows of every tensor in a nested tuple of tensors; axis 0 is the batch.

    >>> import torch
    >>> select_rows((torch.arange(3), (torch.eye(3),)), torch.tensor([2, 2]))[0]
    tensor([2, 2])
    """
    if isinstance(state, Tensor):
        return state.index_select(0, rows)  # type: ignore[return-value]
    if isinstance(state, tuple):
        parts = [select_rows(part, rows) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)  # type: ignore[return-value]
    raise TypeError(f"a decoder's state is made of tuples and tensors (got {type(state).__name__})")


def sentences(words: Tensor, logprobs: Tensor, stop: int) -> list[Sentence]:
    """Rows of word numbers and their log-probabilities, (N, T) each, cut at the first `stop`."""
    found = []
    for row, values in zip(words.tolist(), logprobs.tolist(), strict=True):
        finished = stop in row
        length = row.index(stop) if finished else len(row)
        total = sum(values[: length + finished])
        found.append(Sentence(tuple(row[:length]), tuple(values[:length]), total, finished))
    return found


def normalised_score(total: Tensor, length: Tensor, power: float) -> Tensor:
    """``log p / length^power``: 0 compares log-probabilities, 1 the mean of a word's (stop counts as a word)."""
    return total if power == 0 else total / length.clamp(min=1).to(total.dtype) ** power
