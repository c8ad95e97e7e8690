"""What a score is: caption scores, their intervals and their traps."""

from carousel.metrics.bleu import Bleu, bleu, bleu_from_statistics, bleu_statistics
from carousel.metrics.bootstrap import (
    Difference,
    Estimate,
    bootstrap,
    bootstrap_difference,
    mean_from_statistics,
    mean_statistics,
)
from carousel.metrics.captions import SCORES, CaptionScores, caption_statistics, score_captions, scores_from_statistics
from carousel.metrics.chair import (
    ReferenceChair,
    chair_from_statistics,
    chair_statistics,
    hallucinated_objects,
    objects_mentioned,
    reference_chair,
)
from carousel.metrics.cider import CiderD, cider_d
from carousel.metrics.diversity import (
    are_novel,
    distinct_captions,
    sentence_hash,
    sentence_hashes,
    vocabulary_used,
)
from carousel.metrics.meteor import Meteor, meteor, why_no_meteor
from carousel.metrics.rouge import rouge_l, rouge_l_scores
from carousel.metrics.words import normalise

__all__ = [
    "SCORES",
    "Bleu",
    "CaptionScores",
    "CiderD",
    "Difference",
    "Estimate",
    "Meteor",
    "ReferenceChair",
    "are_novel",
    "bleu",
    "bleu_from_statistics",
    "bleu_statistics",
    "bootstrap",
    "bootstrap_difference",
    "caption_statistics",
    "chair_from_statistics",
    "chair_statistics",
    "cider_d",
    "distinct_captions",
    "hallucinated_objects",
    "mean_from_statistics",
    "mean_statistics",
    "meteor",
    "normalise",
    "objects_mentioned",
    "reference_chair",
    "rouge_l",
    "rouge_l_scores",
    "score_captions",
    "scores_from_statistics",
    "sentence_hash",
    "sentence_hashes",
    "vocabulary_used",
    "why_no_meteor",
]
