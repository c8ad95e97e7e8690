"""Everything Carousel raises on purpose, with the exit code the command line gives it.

    CarouselError                 1   a run failed
    ├── TrainingDiverged          1   a loss or gradient was not finite
    ├── CheckFailed               1   a cell is not what cells are; an AssertionError too
    ├── Interrupted             130   Ctrl-C; the last checkpoint is written
    └── UserError                 2   something the user can mend; nothing was written
        ├── ConfigError           2   an option or a configuration file
        ├── DataError             2   captions, tables, lists
        ├── PhotoError            2   a picture that cannot be read
        └── ModelFileError        2   a model or checkpoint file

The message of a `UserError` is one line: ``PLACE: what is wrong (got VALUE); what is allowed; what to do``.
"""

from __future__ import annotations


class CarouselError(Exception):
    """Base of every error that Carousel raises on purpose."""

    exit_code = 1


class TrainingDiverged(CarouselError):
    """A loss or a gradient stopped being finite; the last good checkpoint is kept."""


class CheckFailed(CarouselError, AssertionError):
    """A property that `carousel.check_cell` looks for does not hold."""


class Interrupted(CarouselError):
    """Training was stopped by the user after writing a checkpoint."""

    exit_code = 130


class UserError(CarouselError):
    """Something the user can mend."""

    exit_code = 2


class ConfigError(UserError):
    """An option or configuration value is not allowed."""


class DataError(UserError):
    """A data file is missing, malformed or empty."""


class PhotoError(UserError):
    """A picture cannot be read or is not acceptable."""


class ModelFileError(UserError):
    """A model or checkpoint file is damaged, foreign or too new."""
