"""Candidate sentences: a beam search over the maximum-entropy model that prefers to say what was seen."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.captioning.melm import Evidence, MaxEntModel, Standing
from carousel.data.vocabulary import PAD, START, STOP, UNKNOWN
from carousel.decoding.sentence import Sentence

NEVER = [PAD, START, STOP, UNKNOWN]  # the stop ends a sentence, it does not go on with one


class Covering(NamedTuple):
    """A finished sentence and how many of the photo's detected concepts it says."""

    sentence: Sentence
    covered: int


class _Live(NamedTuple):
    """The unfinished sentences of N photos, K each; R = N K."""

    logprobs: Tensor  # (R, t)
    total: Tensor  # (N, K)
    at: Standing


@torch.no_grad()
def search(
    model: MaxEntModel,
    seen: Evidence,
    *,
    width: int = 50,
    most: int = 100,
    cover: int = 10,
    endings: int = 10,
    max_length: int = 18,
) -> list[list[Covering]]:
    """The likeliest `most` sentences of each photo among those that say at least T of its detected concepts.

    A beam search from left to right: a sentence may end where the stop is among the `endings` likeliest words, or where
    it is as long as can be; and of all that go on, the `width` likeliest do. T begins at `cover` and is lowered until
    there are `most` of them, or none is left out.

    Fang et al. 2015, arXiv:1411.4952v3, section 4.2.
    """
    photos = len(seen.score)
    live = _Live(torch.zeros(photos, 0), torch.zeros(photos, 1), Standing.begin(seen))
    finished: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for length in range(max_length + 1):
        before = F.pad(live.at.prefix, (model.ngrams.order - 1, 0), value=START)[:, length:]
        logp = model.logits(before, live.at).log_softmax(1)
        ended = live.total + logp[:, STOP].view_as(live.total)
        if length < max_length:
            likelier = (logp > logp[:, STOP, None]).sum(1).view_as(ended)
            ended = ended.masked_fill(likelier >= endings, -torch.inf)
        if length:
            finished.append((ended, _covered(seen, live), live.at.prefix, live.logprobs))
        if length == max_length:
            break
        logp[:, NEVER] = -torch.inf
        live = _go_on(live, logp, width)
    return [_chosen(finished, photo, most, cover) for photo in range(photos)]


def _go_on(live: _Live, logp: Tensor, width: int) -> _Live:
    """The likeliest continuations by one word."""
    photos, size = len(live.total), logp.shape[1]
    joint = (live.total.view(-1, 1) + logp).view(photos, -1)
    total, place = joint.topk(min(width, joint.shape[1]))
    row = (place // size + torch.arange(photos)[:, None] * live.total.shape[1]).flatten()
    word = (place % size).flatten()
    logprobs = torch.cat([live.logprobs[row], logp[row, word][:, None]], 1)
    return _Live(logprobs, total, live.at.rows(row).say(word))


def _covered(seen: Evidence, live: _Live) -> Tensor:
    """How many detected concepts each sentence says, (N, K)."""
    left = live.at.open.sum(1).view_as(live.total)
    return seen.detected.sum(1, keepdim=True) - left


def _chosen(finished: list[tuple[Tensor, Tensor, Tensor, Tensor]], photo: int, most: int, cover: int) -> list[Covering]:
    """The coverage rule."""
    total = torch.cat([ended[photo] for ended, _, _, _ in finished])
    covered = torch.cat([count[photo] for _, count, _, _ in finished])
    origin = [(step, k) for step, (ended, *_) in enumerate(finished) for k in range(ended.shape[1])]
    possible = total > -torch.inf
    threshold = cover
    while threshold > 0 and int((possible & (covered >= threshold)).sum()) < most:
        threshold -= 1
    allowed = torch.where(possible & (covered >= threshold), total, -torch.inf)
    best = allowed.argsort(descending=True, stable=True)[: min(most, int((allowed > -torch.inf).sum()))].tolist()
    found = []
    for i in best:
        step, k = origin[i]
        ended, _, words, logprobs = finished[step]
        row = photo * ended.shape[1] + k
        sentence = Sentence(tuple(words[row].tolist()), tuple(logprobs[row].tolist()), float(total[i]), True)
        found.append(Covering(sentence, int(covered[i])))
    return found
