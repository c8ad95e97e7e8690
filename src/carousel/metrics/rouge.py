"""ROUGE-L: the longest common subsequence of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carousel.metrics.words import check_pairs

BETA = 1.2  # recall counts β² = 1.44 times as much as precision


def rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean over images of `rouge_l_scores`, a fraction of 1.

    >>> rouge_l(["a dog runs", "a cat"], [["a dog sat", "the dog"], ["a cat"]])
    0.8333333333333333
    """
    return float(rouge_l_scores(candidates, references).mean())


def rouge_l_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """ROUGE-L of every image, (images,).

        P = max_r LCS(c, r) / |c|        R = max_r LCS(c, r) / |r|
        ROUGE_L = (1 + β²) P R / (R + β² P),  β = 1.2;  0 where nothing is shared

    P and R may come from different references. The texts are words separated by spaces: `normalise` them first.

    Lin 2004, "ROUGE: a package for automatic evaluation of summaries". Equal to pycocoevalcap 1.2.

    >>> rouge_l_scores(["a dog runs"], [["a dog sat", "dog"]]).round(4).tolist()    # P = 2/3, R = 1
    [0.8299]
    """
    check_pairs(candidates, references)
    return np.array([_sentence_score(c, r) for c, r in zip(candidates, references, strict=True)])


def _sentence_score(candidate: str, references: Sequence[str]) -> float:
    words = candidate.split()
    precision = recall = 0.0
    for reference in references:
        target = reference.split()
        common = longest_common_subsequence(words, target)
        if common:
            precision = max(precision, common / len(words))
            recall = max(recall, common / len(target))
    if not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest sequence of words that both contain in this order, with gaps allowed.

    >>> longest_common_subsequence("a b c d".split(), "b x d".split())
    2
    """
    previous = [0] * (len(second) + 1)
    for word in first:
        current = [0]
        for column, other in enumerate(second):
            current.append(previous[column] + 1 if word == other else max(previous[column + 1], current[column]))
        previous = current
    return previous[-1]
