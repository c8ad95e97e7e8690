"""The verbs, for every task: train, evaluate, predict, generate, load."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from carousel.data.captions import Split
from carousel.errors import ConfigError
from carousel.metrics.score import Score
from carousel.reports.training import write_training_report
from carousel.tasks.task import Evaluation, Learner, Model, Source, Task, model_path, task_for, task_named
from carousel.training import RunFolder, autocast, fit, model_task, recurrences_compiled, write_atomically
from carousel.training.lr_find import lr_find as range_test
from carousel.training.progress import LiveProgress
from carousel.training.settings import read_settings


def train(
    data: str | Path,
    images: str | Path | None = None,
    *,
    task: str | None = None,
    run: str | Path | None = None,
    val: str | Path | None = None,
    test: str | Path | None = None,
    lists: Mapping[Split, str | Path] | None = None,
    config: Any = None,
    resume: bool = False,
    start_from: str | Path | None = None,
    lr_find: bool = False,
    progress: LiveProgress | None = None,
    **settings: Any,
) -> Any:
    """Train on a file or folder; the best model is returned, and stands in the run folder.

    Args:
        data: anything that `carousel.data.tables.open_table` reads, or a file of captions.
        images: the folder of the captions' photos.
        task: a name in `carousel.tasks.task.TASKS`; by default that which the data is for.
        run: the folder to write; by default named after the data, in ``runs``; see `RunFolder`.
        val, test: files with the rows of these splits.
        lists: a text file of photo names for each split, where captions do not say.
        config: every setting, of the task's own class.
        resume: go on with the run in that folder.
        start_from: a model file to begin with.
        lr_find: look for a learning rate first, see `carousel.training.lr_find`, and train with that; leaves
            lr-find.png in the run folder.
        settings: single settings, by name: ``epochs=3, cell="gru"``.

    Raises `UserError`s for what is wrong with the input, before training begins, and `Interrupted` and
    `TrainingDiverged` as `fit` says.
    """
    source = Source(Path(data), _path(val), _path(test), _path(images), dict(lists or {}))
    with progress or LiveProgress() as live:
        chosen, why = (task_named(task), None) if task else task_for(source)
        if why:
            live.tell(why)
        settled = config or read_settings(chosen.config, values=settings)
        folder = RunFolder(run or Path("runs") / f"{Path(data).name.partition('.')[0]}-{chosen.name}")
        return train_task(
            chosen, source, settled, folder, live, resume=resume, start_from=_path(start_from), lr_find=lr_find
        )


def train_task(
    task: Task,
    source: Source,
    config: Any,
    folder: RunFolder,
    live: LiveProgress,
    *,
    resume: bool = False,
    start_from: Path | None = None,
    lr_find: bool = False,
) -> Any:
    """`train`, when everything is settled."""
    if task.train is not None:
        if start_from is not None or lr_find:
            wish = "--from" if start_from is not None else "--lr-find"
            raise ConfigError(f"{wish}: not of a model made of parts (got task {task.name}); leave it out")
        return task.train(source, config, folder, live, resume=resume)
    assert task.learner is not None
    folder.check(resume=resume)
    learner = task.learner(source, config, folder.model, live, start_from)
    live.tell(learner.summary())
    if lr_find:
        rate = found_rate(learner, folder, live, resume=resume)
        learner.config = learner.config.model_copy(update={"learning_rate": rate})
    config = learner.config
    baselines = learner.baselines()
    for name, score in baselines.items():
        live.tell(f"{name}: {score}")
    plan = config.plan(learner.objective, file=source.path.name, data=learner.digest())
    history = fit(learner, plan, folder, live, resume=resume)
    best = max(history, key=lambda record: record[learner.objective])
    model = task.load(folder.model)
    found = learner.evaluate(model)
    judged = verdict(found, baselines)
    for line in judged:
        live.tell(line)
    write_training_report(
        folder.report,
        title=f"Training of {folder.path.name}",
        about="\n".join(
            [
                f"{task.about[0].upper()}{task.about[1:]}, on {source.path.name}.",
                *judged[len(found.scores) :],
                learner.summary(),
            ]
        ),
        config=config.model_dump(),
        epochs=history,
        scores=_table(found, baselines, best),
        best_epoch=int(best["epoch"]),
        sections=found.sections,
    )
    return model


def verdict(found: Evaluation, baselines: Mapping[str, Score]) -> list[str]:
    """The scores, and whether they are better than the baselines', in lines."""
    lines = [f"{found.about}: {score}" for score in found.scores]
    for name, score in baselines.items():
        better = found.scores[0].better_than(score)
        words = {True: "better than", False: "WORSE than", None: "no different from"}[better]
        difference = found.scores[0].minus(score)
        lines.append(f"{words} {name} ({difference.value:+.2f}, 95% {difference.low:+.2f} .. {difference.high:+.2f})")
    return lines


