"""Training: the loop, its checkpoints, seeds and schedules, and the file that a model is kept in."""

from .auxiliary import Anchor, AuxiliaryLoss, truncated
from .averaging import TriggeredAverage, WeightAverage
from .bptt import BPTT
from .clipping import CLIPPINGS, ClippedSteps, clipping_named
from .config import TrainingConfig
from .loop import Loss, Plan, Progress, Trainable, Watcher, fit
from .memory import keep_freed_memory
from .model_file import model_task, read_model_file, write_atomically, write_model_file
from .optimisers import OPTIMISERS, optimiser_named
from .pieces import Columns, Piece, Streams
from .precision import autocast, bfloat16_pays, recurrences_compiled
from .run_folder import RunFolder
from .schedule import SCHEDULES, schedule_named
from .seeding import derived_seed, epoch_order, generator
from .vanishing import Watched, omega

__all__ = [
    "BPTT",
    "CLIPPINGS",
    "OPTIMISERS",
    "SCHEDULES",
    "Anchor",
    "AuxiliaryLoss",
    "ClippedSteps",
    "Columns",
    "Loss",
    "Piece",
    "Plan",
    "Progress",
    "RunFolder",
    "Streams",
    "Trainable",
    "TrainingConfig",
    "TriggeredAverage",
    "Watched",
    "Watcher",
    "WeightAverage",
    "autocast",
    "bfloat16_pays",
    "clipping_named",
    "derived_seed",
    "epoch_order",
    "fit",
    "generator",
    "keep_freed_memory",
    "model_task",
    "omega",
    "optimiser_named",
    "read_model_file",
    "recurrences_compiled",
    "schedule_named",
    "truncated",
    "write_atomically",
    "write_model_file",
]
