"""Image captioning from files: captions and photos in, a captioner and its honest scores out.

Read from top to bottom: what is trained, `train`, `evaluate`, `caption`, `inspection`. The data are in
`carousel.captioning.pictures`, the losses in `carousel.captioning.training`, the model in `carousel.captioning.nic`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from carousel.captioning import (
    ALL_FROZEN,
    SHIPPED,
    Caption,
    Captioner,
    CaptioningConfig,
    Decoding,
    PhotoEncoder,
    pooled,
    rows,
    teacher_forced,
)
from carousel.captioning.confidence import GRADES, graded
from carousel.captioning.entities import entities_in
from carousel.captioning.gallery import Gallery
from carousel.captioning.pictures import load_pictures, training_set
from carousel.captioning.pipeline import Pipeline
from carousel.captioning.schools import load_captioner
from carousel.captioning.training import CaptioningTask, check_teacher
from carousel.data.captions import Split, read_captions
from carousel.errors import ConfigError, DataError
from carousel.metrics import CaptionScores, CiderD, hallucinated_objects, normalise, reference_chair, score_captions
from carousel.metrics.calibration import Refused, auroc, calibration_error, refusing
from carousel.metrics.score import Score
from carousel.tasks.inspection import Inspection
from carousel.tasks.task import Evaluation, Source, Task
from carousel.tasks.verbs import train_task
from carousel.training import RunFolder
from carousel.training.progress import LiveProgress
from carousel.vision.photo import read_photo


class Captioning(CaptioningTask):
    """What is trained; see `carousel.tasks.task.Learner`."""

    objective = "cider"

    def baselines(self) -> dict[str, Score]:
        return {}

    def evaluate(self, model: Captioner) -> Evaluation:
        """On the validation photos: `carousel evaluate` has all scores, of any photos."""
        found = model.describe(self.look(self.val))
        values = self.consensus.scores([captions[0].text for captions in found], range(len(found)))
        return Evaluation(f"{len(found)} validation photos", [Score.mean("CIDEr-D", values)])


def recognise(source: Source) -> str | None:
    """Captions are told from other text by their photos, so these must be named."""
    return f"captions of the photos in {source.images}" if source.images is not None else None


def learner(
    source: Source, config: CaptioningConfig, file: Path, live: LiveProgress, start_from: Path | None = None
) -> Captioning:
    """What is trained, when all photos have been looked at."""
    if source.images is None:
        raise ConfigError("images: no photos are named (got captions alone); their folder; name it with --images")
    initial = Captioner.load(start_from) if start_from else None
    teacher = Captioner.load(config.teacher) if config.teacher else None
    if teacher:
        check_teacher(teacher, config, initial)
    found = training_set(source.path, source.images, lists=source.lists or None, seed=config.seed, tell=live.tell)
    encoder = PhotoEncoder(config.finetune_from)
    grid = config.decoder != "nic" or (teacher is not None and teacher.config.decoder != "nic")
    seen = load_pictures(found.part("train"), source.images, encoder, mirror=config.flips, live=live, grid=grid)
    held = load_pictures(found.part("val"), source.images, encoder, mirror=False, live=live, grid=grid)
    if config.finetune_from < ALL_FROZEN and initial is None:
        live.tell("the encoder learns from the start, and can drift before the decoder reads it; better train with it")
        live.tell("frozen first, then go on: carousel train ... --from FROZEN_MODEL --set finetune_from=...")
    return Captioning(config, encoder, seen, held, file, initial, teacher)


def train(
    captions: str | Path,
    images: str | Path,
    *,
    run: str | Path = "runs/captioner",
    lists: Mapping[Split, str | Path] | None = None,
    resume: bool = False,
    start_from: str | Path | None = None,
    config: CaptioningConfig | None = None,
    lr_find: bool = False,
    progress: LiveProgress | None = None,
) -> Captioner:
    """Train on a captioned-photo data set; the best model is returned, and stands in the run folder.

    Args:
        captions: any file that `read_captions` reads.
        images: the folder of its photos.
        run: the folder to write; see `RunFolder`.
        lists: a text file of photo names for each split, where the captions do not say.
        resume: go on with the run in that folder.
        start_from: a model file to begin with, of the same shape, whose vocabulary is kept.
        config: every setting; see `CaptioningConfig`.
        lr_find: look for a learning rate first, see `carousel.training.lr_find`, and train with that; leaves
            lr-find.png in the run folder.

    Raises `DataError`, `PhotoError`, `ConfigError` for what is wrong with the input, before training begins, and
    `Interrupted` and `TrainingDiverged` as `fit` says.
    """
    source = Source(Path(captions), images=Path(images), lists=dict(lists or {}))
    with progress or LiveProgress() as live:
        trained: Captioner = train_task(
            TASK,
            source,
            config or CaptioningConfig(),
            RunFolder(run),
            live,
            resume=resume,
            start_from=Path(start_from) if start_from else None,
            lr_find=lr_find,
        )
    return trained


class CaptionEvaluation(NamedTuple):
    """Scores of the best caption of every photo, the captions themselves, and how long it took."""

    scores: CaptionScores
    captions: dict[str, str]  # by file
    seconds_reading: float  # photos to features, from the cache where they are in it
    seconds_decoding: float
    sureness: Sureness | None = None  # where the model has learned to judge


class Sureness(NamedTuple):
    """What a captioner's confidence is worth, on the captions that were scored; bad ones are those of `graded`."""

    auroc: float
    calibration_error: float
    refused: Refused  # the least sure fifth
    by_grade: tuple[float, ...]  # the mean confidence of captions that deserve each grade, nan where there are none
    hedged: float  # the share of captions that would be hedged
    chair_s: float  # captions that name an object that no reference does, with the hedges in place


