"""Every score of a set of captions at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.metrics.bleu import bleu_from_statistics, bleu_statistics
from carousel.metrics.bootstrap import Estimate, bootstrap, mean_from_statistics
from carousel.metrics.chair import chair_from_statistics, chair_statistics
from carousel.metrics.cider import RELIABLE_IMAGES, CiderD
from carousel.metrics.diversity import are_novel, distinct_captions, vocabulary_used
from carousel.metrics.meteor import meteor, why_no_meteor
from carousel.metrics.rouge import rouge_l_scores
from carousel.metrics.words import check_pairs, normalise

Floats = NDArray[np.float64]
SCORES = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "chair_s", "chair_i", "rouge_l", "cider_d", "novel")


class CaptionScores(NamedTuple):
    """The scores of one candidate per image, as fractions: CIDEr-D runs from 0 to 10, every other score from 0 to 1.

    `chair_s` and `chair_i` are reference-CHAIR (smaller is better, not comparable with published CHAIR). `meteor` is
    None where the Java program is not available, `novel` where no training captions were given. `warnings` are
    one-line reasons to doubt or to miss a score.
    """

    images: int
    bleu_1: Estimate
    bleu_2: Estimate
    bleu_3: Estimate
    bleu_4: Estimate
    rouge_l: Estimate
    cider_d: Estimate
    chair_s: Estimate
    chair_i: Estimate
    novel: Estimate | None
    meteor: float | None
    distinct: int
    vocabulary: int
    warnings: tuple[str, ...]


def score_captions(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    training_hashes: Collection[int] | None = None,
    meteor_jar: Path | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> CaptionScores:
    """Score one caption per image against the image's references; both are normalised here.

    Every score but METEOR and the counts comes with a 95 % bootstrap interval over images; all of them from the same
    resampled images. training_hashes: the `sentence_hash` of every caption trained on. meteor_jar: see `meteor`.
    Raises `DataError` for candidates and references that do not belong together.

    >>> scores = score_captions(["A dog runs.", "a cat"], [["a dog runs"], ["the cat sits", "a cat sits"]])
    >>> round(scores.bleu_1.value, 4), scores.chair_s.value, scores.distinct, scores.vocabulary
    (0.8187, 0.0, 2, 4)
    >>> scores.warnings[0]
    'CIDEr-D is unreliable: 2 images; document frequencies need about 100'
    """
    check_pairs(candidates, references)
    texts, truths = _normalised(candidates, references)
    statistics = caption_statistics(texts, truths, training_hashes=training_hashes)
    draw = np.random.default_rng(seed)
    estimates = bootstrap(statistics, scores_from_statistics, generator=draw, resamples=resamples)
    by_name = dict(zip(SCORES, estimates, strict=True))
    novelty = by_name.pop("novel")
    java = meteor(texts, truths, jar=meteor_jar)
    doubts = () if len(texts) >= RELIABLE_IMAGES else (_too_few(len(texts)),)
    missing = why_no_meteor(meteor_jar)
    return CaptionScores(
        images=len(texts),
        **by_name,
        novel=None if training_hashes is None else novelty,
        meteor=None if java is None else java.corpus,
        distinct=distinct_captions(texts),
        vocabulary=vocabulary_used(texts),
        warnings=doubts + ((missing,) if missing else ()),
    )


def caption_statistics(
    candidates: Sequence[str], references: Sequence[Sequence[str]], *, training_hashes: Collection[int] | None = None
) -> Floats:
    """What all scores of one caption per image need from every image, (images, 18): sums over images give them.

    Columns: those of `bleu_statistics` and of `chair_statistics`, ROUGE-L, CIDEr-D, whether it is novel, 1. The
    document frequencies of CIDEr-D are those of all images given. Takes and raises what `score_captions` does.

    >>> caption_statistics(["a dog runs"], [["a dog sat", "dogs"]]).shape
    (1, 18)
    """
    check_pairs(candidates, references)
    texts, truths = _normalised(candidates, references)
    novel = np.ones(len(texts)) if training_hashes is None else are_novel(texts, training_hashes)
    consensus = CiderD(truths).scores(texts, range(len(texts)))
    means = [rouge_l_scores(texts, truths), consensus, novel, np.ones(len(texts))]
    found: Floats = np.column_stack([bleu_statistics(texts, truths), chair_statistics(texts, truths), *means])
    return found


def scores_from_statistics(sums: Floats) -> Floats:
    """The scores (..., 9), in the order of `SCORES`, from sums of `caption_statistics` (..., 18).

    >>> one = caption_statistics(["a dog runs"], [["a dog runs"]]).sum(axis=0)
    >>> dict(zip(SCORES, scores_from_statistics(one).round(2).tolist()))["rouge_l"]
    1.0
    """
    parts = (bleu_from_statistics(sums[..., :10]), chair_from_statistics(sums[..., 10:14]))
    return np.concatenate([*parts, mean_from_statistics(sums[..., 14:])], axis=-1)


def _normalised(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    return list(map(normalise, candidates)), [list(map(normalise, captions)) for captions in references]


def _too_few(images: int) -> str:
    return f"CIDEr-D is unreliable: {images} images; document frequencies need about {RELIABLE_IMAGES}"
