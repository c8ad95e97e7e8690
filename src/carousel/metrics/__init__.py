"""What a score is: caption scores, their intervals and their traps."""

from carousel.metrics.bleu import Bleu, bleu
from carousel.metrics.chair import ReferenceChair, hallucinated_objects, objects_mentioned, reference_chair
from carousel.metrics.cider import CiderD, cider_d
from carousel.metrics.rouge import rouge_l, rouge_l_scores
from carousel.metrics.words import normalise

__all__ = [
    "Bleu",
    "CiderD",
    "ReferenceChair",
    "bleu",
    "cider_d",
    "hallucinated_objects",
    "normalise",
    "objects_mentioned",
    "reference_chair",
    "rouge_l",
    "rouge_l_scores",
]