def evaluate(
    captions: str | Path,
    images: str | Path,
    *,
    model: str | Path | Captioner | Pipeline = SHIPPED,
    split: Split = "test",
    lists: Mapping[Split, str | Path] | None = None,
    decoding: Decoding = Decoding(),  # noqa: B008
    seed: int = 0,
    progress: LiveProgress | None = None,
) -> CaptionEvaluation:
    """Score a captioner on one split of a captioned-photo data set; `seed` is the bootstrap's.

    Raises `DataError` where the split is empty, `ModelFileError` for the model.
    """
    captioner = load_captioner(model) if isinstance(model, str | Path) else model
    with progress or LiveProgress() as live:
        found = read_captions(captions, photos=images, lists=lists)
        for note in found.notes:
            live.tell(note)
        photos = found.part(split)
        if not photos:
            raise DataError(
                f"{captions}: no photos in the {split} split (got {len(found.photos)} photos in all); one that has "
                "photos; choose it with --split"
            )
        began = time.perf_counter()
        grid = isinstance(captioner, Pipeline) or captioner.config.decoder != "nic"
        pictures = load_pictures(photos, Path(images), captioner.encoder, mirror=False, live=live, grid=grid)
    looked = time.perf_counter()
    said: list[Caption] = []
    with torch.inference_mode():
        for i in range(0, len(pictures.files), 64):
            features = captioner.encoder.upper(rows(pictures.lower, slice(i, i + 64)))
            said += [best[0] for best in captioner.describe(features, decoding)]
    decoded = time.perf_counter()
    references = [[" ".join(words) for words in photo] for photo in pictures.captions]
    texts = [caption.sentence for caption in said]
    scores = score_captions(texts, references, training_hashes=captioner.training_hashes.tolist(), seed=seed)
    by_file = dict(zip(pictures.files, texts, strict=True))
    return CaptionEvaluation(scores, by_file, looked - began, decoded - looked, sureness(said, references))


