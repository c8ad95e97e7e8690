"""The settings that all training shares, with a default for each."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from carousel.cells import cell_class
from carousel.cells.initialisation import INITIALISATIONS
from carousel.training.clipping import CLIPPINGS
from carousel.training.loop import Plan
from carousel.training.names import nearest
from carousel.training.optimisers import OPTIMISERS
from carousel.training.precision import MixedPrecision
from carousel.training.schedule import SCHEDULES

NAMED = {"optimiser": OPTIMISERS, "schedule": SCHEDULES, "clipping": CLIPPINGS, "initialisation": INITIALISATIONS}


class TrainingConfig(BaseModel):
    """How to train; a task's own settings are a subclass. Frozen; an unknown name or a value out of range is an error.

    >>> TrainingConfig(epochs=3).plan("accuracy", rows=100).epochs
    3
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(10, ge=1, le=10_000, description="at most so many times through the training data")
    learning_rate: float = Field(2e-3, gt=0, le=10, description="the greatest, see `schedule`")
    optimiser: str = Field("adamw", description="one of torch's, by name: " + ", ".join(OPTIMISERS))
    schedule: str = Field("one-cycle", description="of the learning rate: " + ", ".join(SCHEDULES))
    weight_decay: float = Field(0.0, ge=0, le=1, description="what is taken from each weight at a step, times the rate")
    clipping: str = Field("norm", description="of the gradient: " + ", ".join(CLIPPINGS))
    clip_norm: float = Field(5.0, gt=0, description="what the gradient's norm, or what `clipping` names, is cut to")
    averaging: float = Field(0.99, ge=0, lt=1, description="decay of the running average of the weights; 0: none")
    average_after: int = Field(
        0,
        ge=0,
        description="NT-ASGD: average since validation is worse than all but the last so many; 0: as `averaging`",
    )
    patience: int = Field(5, ge=1, description="stop after this many epochs without a better validation score")
    mixed_precision: MixedPrecision = Field("auto", description="bfloat16 products; auto: where they pay")
    seed: int = Field(0, ge=0, lt=2**31, description="of order, initial weights and dropout")

    @field_validator("optimiser", "schedule", "clipping", "initialisation", check_fields=False)
    @classmethod
    def _is_named(cls, name: str, field: ValidationInfo) -> str:
        return nearest(str(field.field_name), name, NAMED[str(field.field_name)])  # raises ConfigError

    @field_validator("cell", check_fields=False)
    @classmethod
    def _is_known(cls, name: str) -> str:
        cell_class(name)  # raises ConfigError with the nearest name
        return name

    def plan(self, objective: str, **data: Any) -> Plan:
        """What `fit` follows; the greatest `objective` wins, and `data` names the data, to resume on the same."""
        return Plan(
            objective=objective,
            settings=self.model_dump(),
            data=data,
            **{name: getattr(self, name) for name in Plan.__dataclass_fields__ if name in TrainingConfig.model_fields},
        )
