"""Training: the loop, its checkpoints, seeds and schedules, and the file that a model is kept in."""

from .averaging import WeightAverage
from .bptt import BPTT
from .loop import Loss, Plan, Progress, Trainable, Watcher, fit
from .model_file import model_task, read_model_file, write_atomically, write_model_file
from .pieces import Columns, Piece, Streams
from .precision import autocast, bfloat16_pays
from .run_folder import RunFolder
from .seeding import derived_seed, epoch_order, generator

__all__ = [
    "BPTT",
    "Columns",
    "Loss",
    "Piece",
    "Plan",
    "Progress",
    "RunFolder",
    "Streams",
    "Trainable",
    "Watcher",
    "WeightAverage",
    "autocast",
    "bfloat16_pays",
    "derived_seed",
    "epoch_order",
    "fit",
    "generator",
    "model_task",
    "read_model_file",
    "write_atomically",
    "write_model_file",
]
