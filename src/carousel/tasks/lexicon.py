"""Word-by-word translation: the likeliest word for each, by IBM model 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import numpy as np

MOST = 50_000  # pairs of sentences that are looked at


def lexicon(pairs: Iterable[tuple[Sequence[str], Sequence[str]]], rounds: int = 5) -> Mapping[str, str]:
    """For each source word its likeliest translation t(e|f), by expectation maximisation.

        share of f_i in e_j = t(e_j|f_i) / Σ_i' t(e_j|f_i')
        t(e|f) = Σ shares of f in e / Σ_e' shares of f in e'

    Brown et al. 1993, "The mathematics of statistical machine translation", Computational Linguistics 19(2), section
    4.1, without the empty word.

    >>> found = lexicon([(["das", "haus"], ["the", "house"]), (["das", "buch"], ["the", "book"])])
    >>> [found[word] for word in ("das", "haus", "buch")]
    ['the', 'house', 'book']
    """
    sources: dict[str, int] = {}
    targets: dict[str, int] = {}
    f, e, place, begun = [], [], [], 0
    for source, target in islice(pairs, MOST):
        ours = [sources.setdefault(word, len(sources)) for word in source]
        theirs = [targets.setdefault(word, len(targets)) for word in target]
        f.append(np.tile(ours, len(theirs)).astype(np.int64))
        e.append(np.repeat(theirs, len(ours)).astype(np.int64))
        place.append(begun + np.repeat(np.arange(len(theirs)), len(ours)))
        begun += len(theirs)
    keys, couple = np.unique(np.concatenate(f) * len(targets) + np.concatenate(e), return_inverse=True)
    of, into = np.divmod(keys, len(targets))
    where, t = np.concatenate(place), np.ones(len(keys))
    for _ in range(rounds):
        share = t[couple]
        share /= np.bincount(where, share)[where]
        counts = np.bincount(couple, share)
        t = counts / np.bincount(of, counts)[of]
    order = np.argsort(t, kind="stable")  # the likeliest comes last, and stays
    best = dict(zip(of[order].tolist(), into[order].tolist(), strict=True))
    names = list(targets)
    return {word: names[best[k]] for word, k in sources.items() if k in best}
