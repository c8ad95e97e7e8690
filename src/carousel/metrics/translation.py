"""BLEU and chrF of translations, by sacrebleu."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from carousel.errors import ConfigError
from carousel.metrics.bootstrap import Floats
from carousel.metrics.score import Score


def translation_scores(said: Sequence[str], right: Sequence[str], *, lowercase: bool = False) -> list[Score]:
    """Corpus BLEU and chrF2 of translations, one reference for each, in percent, as `sacrebleu` prints them.

    BLEU-4 with sacrebleu's own tokens (13a) and smoothing (exp); with `lowercase` case is no matter. Otherwise a third
    score is BLEU without case, to compare with what lowercases its data.

    Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine translation"; Popović 2015, "chrF:
    character n-gram F-score for automatic MT evaluation"; Post 2018, arXiv:1804.08771v2.

    Raises:
        ConfigError: `sacrebleu` is not there.

    >>> bleu, chrf, _ = translation_scores(["A dog runs on grass ."], ["A dog runs on the grass ."])
    >>> f"{bleu.value:.2f} {chrf.value:.2f}"
    '51.15 67.65'
    """
    library = require_sacrebleu()
    # force: no advice on standard error about full stops that stand apart
    bleu, chrf = library.BLEU(lowercase=lowercase, force=True), library.CHRF(lowercase=lowercase)
    scores = [_score("BLEU", bleu, said, right), _score("chrF", chrf, said, right)]
    if lowercase:
        return scores
    return [*scores, _score("BLEU lowercased", library.BLEU(lowercase=True, force=True), said, right)]


def require_sacrebleu() -> Any:
    """`sacrebleu.metrics`. Raises `ConfigError` where it is not installed."""
    try:
        import sacrebleu.metrics
    except ImportError:
        raise ConfigError(
            "sacrebleu: scores of translations want another package (got no sacrebleu); sacrebleu 2; "
            "pip install 'carousel-rnn[translation]'"
        ) from None
    return sacrebleu.metrics


def _score(name: str, metric: Any, said: Sequence[str], right: Sequence[str]) -> Score:
    """The sums over sentences that the metric itself makes, and what it makes of them."""
    statistics = np.array(metric._extract_corpus_statistics(list(said), [list(right)]), dtype=np.float64)

    def aggregate(sums: Floats) -> Floats:
        rows = sums.reshape(-1, sums.shape[-1]).round().astype(int).tolist()
        return np.array([metric._compute_score_from_stats(row).score for row in rows]).reshape(*sums.shape[:-1], 1)

    return Score(name, statistics, aggregate)