def _table(found: Evaluation, baselines: Mapping[str, Score], best: Mapping[str, float]) -> dict[str, Any]:
    rows: dict[str, Any] = {f"{score.name}, {found.about}": tuple(score.estimate) for score in found.scores}
    rows |= {f"{score.name}, {name}": tuple(score.estimate) for name, score in baselines.items()}
    of_training = ("epoch", "loss", "clipped", "seconds")
    own = {name.removeprefix("validation_"): value for name, value in best.items() if name not in of_training}
    return rows | {f"validation {name}": value for name, value in own.items()}


def found_rate(learner: Learner, folder: RunFolder, live: LiveProgress, *, resume: bool) -> float:
    """The learning rate that a range test suggests; that which the run began with, to resume it."""
    if resume:
        return float(tomllib.loads(folder.config.read_text(encoding="utf-8"))["learning_rate"])
    config = learner.config

    def loss(step: int) -> Tensor:
        mode = config.mixed_precision
        with recurrences_compiled(learner.model, mode), autocast(mode):
            return learner.loss(0, step % learner.steps).mean

    live.tell("looking for a learning rate")
    test = range_test(
        learner.model,
        loss,
        optimiser=config.optimiser,
        clip=config.clip_norm if config.clipping == "norm" else None,
        groups=learner.parameter_groups(),
        seed=config.seed,
    )
    picture = folder.path / "lr-find.png"
    write_atomically(picture, test.png())
    live.tell(f"{picture}: the loss is least about {10 * test.suggestion:.2g}; training with {test.suggestion:.2g}")
    return float(f"{test.suggestion:.3g}")


def load(run: str | Path) -> Any:
    """The model of a run folder or of a model file, whatever its task. Raises `ModelFileError` and `ConfigError`."""
    path = model_path(run)
    return task_named(model_task(path)).load(path)


def evaluate(
    data: str | Path,
    images: str | Path | None = None,
    *,
    model: str | Path | Model | None = None,
    split: Split = "test",
    progress: LiveProgress | None = None,
    **options: Any,
) -> Any:
    """How good a model is on one split of some data.

    Of a captioner see `carousel.tasks.captioning.evaluate`, which takes `options`; for captions with photos the model
    is by default the one that ships. Of all others an `Evaluation`.
    """
    if images is not None:
        from carousel.tasks import captioning  # which imports this module

        if isinstance(model, str | Path) and model_task(model_path(model)) == "similarity":
            source = Source(Path(data), images=Path(images), lists=options.get("lists") or {})
            with progress or LiveProgress() as live:
                return load(model).evaluate(source, split, live)
        if model is not None:
            options["model"] = model_path(model) if isinstance(model, str | Path) else model
        return captioning.evaluate(data, images, split=split, progress=progress, **options)
    if model is None:
        raise ConfigError("model: none is named (got none); a run folder or a model file; name it with --model")
    loaded = load(model) if isinstance(model, str | Path) else model
    if not hasattr(loaded, "evaluate"):
        raise ConfigError("images: no photos are named (got captions alone); their folder; name it with --images")
    with progress or LiveProgress() as live:
        return loaded.evaluate(Source(Path(data)), split, live)


def predict(model: str | Path, inputs: str | Sequence[str]) -> Any:
    """What a model says of a text, or of several."""
    found = load(model).predict([inputs] if isinstance(inputs, str) else inputs)
    return found[0] if isinstance(inputs, str) else found


def generate(model: str | Path, prompt: str = "", **options: Any) -> str:
    """What a language model writes after the prompt, which comes first; see `LanguageModel.stream` for `options`."""
    text: str = load(model).generate(prompt, **options)
    return text


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
