"""Captions by the other school: parts trained one after another, each for itself, in one file.

Read from top to bottom: `train`, then the parts in their order: concepts, language model, similarity, ranking. The
models are in `carousel.captioning`: `concepts`, `melm`, `dmsm`, `ranking`, joined by `pipeline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from carousel import __version__
from carousel.captioning.compose_config import ComposeConfig
from carousel.captioning.compose_training import (
    ConceptTask,
    Corpus,
    LanguageTask,
    borrowed,
    chances,
    digest,
    encoded,
)
from carousel.captioning.concepts import Concepts, commonest_words, mentions, thresholds
from carousel.captioning.dmsm import DMSM, SimilarityConfig
from carousel.captioning.melm import MaxEntModel, evidence
from carousel.captioning.photo_encoder import Looked, PhotoEncoder
from carousel.captioning.pictures import Pictures, load_pictures, training_set
from carousel.captioning.pipeline import Pipeline
from carousel.captioning.ranking import FEATURES, best, tuned
from carousel.captioning.similarity import Captioned, SimilarityTask
from carousel.captioning.similarity import load as load_similarity
from carousel.data.text_file import read_text
from carousel.data.vocabulary import Vocabulary, caption_words
from carousel.errors import ConfigError, DataError
from carousel.metrics import CiderD
from carousel.metrics.chair import hallucinated_objects
from carousel.metrics.diversity import sentence_hashes
from carousel.metrics.words import normalise
from carousel.reports.training import write_training_report
from carousel.tasks.task import Source, Task
from carousel.training import RunFolder, Trainable, fit, write_atomically
from carousel.training.progress import LiveProgress
from carousel.training.run_folder import toml


def recognise(source: Source) -> str | None:
    """Captions with photos are for the encoder-decoder; this school is asked for by name."""
    return None


class _Run(NamedTuple):
    """One training of all parts."""

    config: ComposeConfig
    folder: RunFolder
    live: LiveProgress
    data: str
    resume: bool

    def fit(self, name: str, kind: str, task: Any) -> list[dict[str, float]]:
        """Train a part, or go on with it, or find it trained; its settings are those of the `kind`."""
        part = self.place(name)
        self.live.tell(f"{name}")
        plan = self.config.part(kind).plan(task.objective, data=self.data, whole=self.config.model_dump())
        return fit(cast(Trainable, task), plan, part, self.live, resume=self.resume and part.checkpoint.exists())

    def place(self, name: str) -> RunFolder:
        """Where a part leaves its files."""
        return RunFolder(self.folder.path / "parts" / name)


def train(
    source: Source, config: ComposeConfig, folder: RunFolder, live: LiveProgress, *, resume: bool = False
) -> Pipeline:
    """Train the parts one after another; with `resume` those that are trained are kept.

    Raises `DataError`, `PhotoError`, `ConfigError` for what is wrong with the input, before training begins, and
    `Interrupted` and `TrainingDiverged` as `fit` says.
    """
    _check(source, folder, resume)
    assert source.images is not None
    found = training_set(source.path, source.images, lists=source.lists or None, seed=config.seed, tell=live.tell)
    more = _sentences(config.sentences)
    encoder = PhotoEncoder()
    seen = load_pictures(found.part("train"), source.images, encoder, mirror=config.flips, live=live, grid=True)
    held = load_pictures(found.part("val"), source.images, encoder, mirror=False, live=live, grid=True)
    write_atomically(folder.config, toml(config.model_dump()).encode())
    run = _Run(config, folder, live, digest(seen.files, seen.captions, held.captions, more), resume)
    words = commonest_words(seen.captions, config.concepts)
    detector, there, held_there = _concepts(run, words, seen, held)
    right = (mentions(held.captions, words) > 0).float()
    least = thresholds(held_there, right, config.precision)
    vocabulary, language, history = _language(run, words, seen, held, there, held_there, least, more)
    similarity = _similarity(run, seen, held)
    hashes = sentence_hashes(" ".join(w) for w in [*(c for photo in seen.captions for c in photo), *more])
    known = torch.tensor(sorted(hashes), dtype=torch.int64)
    weights = np.eye(len(FEATURES))[FEATURES.index("logprob")]
    facts = {"carousel": __version__, "trained_on": len(seen.files), "sentences_alone": len(more)}
    model = Pipeline(config, vocabulary, detector, least, language, similarity, weights, known, facts)
    scores = _ranking(model, held, live)
    model.save(folder.model, {"validation": scores})
    write_training_report(
        folder.report,
        title=f"Training of {folder.path.name}",
        about=f"A captioner made of parts, on {source.path.name}; the curves are those of its language model.",
        config=config.model_dump(),
        epochs=history,
        scores={f"validation {name}": value for name, value in scores.items()},
    )
    return Pipeline.load(folder.model)


def _check(source: Source, folder: RunFolder, resume: bool) -> None:
    if source.images is None:
        raise ConfigError("images: no photos are named (got captions alone); their folder; name it with --images")
    if resume and not folder.config.exists():
        raise ConfigError(f"{folder.path}: nothing to resume (got no run); a run that began; omit --resume")
    if not resume and folder.config.exists():
        raise ConfigError(f"{folder.path}: holds a run already; a new folder, or --resume; choose another with --run")


def _sentences(file: str) -> list[list[str]]:
    """Those of a text file, one a line."""
    if not file:
        return []
    found = [words for line in read_text(file).splitlines() if (words := caption_words(line))]
    if not found:
        raise DataError(f"{file}: no sentences (got 0 lines with words); one a line; add some")
    return found


def _concepts(run: _Run, words: Sequence[str], seen: Pictures, held: Pictures) -> tuple[Concepts, Tensor, Tensor]:
    """The detector, and log-chances of the training photos by detectors that have not seen them, and of those held."""
    config, count = run.config, len(seen.files)
    whole = ConceptTask(config, words, seen, held, run.place("concepts").model)
    run.fit("concepts", "concepts", whole)
    scores = whole.best()
    run.live.tell(f"concepts: mean average precision {scores['average_precision']:.1f}")
    if config.folds == 1:
        return whole.model, chances(whole.model, seen.lower).there, chances(whole.model, held.lower).there
    there = torch.zeros(count, len(words))
    for fold in range(min(config.folds, count)):
        apart = list(range(fold, count, config.folds))
        others = [photo for photo in range(count) if photo % config.folds != fold]
        name = f"concepts-without-{fold}"
        task = ConceptTask(config, words, seen, held, run.place(name).model, others)
        run.fit(name, "concepts", task)
        task.best()
        assert isinstance(seen.lower, Looked)
        there[apart] = chances(task.model, Looked(*(field[apart] for field in seen.lower))).there
    return whole.model, there, chances(whole.model, held.lower).there


def _language(
    run: _Run, words: Sequence[str], seen: Pictures, held: Pictures, there: Tensor, held_there: Tensor,
    least: Tensor, more: Sequence[Sequence[str]],
) -> tuple[Vocabulary, MaxEntModel, list[dict[str, float]]]:  # fmt: skip
    """The language model, on the captions and on sentences that have no photo."""
    config = run.config
    sentences = [words for photo in seen.captions for words in photo]
    vocabulary = Vocabulary.build([*sentences, *more], config.min_count)
    numbers = torch.tensor(vocabulary.encode(words))

    def corpus(pictures: Pictures, there: Tensor, alone: Sequence[Sequence[str]] = ()) -> Corpus:
        said = [words for photo in pictures.captions for words in photo]
        photo = torch.arange(len(pictures.captions)).repeat_interleave(torch.tensor([*map(len, pictures.captions)]))
        if alone:
            draw = torch.Generator().manual_seed(config.seed)
            there = torch.cat([there, borrowed(alone, pictures.captions, there, words, draw)])
            photo = torch.cat([photo, len(pictures.captions) + torch.arange(len(alone))])
        found = evidence(there, least, numbers, len(vocabulary))
        return Corpus(encoded(vocabulary, [*said, *alone], config.max_length), photo, found)

    task = LanguageTask(
        config, len(vocabulary), corpus(seen, there, more), corpus(held, held_there), run.place("language").model
    )
    history = run.fit("language", "language", task)
    run.live.tell(f"language model: perplexity {task.best()['perplexity']:.2f} of words given the concepts")
    return vocabulary, task.model, history


def _similarity(run: _Run, seen: Pictures, held: Pictures) -> DMSM:
    if run.config.similarity:
        return load_similarity(run.config.similarity)
    of_train, of_held = (Captioned(p.lower.pooled, p.captions) for p in (seen, held))  # type: ignore[union-attr]
    place = run.place("similarity")
    settings = cast(SimilarityConfig, run.config.part("similarity"))
    run.fit("similarity", "similarity", SimilarityTask(settings, of_train, of_held, place.model))
    return load_similarity(place.model)


def _ranking(model: Pipeline, held: Pictures, live: LiveProgress) -> dict[str, float]:
    """Tune the weights on the validation photos' candidates; what was reached."""
    assert isinstance(held.lower, Looked)
    lists, rows = model.choices(held.lower)
    references = [[normalise(" ".join(words)) for words in photo] for photo in held.captions]
    consensus = CiderD(references)
    ciders = [consensus.scores([one.text for one in some], [i] * len(some)) for i, some in enumerate(lists)]
    wrong = [
        np.array([bool(hallucinated_objects(one.text, references[i])) for one in some], dtype=np.float64)
        for i, some in enumerate(lists)
    ]
    cost = model.config.hallucination_cost
    model.weights = tuned(rows, [value - cost * bad for value, bad in zip(ciders, wrong, strict=True)], restarts=3)
    chosen = [best(features, model.weights) for features in rows]
    count = len(lists)
    scores = {
        "cider of the language model's first": sum(value[0] for value in ciders) / count,
        "cider": sum(value[k] for value, k in zip(ciders, chosen, strict=True)) / count,
        "cider of the best of each list": sum(value.max() for value in ciders) / count,
        "hallucinating captions": sum(bad[k] for bad, k in zip(wrong, chosen, strict=True)) / count,
    }
    for name, value in scores.items():
        live.tell(f"ranking, on the {count} validation photos it was tuned on: {name} {100 * value:.1f}")
    return {name: float(value) for name, value in scores.items()}


def _load(path: str | Path) -> Pipeline:
    return Pipeline.load(path)


TASK = Task("compose", "sentences about photos, by concepts, candidates and ranking", ComposeConfig, recognise, None,
            _load, train)  # fmt: skip