def sureness(said: Sequence[Caption], references: Sequence[Sequence[str]]) -> Sureness | None:
    """How much the confidence of captions is worth, one of each photo; None where they have none."""
    confidences = [caption.confidence for caption in said if caption.confidence is not None]
    if len(confidences) < len(said):
        return None
    truths = [[normalise(caption) for caption in captions] for captions in references]
    worth = CiderD(truths).scores([caption.sentence for caption in said], range(len(said)))
    grade = graded([bool(hallucinated_objects(c.sentence, t)) for c, t in zip(said, truths, strict=True)], worth)
    sure, right = np.array(confidences), (grade <= 1).astype(np.float64)
    return Sureness(
        auroc(sure, right),
        calibration_error(sure, right),
        refusing(sure, right),
        tuple(float(sure[grade == k].mean()) if (grade == k).any() else math.nan for k in range(len(GRADES))),
        float(np.mean([caption.unsure_of is not None for caption in said])),
        reference_chair([caption.text for caption in said], truths).chair_s,
    )


def caption(
    photo: str | Path,
    *,
    model: str | Path | Captioner | Pipeline = SHIPPED,
    gallery: str | Path | Gallery | None = None,
    **decoding: Any,
) -> list[Caption]:
    """Captions of one photo, best first; by default the likeliest one of the model that ships.

    `decoding` is any field of `Decoding`: ``n=5``, ``sample=True, temperature=0.8, seed=1``, ``beam=10`` ... A
    `gallery` puts names to people and landmarks. Raises `PhotoError`, and for a gallery what its `load` raises. To
    caption many photos load the model once: ``caption_photos(Captioner.load(), files)``.
    """
    captioner = load_captioner(model) if isinstance(model, str | Path) else model
    captions = captioner.caption(read_photo(photo)[None], Decoding(**decoding))[0]
    if gallery is None:
        return captions
    seen = entities_in(photo, gallery if isinstance(gallery, Gallery) else Gallery.load(gallery))
    return [seen.name(caption) for caption in captions]


def inspection(
    model: str | Path,
    data: str | Path,
    *,
    images: str | Path,
    sequences: int = 64,
    progress: LiveProgress | None = None,
) -> Inspection:
    """The decoder at work on one caption of each of so many photos; see `Inspection`.

    Photos are those of the test split, or of the validation split, or all, whichever is there first. The loss is
    that of each caption's last word, given the photo and the words before. Of an ensemble the first decoder is shown.

    Raises `DataError`, `PhotoError`, `ModelFileError` for what is wrong with the input.
    """
    captioner = Captioner.load(model)
    with progress or LiveProgress() as live:
        found = read_captions(data, photos=images)
        photos = found.part("test") or found.part("val") or found.photos
        looks = captioner.config.decoder != "nic"
        some = photos[:sequences]
        pictures = load_pictures(some, Path(images), captioner.encoder, mirror=False, live=live, grid=looks)
    nic, vocabulary = captioner.members[0], captioner.vocabulary
    with torch.inference_mode():
        seen = captioner.encoder.upper(rows(pictures.lower, slice(None)))
    captions = [
        vocabulary.encode(next((words for words in photo if len(words) > 1), [])) for photo in pictures.captions
    ]
    kept = [k for k, caption in enumerate(captions) if caption]
    if not kept:
        raise DataError(f"{data}: no caption of two words (got {len(captions)}); a sentence for a photo; add some")
    spoken = [captions[k][: nic.config.max_length + 1] for k in kept]
    last = torch.tensor([caption[-1] for caption in spoken])
    words, lengths, _ = teacher_forced([caption[:-1] for caption in spoken], nic.config.max_length)
    ends = (lengths + nic.config.predict_start).cumsum(0) - 1
    reads_photo = nic.config.image_at == "pre" and nic.config.decoder != "attend"
    before = ["(photo)"] if reads_photo else []
    return Inspection(
        nic.eval(),
        [rows(seen if looks else pooled(seen).clone(), kept), words, lengths],
        lambda logits: F.cross_entropy(logits[ends], last, reduction="sum"),
        f"The decoder of a captioner, reading {len(kept)} captions of {Path(data).name}, one for a photo. The loss is "
        "that of each caption's last word.",
        [[*before, "(start)", *(vocabulary.decode([word]) for word in caption[:-1])] for caption in spoken],
    )


TASK = Task(
    "captioning", "sentences about photos", CaptioningConfig, recognise, learner, Captioner.load, inspection=inspection
)
