"""What an application is to the command line, to the report and to `carousel.train`: its `Task`.

A task is a file in this folder, read from top to bottom: its settings, its data, what is trained, its baselines, the
trained model. The last line makes a `Task` of it, and `TASKS` makes it known. docs/tasks.md shows how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from carousel.data.captions import Split
from carousel.data.tables import NAMES, Table, open_table
from carousel.errors import ConfigError, DataError
from carousel.metrics.score import Score
from carousel.reports.section import Section
from carousel.training import RunFolder, Trainable, TrainingConfig
from carousel.training.names import nearest
from carousel.training.progress import LiveProgress

if TYPE_CHECKING:
    from carousel.tasks.inspection import Inspect


@dataclass(frozen=True)
class Source:
    """The data as the user named it; nothing is read before it is asked for."""

    path: Path
    val: Path | None = None  # files with the rows of these splits
    test: Path | None = None
    images: Path | None = None  # the folder of photos
    lists: Mapping[Split, str | Path] = field(default_factory=dict)  # photo names by split

    @cached_property
    def table(self) -> Table:
        """The rows, see `open_table`; raises what that does."""
        return open_table(self.path, self.val, self.test)


class Evaluation(NamedTuple):
    """How good a model is."""

    about: str  # of what, such as "200 rows of the test split"
    scores: Sequence[Score]  # the first is the one that counts
    sections: Sequence[Section] = ()  # for the page


class Learner(Trainable, Protocol):
    """What `carousel.training.fit` trains, with what it is compared to."""

    config: Any  # the settings, with what was left open settled
    objective: str  # which of what `validate` returns is to be as great as possible

    def summary(self) -> str:
        """What is trained on what; the plan, in a few lines."""

    def digest(self) -> str:
        """Names the data, so that a run is not resumed on other data."""

    def baselines(self) -> Mapping[str, Score]:
        """The main score of what is simpler, on the examples that `evaluate` takes; {} for none."""

    def evaluate(self, model: Any) -> Evaluation:
        """The trained model on the test split."""


class Model(Protocol):
    """What comes out: one file, that predicts."""

    config: Any
    facts: Mapping[str, Any]  # of the file: validation scores and others

    def predict(self, inputs: Sequence[str]) -> Sequence[Prediction]:
        """One prediction for each input."""

    def input_column(self, table: Table) -> str:
        """The column with what `predict` takes."""

    def evaluate(self, source: Source, split: Split, live: LiveProgress) -> Evaluation:
        """Scores on one split of some data. Raises `DataError` where that is empty."""


class Prediction(Protocol):
    """What a model says of one input; `str` of it is its line in a terminal."""

    def as_json(self) -> dict[str, Any]:
        """As ``carousel predict --json`` prints it."""


class Recognise(Protocol):
    def __call__(self, source: Source) -> str | None:
        """Why this data is for the task, in some words, or None: "column 'review' is text, 'stars' has 5 labels"."""


class MakeLearner(Protocol):
    def __call__(
        self, source: Source, config: Any, file: Path, live: LiveProgress, start_from: Path | None = None
    ) -> Learner:
        """Read the data and build what is trained, whose `save` writes to `file`; `start_from` is a model file."""


class Train(Protocol):
    def __call__(
        self, source: Source, config: Any, folder: RunFolder, live: LiveProgress, *, resume: bool = False
    ) -> Any:
        """Read the data, train, leave everything in the folder, and return the `Model`."""


class Load(Protocol):
    def __call__(self, path: str | Path) -> Any:
        """The `Model` in a file. Raises `ModelFileError`."""


@dataclass(frozen=True)
class Task:
    """An application."""

    name: str
    about: str  # in a few words
    config: type[TrainingConfig]
    recognise: Recognise
    learner: MakeLearner | None  # None where `train` does it all
    load: Load
    train: Train | None = None  # of a model whose parts are trained one after another
    inspection: Inspect | None = None  # what `carousel inspect` shows of its models


def _captioning() -> Task:
    from carousel.tasks import captioning

    return captioning.TASK


def _similarity() -> Task:
    from carousel.tasks import similarity

    return similarity.TASK


def _compose() -> Task:
    from carousel.tasks import compose

    return compose.TASK


def _translate() -> Task:
    from carousel.tasks import translate

    return translate.TASK


def _dialog() -> Task:
    from carousel.tasks import dialog

    return dialog.TASK


def _language() -> Task:
    from carousel.tasks import language

    return language.TASK


def _music() -> Task:
    from carousel.tasks import music

    return music.TASK


def _classify() -> Task:
    from carousel.tasks import classify

    return classify.TASK


def _tag() -> Task:
    from carousel.tasks import tag

    return tag.TASK


# Every task, loaded when it is asked for. What comes first is asked first whether some data is for it.
TASKS: Mapping[str, Callable[[], Task]] = {
    "captioning": _captioning,
    "compose": _compose,
    "similarity": _similarity,
    "music": _music,
    "tag": _tag,
    "translate": _translate,
    "dialog": _dialog,
    "language": _language,
    "classify": _classify,
}


def task_named(name: str) -> Task:
    """The task of that name. Raises `ConfigError` with the nearest.

    >>> task_named("classify").name
    'classify'
    """
    return TASKS[nearest("task", name, TASKS)]()


def task_for(source: Source) -> tuple[Task, str]:
    """The first task that recognises the data, and why. Raises `DataError` where none does."""
    for name in TASKS:
        task = task_named(name)
        if (why := task.recognise(source)) is not None:
            others = " | ".join(other for other in TASKS if other != name)
            return task, f"{source.path}: {why}: task {name} (another: --task {others})"
    table = source.table
    raise DataError(
        f"{source.path}: for no task (got {NAMES[table.kind]} with {', '.join(table.columns)}); {', '.join(TASKS)}; "
        "name one with --task"
    )


def model_path(run: str | Path) -> Path:
    """The model file of a run folder, or the file itself. Raises `ConfigError` where a folder has none."""
    path = Path(run)
    if not path.is_dir():
        return path
    file = path / "model.safetensors"
    if not file.exists():
        raise ConfigError(f"{path}: no run (got no {file.name}); the folder of a run, or a model file; check it")
    return file
