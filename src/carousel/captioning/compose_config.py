"""Every choice of a captioner made of parts, with a default for each; kept in the model file."""

from __future__ import annotations

from pydantic import Field

from carousel.captioning.concepts import Pooling
from carousel.captioning.dmsm import SimilarityConfig
from carousel.training import TrainingConfig


class ComposeConfig(TrainingConfig):
    """The parts and how each is trained; the rest of the settings are those of all training, and hold for all parts."""

    # concepts
    concepts: int = Field(1000, ge=1, le=20_000, description="the commonest words of captions, which are looked for")
    pooling: Pooling = Field("noisy-or", description="how places are joined: noisy-or, max, or pooled features alone")
    context: bool = Field(True, description="each place is judged with the whole photo")
    detector_dropout: float = Field(0.5, ge=0, lt=1, description="on the features that the detector sees")
    detector_epochs: int = Field(4, ge=1, le=10_000, description="at most so many times through the photos")
    detector_learning_rate: float = Field(5e-4, gt=0, le=10, description="the greatest, see `schedule`")
    batch_photos: int = Field(64, ge=1, le=65536, description="photos a step")
    flips: bool = Field(True, description="train the detector on mirrored photos too")
    folds: int = Field(3, ge=1, le=20, description="detectors, each of which judges training photos it has not seen")
    precision: float = Field(0.1, ge=0, le=1, description="how often a detected concept is right on held-out photos")

    # the language model
    min_count: int = Field(5, ge=1, description="words rarer than this in the sentences become <unk>")
    max_length: int = Field(18, ge=1, le=200, description="longest sentence, in words; longer ones are cut")
    order: int = Field(4, ge=2, le=8, description="of the longest n-grams")
    min_ngrams: int = Field(2, ge=1, description="longer n-grams rarer than this have no feature")
    triggers: int = Field(300, ge=0, le=5000, description="the commonest words, which pull all later ones")
    noise: int = Field(20, ge=1, le=1000, description="words that each true one must be told from")
    ridge: float = Field(
        0.1, ge=0, le=1000, description="half the inverse variance of longer n-grams' and triggers' weights"
    )
    language_epochs: int = Field(4, ge=1, le=10_000, description="at most so many times through the sentences")
    language_learning_rate: float = Field(0.05, gt=0, le=10, description="the greatest, see `schedule`")
    batch_words: int = Field(2048, ge=1, description="words a step")
    sentences: str = Field("", description="a text file of sentences without photos, for the language model alone")

    # similarity and ranking
    similarity: str = Field(
        "", description="a file from carousel train --task similarity; else such a model is trained"
    )
    similarity_epochs: int = Field(8, ge=1, le=10_000, description="at most so many times through the captions")
    similarity_size: int = Field(300, ge=1, le=8192, description="of the space where photos and sentences meet")
    hallucination_cost: float = Field(
        0.5, ge=0, le=10, description="what naming an object that no reference names takes from CIDEr-D in ranking"
    )

    # the search
    beam: int = Field(50, ge=1, le=1000, description="sentences kept at each word of the search")
    candidates: int = Field(50, ge=1, le=1000, description="sentences handed to the ranking")
    cover: int = Field(6, ge=0, le=100, description="concepts a candidate should say; fewer where too few do")
    endings: int = Field(
        10, ge=1, le=100_000, description="a sentence may end where its end is among so many likeliest words"
    )

    def part(self, name: str) -> TrainingConfig:
        """The settings of one part's training: "concepts", "language" or "similarity"."""
        shared = self.model_dump(include=set(TrainingConfig.model_fields))
        if name == "similarity":
            own = SimilarityConfig.model_fields.keys() - {"epochs", "learning_rate", "patience", "weight_decay"}
            kept = {field: shared[field] for field in shared.keys() & own}
            return SimilarityConfig(
                **kept, epochs=self.similarity_epochs, size=self.similarity_size, trigram_size=128, maps=300
            )
        begins = {"concepts": "detector", "language": "language"}[name]
        return TrainingConfig(**shared).model_copy(
            update={field: getattr(self, f"{begins}_{field}") for field in ("epochs", "learning_rate")}
        )
