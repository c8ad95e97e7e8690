"""What a decoder looks at: a mean of encoder states, weighted by how well each fits the decoder's own."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from carousel.errors import ConfigError
from carousel.nn.shape import one_of
from carousel.nn.unroll import Layout, check_inputs


class Memory(NamedTuple):
    """The states to look at, with what of the scores does not depend on the query."""

    values: Tensor  # (B, S, M), zero in the padding
    keys: Tensor  # (B, S, ·)
    padding: Tensor | None  # (B, S) of booleans; None if there is none


class Attention(nn.Module):
    """Scores, their softmax over the real states, and the mean of the states by these weights.

    A subclass has `keys` of states, once for a sequence, and `scores` of queries, at every step.
    """

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.query_size, self.memory_size = query_size, memory_size

    def keys(self, values: Tensor) -> Tensor:
        """(B, S, M) -> (B, S, ·)."""
        return values

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """(..., B, Q) and (B, S, ·) -> (..., B, S)."""
        raise NotImplementedError(f"{type(self).__name__} defines no scores")

    def remember(self, states: Tensor, lengths: Tensor | None = None) -> Memory:
        """What to attend to: states (S, B, M), of which each sequence has its own number.

        Raises:
            ConfigError: a shape or a length does not fit.
        """
        check_inputs(states, self.memory_size)
        padding = None
        if lengths is not None:
            Layout.of(states, lengths)  # checks them
            padding = torch.arange(len(states), device=states.device) >= lengths.to(states.device)[:, None]
            states = states.masked_fill(padding.t()[:, :, None], 0)  # whatever stands there, even NaN
        values = states.transpose(0, 1)
        return Memory(values, self.keys(values), padding)

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """The context (..., B, M) and the weights (..., B, S) for one query (B, Q), or for those of many steps.

        Raises:
            ConfigError: the query has another shape.
        """
        batch = len(memory.values)
        if query.dim() < 2 or query.shape[-2:] != (batch, self.query_size):
            raise ConfigError(
                f"query: wrong shape (got {tuple(query.shape)}); (B, Q) = ({batch}, {self.query_size}), "
                "after any number of others; one per sequence of the memory"
            )
        scores = self.scores(query, memory.keys)
        if memory.padding is not None:
            scores = scores.masked_fill(memory.padding, -math.inf)
        weights = torch.softmax(scores, dim=-1)
        return torch.einsum("...bs,bsm->...bm", weights, memory.values), weights


class BahdanauAttention(Attention):
    """Additive attention.

        e_ij = v_aᵀ tanh(W_a s_{i-1} + U_a h_j)
        α_ij = softmax_j(e_ij)
        c_i = Σ_j α_ij h_j

    Bahdanau, Cho and Bengio 2015, arXiv:1409.0473v7, section 3.1 and appendix A.1.2.

    Args:
        query_size, memory_size: Q, the width of the decoder's state s, and M, that of the encoder's h.
        attention_size: the width of what the two are mapped to.

    >>> attention = BahdanauAttention(query_size=4, memory_size=6, attention_size=5)
    >>> memory = attention.remember(torch.randn(7, 2, 6), lengths=torch.tensor([7, 3]))
    >>> context, weights = attention(torch.randn(2, 4), memory)
    >>> context.shape, weights[1, 3:].tolist()
    (torch.Size([2, 6]), [0.0, 0.0, 0.0, 0.0])
    """

    def __init__(self, query_size: int, memory_size: int, attention_size: int) -> None:
        super().__init__(query_size, memory_size)
        self.W = nn.Linear(query_size, attention_size, bias=False)
        self.U = nn.Linear(memory_size, attention_size, bias=False)
        self.v = nn.Linear(attention_size, 1, bias=False)

    def keys(self, values: Tensor) -> Tensor:
        keys: Tensor = self.U(values)
        return keys

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        scores: Tensor = self.v(torch.tanh(self.W(query)[..., None, :] + keys))
        return scores[..., 0]


class LuongAttention(Attention):
    """Global attention, by one of three scores.

        dot       score(h_t, h̄_s) = h_tᵀ h̄_s
        general   score(h_t, h̄_s) = h_tᵀ W_a h̄_s
        concat    score(h_t, h̄_s) = v_aᵀ tanh(W_a [h_t; h̄_s])

    Luong, Pham and Manning 2015, arXiv:1508.04025v5, section 3.1.

    Args:
        query_size, memory_size: Q, the width of the decoder's state h, and M, that of the encoder's h̄.
        score: "dot", of equal widths, "general" or "concat".

    Notes:
        With concat the width inside is Q. What the paper makes of the context, h̃_t = tanh(W_c [c_t; h_t]), is left to
        the decoder.

    >>> attention = LuongAttention(4, 6, score="general")
    >>> context, weights = attention(torch.randn(9, 2, 4), attention.remember(torch.randn(7, 2, 6)))  # 9 steps at once
    >>> context.shape, weights.shape
    (torch.Size([9, 2, 6]), torch.Size([9, 2, 7]))
    """

    def __init__(self, query_size: int, memory_size: int, score: str = "general") -> None:
        super().__init__(query_size, memory_size)
        one_of("score", score, ("dot", "general", "concat"))
        if score == "dot" and query_size != memory_size:
            raise ConfigError(
                f"score: dot has no weights (got widths {query_size} and {memory_size}); equal ones; or score='general'"
            )
        self.score = score
        if score != "dot":
            self.W = nn.Linear(memory_size, query_size, bias=False)
        if score == "concat":
            self.W_query = nn.Linear(query_size, query_size, bias=False)
            self.v = nn.Linear(query_size, 1, bias=False)

    def keys(self, values: Tensor) -> Tensor:
        return values if self.score == "dot" else self.W(values)

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        if self.score == "concat":
            scores: Tensor = self.v(torch.tanh(self.W_query(query)[..., None, :] + keys))
            return scores[..., 0]
        return torch.einsum("...bq,bsq->...bs", query, keys)  # one product for all steps of a sequence
