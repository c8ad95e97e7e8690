"""Attention over states."""

from __future__ import annotations

import pytest
import torch
from cell_registry import assert_same
from torch import Tensor

from carousel.errors import ConfigError
from carousel.nn import BahdanauAttention, LuongAttention
from carousel.nn.attention import Attention

LENGTHS = torch.tensor([5, 1, 3])


def score(attention: Attention, query: Tensor, state: Tensor) -> Tensor:
    """Of one query (Q,) and one state (M,), as the papers write it."""
    match attention:
        case BahdanauAttention():
            return attention.v(torch.tanh(attention.W(query) + attention.U(state)))[0]
        case LuongAttention(score="dot"):
            return query @ state
        case LuongAttention(score="general"):
            return query @ attention.W.weight @ state
        case LuongAttention(score="concat"):
            both = torch.cat([attention.W_query.weight, attention.W.weight], dim=1)
            return attention.v(torch.tanh(both @ torch.cat([query, state])))[0]
    raise AssertionError


@pytest.mark.parametrize(
    "make",
    [
        lambda: BahdanauAttention(4, 6, 5),
        lambda: LuongAttention(6, 6, "dot"),
        lambda: LuongAttention(4, 6, "general"),
        lambda: LuongAttention(4, 6, "concat"),
    ],
    ids=["bahdanau", "dot", "general", "concat"],
)
@pytest.mark.parametrize("ragged", [True, False])
def test_the_context_is_the_mean_of_real_states_by_score(make: object, ragged: bool) -> None:
    torch.manual_seed(0)
    attention: Attention = make().double()  # type: ignore[operator]
    states, queries = torch.randn(5, 3, 6).double(), torch.randn(2, 3, attention.query_size).double()
    lengths = LENGTHS if ragged else torch.tensor([5, 5, 5])
    if ragged:
        states[torch.arange(5)[:, None] >= lengths] = torch.nan
    states.requires_grad_()
    memory = attention.remember(states, lengths if ragged else None)
    contexts, weights = attention(queries, memory)
    for b, length in enumerate(lengths.tolist()):
        for q in range(2):
            own = torch.stack([score(attention, queries[q, b], states[s, b]) for s in range(length)]).softmax(0)
            assert_same([weights[q, b, :length], contexts[q, b]], [own, own @ states[:length, b]])
            assert not weights[q, b, length:].any()
    assert_same([*attention(queries[1], memory)], [contexts[1], weights[1]])  # one step at a time
    (grad,) = torch.autograd.grad(contexts.square().sum(), states)
    assert grad.isfinite().all() and not grad[torch.arange(5)[:, None] >= lengths].any()


def test_what_does_not_fit_is_refused() -> None:
    attention = BahdanauAttention(4, 6, 5)
    with pytest.raises(ConfigError, match=r"^inputs: wrong shape \(got \(5, 3, 4\)\); \(T, B, 6\)"):
        attention.remember(torch.zeros(5, 3, 4))
    with pytest.raises(ConfigError, match=r"^lengths: out of range \(got 6\); 1 to 5"):
        attention.remember(torch.zeros(5, 1, 6), torch.tensor([6]))
    with pytest.raises(ConfigError, match=r"^query: wrong shape \(got \(2, 4\)\); \(B, Q\) = \(3, 4\)"):
        attention(torch.zeros(2, 4), attention.remember(torch.zeros(5, 3, 6)))
    with pytest.raises(ConfigError, match=r"^score: unknown \(got 'genral'\); dot, general, concat; did"):
        LuongAttention(4, 6, "genral")
    with pytest.raises(ConfigError, match=r"^score: dot has no weights \(got widths 4 and 6\)"):
        LuongAttention(4, 6, "dot")
