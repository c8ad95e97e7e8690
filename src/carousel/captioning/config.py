"""Every choice of a captioner, with a default for each; kept in the model file."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from carousel.cells import cell_class
from carousel.cells.initialisation import INITIALISATIONS
from carousel.training import CLIPPINGS, OPTIMISERS, SCHEDULES
from carousel.training.names import nearest

ImageAt = Literal["init", "pre", "par", "merge"]


class CaptioningConfig(BaseModel):
    """The model, its training and how it is validated. Frozen; an unknown name or a value out of range is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # the model
    image_at: ImageAt = Field("pre", description="where the photo enters the decoder; see carousel.captioning.NIC")
    predict_start: bool = Field(False, description="score the image step's output against <start> (image_at = pre)")
    cell: str = Field("lstm", description="the recurrence, by name")
    layers: int = Field(1, ge=1, le=8)
    hidden_size: int = Field(512, ge=1, le=8192)
    embedding_size: int = Field(512, ge=1, le=8192)
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
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    scheduled_sampling: float = Field(0.0, ge=0, le=1, description="the last epoch's share of sampled input words")

    # training
    loss: Literal["likelihood", "self-critical"] = Field(
        "likelihood", description="self-critical: the CIDEr-D of sampled captions, to go on from a trained model"
    )
    samples: int = Field(5, ge=2, le=100, description="captions drawn for each photo when the loss is self-critical")
    epochs: int = Field(9, ge=1, le=10_000)
    batch_photos: int = Field(12, ge=1, le=4096, description="photos a step; all captions of a photo go together")
    learning_rate: float = Field(2e-3, gt=0, le=10)
    encoder_learning_rate: float = Field(1e-4, gt=0, le=10, description="for the encoder's blocks that are trained")
    optimiser: str = Field("adamw", description="one of torch's, by name: " + ", ".join(OPTIMISERS))
    schedule: str = Field("one-cycle", description="of the learning rate: " + ", ".join(SCHEDULES))
    weight_decay: float = Field(0.0, ge=0, le=1)
    clipping: str = Field("norm", description="of the gradient: " + ", ".join(CLIPPINGS))
    clip_norm: float = Field(5.0, gt=0, description="what the gradient's norm, or what `clipping` names, is cut to")
    averaging: float = Field(0.99, ge=0, lt=1, description="decay of the running average of the weights; 0: none")
    average_after: int = Field(
        0,
        ge=0,
        description="NT-ASGD: average since validation is worse than all but the last so many; 0: as `averaging`",
    )
    patience: int = Field(5, ge=1, description="stop after this many epochs without a better validation CIDEr")
    mixed_precision: Literal["auto", "on", "off"] = "auto"
    seed: int = Field(0, ge=0, lt=2**31)

    # decoding, as validated and as the default of the model
    beam: int = Field(3, ge=1, le=100)
    length_normalisation: float = Field(0.0, ge=0, le=2)

    @field_validator("predict_start")
    @classmethod
    def _has_an_image_step(cls, wanted: bool, others: ValidationInfo) -> bool:
        if wanted and others.data.get("image_at") != "pre":
            raise ValueError("only with image_at = pre")
        return wanted

    @field_validator("finetune_from")
    @classmethod
    def _keeps_early_features(cls, block: int) -> int:
        if 11 < block < 16:
            raise ValueError("0 to 11, or 16 for none")
        return block

    @field_validator("optimiser", "schedule", "clipping", "initialisation")
    @classmethod
    def _is_named(cls, name: str, field: ValidationInfo) -> str:
        named = {
            "optimiser": OPTIMISERS,
            "schedule": SCHEDULES,
            "clipping": CLIPPINGS,
            "initialisation": INITIALISATIONS,
        }
        return nearest(str(field.field_name), name, named[str(field.field_name)])  # raises ConfigError

    @field_validator("cell")
    @classmethod
    def _is_known(cls, name: str) -> str:
        cell_class(name)  # raises ConfigError with the nearest name
        return name
