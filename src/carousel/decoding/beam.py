"""Beam search with an N-best list, for many inputs at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from .constraints import forbid_repeats, forbid_words
from .sentence import Sentence, Step, normalised_score, select_rows, sentences


def beam_search(
    step: Step,
    state: Any,
    *,
    batch: int,
    start: int,
    stop: int,
    width: int = 3,
    n_best: int = 1,
    max_length: int = 20,
    length_normalisation: float = 0.0,
    forbidden: Sequence[int] = (),
    no_repeat: int = 0,
) -> list[list[Sentence]]:
    """The `n_best` likeliest sentences found for each of `batch` inputs, best first.

    Keeps the `width` best beginnings of each input; one that has reached `stop` stays in the beam as it is and competes
    on. With ``width=1`` this is greedy search:

        while not stopped: word, state = argmax(step(word, state))

    `state` has one row an input. A beginning's score is its log-probability over its length to the power
    `length_normalisation`. Sentences of one list differ from each other, since beginnings do. The step's batch is
    `batch` x `width` rows after the first step.

    Source: Vinyals et al. 2014, arXiv:1411.4555v2, section 3.1 ("BeamSearch").
    """
    width = max(width, n_best)
    words = torch.full((batch,), start)
    logits, state = step(words, state)
    vocabulary = logits.shape[1]
    forbidden = [*forbidden, start]

    first = forbid_words(logits, forbidden).log_softmax(1)
    spare = max(0, width - vocabulary)  # the beam may be wider than there are first words
    totals, words = F.pad(first, (0, spare), value=float("-inf")).topk(width, 1)  # (B, K)
    words = words.where(totals.isfinite(), stop)
    device = totals.device
    state = select_rows(state, torch.arange(batch, device=device).repeat_interleave(width))
    written, logprobs = words.reshape(-1, 1), totals.reshape(-1, 1)  # (B K, t)
    lengths = torch.ones_like(totals)
    ended = words == stop
    only_stop = torch.full((vocabulary,), float("-inf"), device=device).index_fill(0, words.new_tensor([stop]), 0.0)
    rows = torch.arange(batch, device=device)[:, None] * width

    for _ in range(1, max_length):
        if ended.all():
            break
        logits, state = step(written[:, -1], state)
        logits = forbid_repeats(forbid_words(logits, forbidden), written, no_repeat)
        ahead = logits.log_softmax(1).view(batch, width, vocabulary)
        ahead = torch.where(ended[:, :, None], only_stop, ahead)
        candidates = totals[:, :, None] + ahead
        length = lengths + (~ended).to(lengths.dtype)
        scores = normalised_score(candidates, length[:, :, None], length_normalisation)
        best = scores.flatten(1).topk(width, 1).indices  # (B, K)
        parent, word = best // vocabulary, best % vocabulary
        flat = (rows + parent).flatten()
        totals = candidates.flatten(1).gather(1, best)
        logprobs = torch.cat([logprobs[flat], ahead.flatten(1).gather(1, best).reshape(-1, 1)], 1)
        written = torch.cat([written[flat], word.reshape(-1, 1)], 1)
        lengths, ended = length.gather(1, parent), ended.gather(1, parent) | (word == stop)
        state = select_rows(state, flat)

    order = normalised_score(totals, lengths, length_normalisation).sort(stable=True, dim=1, descending=True).indices
    flat = (rows + order[:, :n_best]).flatten()
    found = sentences(written[flat], logprobs[flat], stop)
    possible = totals.flatten()[flat].isfinite().tolist()  # a tiny vocabulary can have fewer sentences than asked for
    return [[found[i] for i in range(b * n_best, (b + 1) * n_best) if possible[i]] for b in range(batch)]


def greedy_search(step: Step, state: Any, *, batch: int, start: int, stop: int, max_length: int = 20) -> list[Sentence]:
    """The likeliest next word, again and again: `beam_search` of width 1."""
    found = beam_search(step, state, batch=batch, start=start, stop=stop, width=1, max_length=max_length)
    return [best[0] for best in found]
