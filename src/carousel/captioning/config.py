"""Every choice of a captioner, with a default for each; kept in the model file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from carousel.cells.initialisation import INITIALISATIONS
from carousel.training import TrainingConfig

ImageAt = Literal["init", "pre", "par", "merge"]
DecoderName = Literal["nic", "attend", "adaptive"]


class CaptioningConfig(TrainingConfig):
    """The model, its training and how it is validated; the rest of its settings are those of all training."""

    # the model
    decoder: DecoderName = Field("nic", description="see carousel.captioning: NIC, Attend, Adaptive")
    image_at: ImageAt = Field("pre", description="where the photo enters the decoder; see carousel.captioning.NIC")
    predict_start: bool = Field(False, description="score the image step's output against <start> (image_at = pre)")
    cell: str = Field("lstm", description="the recurrence, by name")
    layers: int = Field(1, ge=1, le=8, description="of the recurrence, one above the other")
    hidden_size: int = Field(512, ge=1, le=8192, description="of the recurrence")
    embedding_size: int = Field(512, ge=1, le=8192, description="of the word vectors")
    attention_size: int = Field(128, ge=1, le=8192, description="of what scores a place of the photo; not of nic")
    tied: bool = Field(False, description="the output layer shares the word embedding's weights")
    min_count: int = Field(5, ge=1, description="words rarer than this in the training captions become <unk>")
    max_length: int = Field(18, ge=1, le=200, description="longest caption, in words; longer ones are cut for training")

    # what it sees
    finetune_from: int = Field(
        16, ge=0, le=16, description="blocks of the encoder from this on, 0 to 11, are trained; 16: none"
    )
    flips: bool = Field(True, description="train on mirrored photos too")

    initialisation: str = Field("default", description="of the recurrent weights: " + ", ".join(INITIALISATIONS))

    # regularisation
    dropout: float = Field(0.3, ge=0, lt=1, description="on word and image embeddings and on the decoder's outputs")
    feature_dropout: float = Field(0.2, ge=0, lt=1, description="on the image features")
    word_dropout: float = Field(0.0, ge=0, lt=1, description="the share of input words replaced by <unk> in training")
    doubly_stochastic: float = Field(1.0, ge=0, le=100, description="weight of attend's second sum over the places")
    label_smoothing: float = Field(0.05, ge=0, lt=1, description="the share of the target that all words get")
    scheduled_sampling: float = Field(0.0, ge=0, le=1, description="the last epoch's share of sampled input words")

    # training
    loss: Literal["likelihood", "self-critical"] = Field(
        "likelihood", description="self-critical: the CIDEr-D of sampled captions, to go on from a trained model"
    )
    samples: int = Field(5, ge=2, le=100, description="captions of each photo that are scored when it is self-critical")
    candidates: Literal["beam", "samples"] = Field("samples", description="these captions: drawn, or those of a beam")
    temperature: float = Field(0.5, gt=0, le=10, description="what logits are divided by where they are drawn")
    object_penalty: float = Field(0.0, ge=0, le=10, description="reward lost by an object that no caption names")
    likelihood_share: float = Field(0.0, ge=0, le=1, description="of a self-critical loss that the likelihood has")
    teacher: str = Field("", description="a captioner's file, such as an ensemble's: its probabilities are learned too")
    teacher_share: float = Field(0.5, ge=0, le=1, description="of the loss that the teacher's probabilities have")
    epochs: int = Field(9, ge=1, le=10_000, description="at most so many times through the photos")
    batch_photos: int = Field(12, ge=1, le=4096, description="photos a step; all captions of a photo go together")
    encoder_learning_rate: float = Field(1e-4, gt=0, le=10, description="for the encoder's blocks that are trained")
    patience: int = Field(5, ge=1, description="stop after this many epochs without a better validation CIDEr")

    # decoding, as validated and as the default of the model
    beam: int = Field(3, ge=1, le=100, description="sentences kept at each word of the search")
    length_normalisation: float = Field(0.0, ge=0, le=2, description="divide log-probabilities by length to this power")

    @field_validator("image_at")
    @classmethod
    def _is_read_before(cls, at: ImageAt, others: ValidationInfo) -> ImageAt:
        decoder = others.data.get("decoder")
        if at == "merge" and decoder != "nic":
            raise ValueError(f"init, pre or par with decoder = {decoder}, which looks after the recurrence itself")
        return at

    @field_validator("predict_start")
    @classmethod
    def _has_an_image_step(cls, wanted: bool, others: ValidationInfo) -> bool:
        if wanted and (others.data.get("image_at"), others.data.get("decoder")) != ("pre", "nic"):
            raise ValueError("only with image_at = pre, decoder = nic")
        return wanted

    @field_validator("teacher")
    @classmethod
    def _teaches_likelihood(cls, teacher: str, others: ValidationInfo) -> str:
        if teacher and others.data.get("loss") == "self-critical":
            raise ValueError("none with loss = self-critical, which learns from scores")
        return teacher

    @field_validator("finetune_from")
    @classmethod
    def _keeps_early_features(cls, block: int) -> int:
        if 11 < block < 16:
            raise ValueError("0 to 11, or 16 for none")
        return block
