"""Sentences drawn at random from the decoder's distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .constraints import forbid_repeats, forbid_words
from .sentence import Sentence, Step, select_rows, sentences


def truncate_logits(logits: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Logits (N, V) limited to the `top_k` likeliest words (0: all) and to the nucleus that holds `top_p` probability.

    The nucleus is the smallest set of likeliest words whose probabilities sum to at least `top_p`; the likeliest word
    is always kept. Source: Holtzman et al. 2019, arXiv:1904.09751v2, section 3.1.

    >>> truncate_logits(torch.tensor([[3.0, 2.0, 1.0]]), top_k=2).tolist()
    [[3.0, 2.0, -inf]]
    """
    if top_k:
        weakest = logits.topk(min(top_k, logits.shape[1]), 1).values[:, -1:]
        logits = logits.masked_fill(logits < weakest, float("-inf"))
    if top_p < 1.0:
        ordered, order = logits.sort(1, descending=True)
        before = ordered.softmax(1).cumsum(1) - ordered.softmax(1)
        beyond = before >= top_p
        beyond[:, 0] = False
        outside = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, beyond)
        logits = logits.masked_fill(outside, float("-inf"))
    return logits


def sample(
    step: Step,
    state: Any,
    *,
    batch: int,
    start: int,
    stop: int,
    n: int = 1,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    max_length: int = 20,
    forbidden: Sequence[int] = (),
    no_repeat: int = 0,
    generator: torch.Generator | None = None,
) -> list[list[Sentence]]:
    """`n` sentences drawn for each of `batch` inputs, in the order drawn; duplicates are possible.

        while not stopped: word ~ softmax(step(word, state) / temperature)

    The log-probabilities returned are the model's own, before temperature and truncation: they compare with a beam's.
    """
    rows = torch.arange(batch).repeat_interleave(n)
    words = torch.full((batch,), start)
    logits, state = step(words, state)
    logits, state = logits[rows], select_rows(state, rows)
    written = torch.empty(batch * n, 0, dtype=torch.long)
    logprobs = torch.empty(batch * n, 0, dtype=logits.dtype)
    ended = torch.zeros(batch * n, dtype=torch.bool)
    while True:
        logits = forbid_repeats(forbid_words(logits, [*forbidden, start]), written, no_repeat)
        heated = truncate_logits(logits / temperature, top_k, top_p)
        words = torch.multinomial(heated.softmax(1), 1, generator=generator)
        words = torch.where(ended[:, None], stop, words)
        written = torch.cat([written, words], 1)
        logprobs = torch.cat([logprobs, logits.log_softmax(1).gather(1, words)], 1)
        ended = ended | (words[:, 0] == stop)
        if ended.all() or written.shape[1] == max_length:
            break
        logits, state = step(words[:, 0], state)
    found = sentences(written, logprobs, stop)
    return [found[b * n : (b + 1) * n] for b in range(batch)]
