"""A captioner learns to judge its own sentences: which to choose, and how sure to be of it.

Read from top to bottom: what comes out, `calibrate`, its parts. Ranking is in `carousel.captioning.ranking`, the
probability in `carousel.captioning.confidence`, both together in `carousel.captioning.judge`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carousel.captioning import Captioner, Decoding
from carousel.captioning.candidates import Candidate, candidates_of
from carousel.captioning.dmsm import DMSM, SimilarityConfig
from carousel.captioning.judge import Judge, features_of
from carousel.captioning.photo_encoder import Looked, Seen, pooled, rows
from carousel.captioning.pictures import Pictures, load_pictures, training_set
from carousel.captioning.pipeline import Pipeline
from carousel.captioning.schools import load_captioner
from carousel.captioning.similarity import Captioned, SimilarityTask
from carousel.captioning.similarity import load as load_similarity
from carousel.data.captions import Split
from carousel.metrics.calibration import Refused, auroc, calibration_error, refusing
from carousel.metrics.words import normalise
from carousel.training import RunFolder, fit
from carousel.training.progress import LiveProgress

BATCH = 64


class Calibrated(NamedTuple):
    """The captioner that can judge, and how well it does on validation photos that it was not tuned on."""

    captioner: Captioner | Pipeline
    auroc: float
    calibration_error: float
    refused: Refused

    def __str__(self) -> str:
        before, after = 100 * self.refused.wrong_before, 100 * self.refused.wrong_after
        return (
            f"validation photos left out in turn: AUROC {self.auroc:.3f}, calibration error "
            f"{self.calibration_error:.3f}; without the least sure fifth {after:.1f}% of the captions are bad, and "
            f"{before:.1f}% of all"
        )


def calibrate(
    model: str | Path,
    captions: str | Path,
    images: str | Path,
    *,
    lists: Mapping[Split, str | Path] | None = None,
    beam: int | None = None,
    refuse: float = 0.2,
    similarity: bool = True,
    run: str | Path = "runs/similarity",
    resume: bool = False,
    config: SimilarityConfig | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    progress: LiveProgress | None = None,
) -> Calibrated:
    """Teach a captioner to rank its candidates and to say how sure it is, and write it to its file again.

    Args:
        model: a captioner's file, of any school.
        captions, images: captioned photos; the training photos for the similarity model, those for validation for all
            else.
        lists: a text file of photo names for each split, where the captions do not say.
        beam: how many candidates to look at, those of a beam of this width; by default 20, and of a captioner made of
            parts as many as it looks at.
        refuse: the share of the validation photos' captions, the least sure, that would become hedges.
        similarity: whether to train a similarity model (see `carousel.captioning.dmsm`), in `run`, and use it; a
            captioner made of parts has its own.
        resume: go on with that run.
        config: the similarity model's settings.
        output: another file to write.

    Raises `DataError`, `PhotoError`, `ConfigError` for what is wrong with the input, and what `fit` does.
    """
    captioner, folder = load_captioner(model), Path(images)
    with progress or LiveProgress() as live:
        found = training_set(captions, folder, lists=lists or None, seed=seed, tell=live.tell)

        def look(split: Split) -> Pictures:
            grid = isinstance(captioner, Pipeline) or captioner.config.decoder != "nic"
            return load_pictures(found.part(split), folder, captioner.encoder, mirror=False, live=live, grid=grid)

        held = look("val")
        network = None
        if similarity and isinstance(captioner, Captioner):
            train, val = (Captioned(features(captioner, seen), seen.captions) for seen in (look("train"), held))
            network = _similarity(config or SMALL, train, val, RunFolder(run), live, resume=resume)
        live.tell(f"looking for sentences for each of {len(held.files)} validation photos")
        if isinstance(captioner, Pipeline):
            assert isinstance(held.lower, Looked)
            width, cost = beam or captioner.config.beam, captioner.config.hallucination_cost
            candidates, known = captioner.choices(held.lower, width)
        else:
            width, cost = beam or 20, 0.0
            candidates = lists_of(captioner, held, width)
            known = features_of(network, features(captioner, held), candidates)
        references = [[normalise(" ".join(words)) for words in photo] for photo in held.captions]
        live.tell("tuning the ranking, and learning how sure to be")
        judge, sure, grade = Judge.fit(
            network, known, candidates, references, beam=width, refuse=refuse, cost=cost, seed=seed
        )
    captioner.judge = judge
    captioner.save(output or model)
    right: NDArray[np.float64] = (grade <= 1).astype(np.float64)
    return Calibrated(captioner, auroc(sure, right), calibration_error(sure, right), refusing(sure, right, refuse))


SMALL = SimilarityConfig(trigram_size=128, maps=300, size=300)  # to stand in a captioner's file: 2.6 MB


def features(captioner: Captioner, pictures: Pictures) -> Tensor:
    """The pooled features (N, F) of photos as the captioner's encoder sees them."""
    return torch.cat([pooled(seen) for seen in seen_in(captioner, pictures)])


def lists_of(captioner: Captioner, pictures: Pictures, beam: int) -> list[list[Candidate]]:
    """The candidates for each photo, in the decoder's own order."""
    decoding = Decoding(n=beam, beam=beam, judged=False)
    found = [captioner.describe(seen, decoding) for seen in seen_in(captioner, pictures)]
    return [candidates_of(captions) for batch in found for captions in batch]


def seen_in(captioner: Captioner, pictures: Pictures) -> Iterator[Seen]:
    """What the captioner's encoder sees in photos, some at a time."""
    for i in range(0, len(pictures.files), BATCH):
        with torch.no_grad():
            yield captioner.encoder.upper(rows(pictures.lower, slice(i, i + BATCH)))


def _similarity(
    config: SimilarityConfig, train: Captioned, val: Captioned, run: RunFolder, live: LiveProgress, *, resume: bool
) -> DMSM:
    run.check(resume=resume)
    task = SimilarityTask(config, train, val, run.model)
    live.tell(task.summary())
    fit(task, config.plan(task.objective, data=task.digest()), run, live, resume=resume)
    return load_similarity(run.model)
