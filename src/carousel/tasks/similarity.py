"""Which sentence fits a photo: the similarity model from captioned photos, and retrieval both ways.

`carousel train CAPTIONS --images DIR --task similarity`. The model is in `carousel.captioning.dmsm`, its training in
`carousel.captioning.similarity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from carousel.captioning import PhotoEncoder
from carousel.captioning.dmsm import DMSM, SimilarityConfig
from carousel.captioning.photo_encoder import pooled
from carousel.captioning.pictures import load_pictures, training_set
from carousel.captioning.similarity import TASK as NAME
from carousel.captioning.similarity import Captioned, SimilarityTask, cosines
from carousel.captioning.similarity import load as load_network
from carousel.data.captions import CaptionedPhoto, Split, read_captions
from carousel.errors import ConfigError, DataError
from carousel.metrics.retrieval import first_right_ranks
from carousel.metrics.score import Score
from carousel.tasks.task import Evaluation, Source, Task
from carousel.training.model_file import begin_with
from carousel.training.progress import LiveProgress


class Similarity(SimilarityTask):
    """What is trained; see `carousel.tasks.task.Learner`."""

    def baselines(self) -> dict[str, Score]:
        return {}

    def evaluate(self, model: Matcher) -> Evaluation:
        """On the validation photos; `carousel evaluate` takes any."""
        return judged(model.network, self.val, "validation photos")


class Matcher:
    """A trained similarity model with the encoder that its photos are seen by."""

    def __init__(self, network: DMSM) -> None:
        self.network, self.config, self.facts = network, network.config, dict[str, Any]()

    def evaluate(self, source: Source, split: Split, live: LiveProgress) -> Evaluation:
        """Retrieval among the photos of one split. Raises `DataError` where that is empty."""
        folder = _folder(source)
        photos = read_captions(source.path, photos=folder, lists=source.lists or None).part(split)
        if not photos:
            raise DataError(f"{source.path}: no photos in the {split} split (got 0); one that has photos; see --split")
        return judged(self.network, _seen(photos, folder, live), f"{split} photos")


def judged(network: DMSM, found: Captioned, what: str) -> Evaluation:
    """R@1 and R@10 of the captions of a photo and of the photo of a caption, and the median ranks."""
    scores = cosines(network, found)
    right = torch.arange(len(scores))[:, None] == torch.tensor([photo for photo, _ in found.pairs])
    ways = {"caption for a photo": (scores, right), "photo for a caption": (scores.T, right.T)}
    ranks = {way: first_right_ranks(s.numpy(), r.numpy()) for way, (s, r) in ways.items()}
    medians = ", ".join(f"{way} {np.median(rank):g}" for way, rank in ranks.items())
    recalls = [
        Score.mean(f"{way}: R@{k} in %", 100.0 * (rank <= k).astype(np.float64))
        for way, rank in ranks.items()
        for k in (1, 10)
    ]
    return Evaluation(f"{len(scores)} {what}, {scores.shape[1]} captions; median rank: {medians}", recalls)


def recognise(source: Source) -> None:
    """Never: captions with photos are for captioning, unless --task says otherwise."""


def learner(
    source: Source, config: SimilarityConfig, file: Path, live: LiveProgress, start_from: Path | None = None
) -> Similarity:
    """What is trained, when all photos have been looked at."""
    folder = _folder(source)
    found = training_set(source.path, folder, lists=source.lists or None, seed=config.seed, tell=live.tell)
    made = Similarity(config, _seen(found.part("train"), folder, live), _seen(found.part("val"), folder, live), file)
    if start_from:
        begin_with(made.model, load(start_from).network)
    return made


def load(path: str | Path) -> Matcher:
    """Read a similarity model. Raises `ModelFileError`."""
    return Matcher(load_network(path))


def _folder(source: Source) -> Path:
    if source.images is None:
        raise ConfigError("images: no photos are named (got captions alone); their folder; name it with --images")
    return source.images


def _seen(photos: Sequence[CaptionedPhoto], folder: Path, live: LiveProgress) -> Captioned:
    seen = load_pictures(photos, folder, PhotoEncoder(), mirror=False, live=live)
    return Captioned(pooled(seen.lower), seen.captions)


TASK = Task(NAME, "which sentence fits a photo", SimilarityConfig, recognise, learner, load)
