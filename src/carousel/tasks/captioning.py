"""Image captioning from files: captions and photos in, a captioner and its honest scores out.

Read from top to bottom: the data, the training task, `train`, `evaluate`, `caption`, `inspection`.
"""

from __future__ import annotations

import hashlib
import math
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel import __version__
from carousel.captioning import (
    ALL_FROZEN,
    NIC,
    SHIPPED,
    Caption,
    Captioner,
    CaptioningConfig,
    Decoding,
    PhotoEncoder,
    teacher_forced,
)
from carousel.data.captions import CaptionedPhoto, CaptionSet, Split, read_captions
from carousel.data.vocabulary import START, Vocabulary, caption_words
from carousel.errors import ConfigError, DataError
from carousel.metrics import CaptionScores, CiderD, score_captions
from carousel.metrics.diversity import sentence_hashes
from carousel.metrics.words import normalise
from carousel.reports.training import write_training_report
from carousel.tasks.inspection import Inspection
from carousel.training import Loss, Plan, RunFolder, autocast, epoch_order, fit, generator, write_atomically
from carousel.training.lr_find import lr_find as range_test
from carousel.training.progress import LiveProgress
from carousel.vision.feature_cache import cached_features
from carousel.vision.photo import read_photo

Tell = Callable[[str], None]


# --- data -------------------------------------------------------------------------------------------------------------


class Pictures(NamedTuple):
    """The photos of one split as the encoder's frozen part sees them, with their captions as word lists."""

    files: list[str]
    lower: Tensor  # (N, ...) half precision
    mirrored: Tensor | None
    captions: list[list[list[str]]]


def load_pictures(
    photos: Sequence[CaptionedPhoto],
    folder: Path,
    encoder: PhotoEncoder,
    *,
    mirror: bool,
    live: LiveProgress,
) -> Pictures:
    """Run the frozen part of the encoder over `photos`, or take from the cache what it made of them before.

    A photo that cannot be read is told about and left out. Raises `PhotoError` where none can be read.
    """

    def look(batch: Tensor) -> dict[str, Tensor]:
        seen = {"plain": encoder.lower(batch)}
        return seen | {"mirrored": encoder.lower(batch.flip(3))} if mirror else seen

    with live.counting("looking at the photos") as counted:
        found = cached_features(
            [folder / photo.file for photo in photos],
            look,
            encoder.fingerprint + ("-mirrored" if mirror else ""),
            progress=counted,
            on_error=lambda error: live.tell(str(error)),
        )
    for note in found.notes:
        live.tell(note)
    by_file = {folder / photo.file: photo for photo in photos}
    kept = [by_file[file] for file in found.files]
    captions = [[caption_words(caption) for caption in photo.captions] for photo in kept]
    return Pictures([p.file for p in kept], found.tensors["plain"], found.tensors.get("mirrored"), captions)


def training_set(
    path: str | Path,
    images: str | Path,
    *,
    lists: Mapping[Split, str | Path] | None,
    seed: int,
    tell: Tell,
) -> CaptionSet:
    """The captions, with a seeded tenth for validation where the file names no validation photos."""
    found = read_captions(path, photos=images, lists=lists)
    if not found.part("val"):
        tell("no validation photos are named: a seeded 10 % of the photos without a split are kept for validation")
        found = read_captions(path, photos=images, lists=lists, fractions={"val": 0.1}, seed=seed)
    for note in found.notes:
        tell(note)
    for split in ("train", "val"):
        if not any(photo.split == split for photo in found.photos):
            raise DataError(
                f"{path}: no {split} photos (got {len(found.photos)} photos in all); at least one; name a split"
            )
    return found


# --- model, loss, validation ------------------------------------------------------------------------------------------


class CaptioningTask:
    """What `carousel.training.fit` trains."""

    def __init__(
        self,
        config: CaptioningConfig,
        encoder: PhotoEncoder,
        train: Pictures,
        val: Pictures,
        file: Path,
        start_from: Captioner | None = None,
    ) -> None:
        self.config, self.encoder, self.train, self.val, self.file = config, encoder, train, val, file
        sentences = [words for captions in train.captions for words in captions]
        known = start_from.vocabulary if start_from else None
        self.vocabulary = known or Vocabulary.build(sentences, config.min_count)
        if not any(word in self.vocabulary for words in sentences for word in words):
            raise DataError(
                f"captions: no word occurs {config.min_count} times (got {len(sentences)} training captions); more "
                "captions, or rarer words; lower min_count"
            )
        self.encoded = [[self.vocabulary.encode(words) for words in captions] for captions in train.captions]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.nic = NIC(config, encoder.features, len(self.vocabulary))
        if start_from:
            self._take(start_from)
        else:
            self.nic.standardise_by(self.look(train.lower))
        self.model = torch.nn.ModuleDict({"encoder": encoder, "decoder": self.nic})
        self.steps = math.ceil(len(train.files) / config.batch_photos)
        hashes = sorted(sentence_hashes(" ".join(words) for words in sentences))
        self.captioner = Captioner(
            config, self.vocabulary, encoder, [self.nic], torch.tensor(hashes, dtype=torch.int64)
        )
        self.references = [[normalise(" ".join(words)) for words in captions] for captions in val.captions]
        self.consensus = CiderD(self.references)

    def _take(self, trained: Captioner) -> None:
        """Begin with the weights of a model of the same shape."""
        here, there = self.nic.state_dict(), trained.members[0].state_dict()
        for name, tensor in here.items():
            if name not in there or there[name].shape != tensor.shape or len(trained.members) > 1:
                got = tuple(there[name].shape) if name in there else "none"
                raise ConfigError(
                    f"start_from: a model of another shape (got {name} {got}); {tuple(tensor.shape)}; the same "
                    "settings as that model's"
                )
        self.nic.load_state_dict(there)
        try:
            self.encoder.load_trained_state(trained.encoder.trained_state())
        except KeyError:
            begins = trained.encoder.finetune_from
            raise ConfigError(
                f"start_from: its photo encoder was trained from block {begins} on (got finetune_from "
                f"{self.encoder.finetune_from}); at most {begins}; change the setting"
            ) from None

    def summary(self) -> str:
        """What is trained on what, in a line."""
        weights = sum(p.numel() for group in self.parameter_groups() for p in group["params"])
        return (
            f"{len(self.train.files)} photos to train on, {len(self.val.files)} to validate on; {len(self.vocabulary)} "
            f"words in the vocabulary; {weights / 1e6:.1f} million weights to train"
        )

    def digest(self) -> str:
        """Names the photos and captions, so that a run is not resumed on others."""
        parts = [(pictures.files, pictures.captions) for pictures in (self.train, self.val)]
        return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()

    def parameter_groups(self) -> list[dict[str, Any]]:
        encoder = [p for p in self.encoder.parameters() if p.requires_grad]
        decoder = [p for p in self.nic.parameters() if p.requires_grad]
        groups = [{"params": decoder, "lr": self.config.learning_rate}]
        return groups + ([{"params": encoder, "lr": self.config.encoder_learning_rate}] if encoder else [])

    def look(self, lower: Tensor, batch: int = 64) -> Tensor:
        """Features (N, F) of photos from what the encoder's frozen part made of them, without gradients."""
        with torch.inference_mode():
            parts = [self.encoder.upper(lower[i : i + batch].float()) for i in range(0, len(lower), batch)]
        return torch.cat(parts).clone()

    def _photos(self, epoch: int, step: int) -> list[int]:
        size = self.config.batch_photos
        return epoch_order(len(self.train.files), self.config.seed, epoch)[step * size : (step + 1) * size]

    def batch_name(self, epoch: int, step: int) -> str:
        return ", ".join(self.train.files[photo] for photo in self._photos(epoch, step))

    def loss(self, epoch: int, step: int) -> Loss:
        photos = self._photos(epoch, step)
        features = self.encoder.upper(self._maybe_mirrored(photos, epoch, step))
        if self.config.loss == "self-critical":
            return self._self_critical(photos, features, epoch, step)
        return self._likelihood(photos, features, epoch, step)

    def _likelihood(self, photos: list[int], features: Tensor, epoch: int, step: int) -> Loss:
        """Cross-entropy of the training captions, word by word."""
        config = self.config
        captions = [caption for photo in photos for caption in self.encoded[photo]]
        counts = torch.tensor([len(self.encoded[photo]) for photo in photos])
        features = features.repeat_interleave(counts, 0)
        words, lengths, targets = teacher_forced(captions, config.max_length, config.predict_start)
        if share := config.scheduled_sampling * epoch / max(1, config.epochs - 1):
            draw = generator(config.seed, "scheduled sampling", epoch, step)
            words = self.nic.sampled_inputs(features, words, share, draw)
        logits = self.nic(features, words, lengths).float()
        mean = F.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)
        with torch.no_grad():
            plain = F.cross_entropy(logits, targets) if config.label_smoothing else mean
        return Loss(mean, plain.item() * len(targets), len(targets))

    def _self_critical(self, photos: list[int], features: Tensor, epoch: int, step: int) -> Loss:
        """Policy gradient on CIDEr-D: sentences that score above the photo's other samples become likelier.

            L = - Σ_k (r_k - mean of r_j over j ≠ k) log p(S_k | I) / words,    S_k ~ p( . | I)

        Rennie et al. 2017, arXiv:1612.00563v2, eq. 8, with the baseline of Luo 2020, arXiv:2003.09971v1. Sentences are
        drawn without dropout and scored with it.
        """
        n = self.config.samples
        drawn = self.captioner.draw(features.detach(), n, generator(self.config.seed, "samples", epoch, step))
        rows = torch.arange(len(photos)).repeat_interleave(n)
        texts = [self.vocabulary.decode(sentence.words) for sentence in drawn]
        rewards = torch.tensor(self.reward.scores(texts, [photos[row] for row in rows]), dtype=torch.float32)
        grouped = rewards.view(-1, n)
        baseline = (grouped.sum(1, keepdim=True) - grouped) / (n - 1)
        advantage = (grouped - baseline).flatten()
        captions = [list(sentence.words) for sentence in drawn]
        words, lengths, targets = teacher_forced(captions, self.config.max_length, self.config.predict_start)
        logits = self.nic(features[rows], words, lengths).float()
        logprobs = -F.cross_entropy(logits, targets, reduction="none")[targets != START]  # <start> was not drawn
        mean = -(logprobs * advantage.repeat_interleave(lengths)).sum() / len(logprobs)
        return Loss(mean, -float(rewards.mean()) * len(logprobs), len(logprobs))

    @cached_property
    def reward(self) -> CiderD:
        """CIDEr-D against the training captions."""
        return CiderD([[normalise(" ".join(words)) for words in photo] for photo in self.train.captions])

    def _maybe_mirrored(self, photos: list[int], epoch: int, step: int) -> Tensor:
        lower = self.train.lower[photos].float()
        if self.train.mirrored is None:
            return lower
        flip = torch.rand(len(photos), generator=generator(self.config.seed, "mirror", epoch, step)) < 0.5
        lower[flip] = self.train.mirrored[torch.tensor(photos)[flip]].float()
        return lower

    def validate(self) -> dict[str, float]:
        """Perplexity per word (base e, the stop counts as one), CIDEr-D with the model's own beam, and how many of a
        hundred captions differ: one caption for every photo is a decoder that does not see."""
        features = self.look(self.val.lower)
        found = self.captioner.describe(features)
        texts = [captions[0].text for captions in found]
        cider = float(self.consensus.scores(texts, range(len(texts))).mean())
        return {
            "perplexity": self._perplexity(features),
            "cider": cider,
            "distinct": 100 * len(set(texts)) / len(texts),
        }

    def _perplexity(self, features: Tensor, batch: int = 64) -> float:
        total, count = 0.0, 0
        for i in range(0, len(features), batch):
            group = self.val.captions[i : i + batch]
            captions = [self.vocabulary.encode(words) for photo in group for words in photo]
            counts = torch.tensor([len(photo) for photo in group])
            words, lengths, targets = teacher_forced(captions, self.config.max_length, self.config.predict_start)
            logits = self.nic(features[i : i + batch].repeat_interleave(counts, 0), words, lengths)
            scored = targets != START
            total += F.cross_entropy(logits[scored], targets[scored], reduction="sum").item()
            count += int(scored.sum())
        return math.exp(total / count)

    def save(self, scores: Mapping[str, float]) -> None:
        facts = {"validation": dict(scores), "carousel": __version__, "trained_on": len(self.train.files)}
        self.captioner.save(self.file, facts)


# --- train, evaluate, caption, inspection -----------------------------------------------------------------------------


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
    config, folder = config or CaptioningConfig(), RunFolder(run)
    folder.check(resume=resume)
    initial = Captioner.load(start_from) if start_from else None
    with progress or LiveProgress() as live:
        found = training_set(captions, images, lists=lists, seed=config.seed, tell=live.tell)
        encoder = PhotoEncoder(config.finetune_from)
        seen = load_pictures(found.part("train"), Path(images), encoder, mirror=config.flips, live=live)
        held = load_pictures(found.part("val"), Path(images), encoder, mirror=False, live=live)
        task = CaptioningTask(config, encoder, seen, held, folder.model, initial)
        live.tell(task.summary())
        if config.finetune_from < ALL_FROZEN and initial is None:
            live.tell(
                "the encoder learns from the start, and can drift before the decoder reads it; better train with it"
            )
            live.tell("frozen first, then go on: carousel train ... --from FROZEN_MODEL --set finetune_from=...")
        if lr_find:
            config = config.model_copy(update={"learning_rate": found_rate(task, folder, live, resume=resume)})
            task.config = config
        plan = Plan(
            epochs=config.epochs,
            objective="cider",
            optimiser=config.optimiser,
            schedule=config.schedule,
            weight_decay=config.weight_decay,
            clipping=config.clipping,
            clip_norm=config.clip_norm,
            averaging=config.averaging,
            average_after=config.average_after,
            patience=config.patience,
            mixed_precision=config.mixed_precision,
            seed=config.seed,
            settings=config.model_dump(),
            data={"captions": Path(captions).name, "photos": len(task.train.files), "data": task.digest()},
        )
        history = fit(task, plan, folder, live, resume=resume)
    best = max(history, key=lambda record: record["cider"])
    write_training_report(
        folder.report,
        title=f"Training of {folder.path.name}",
        about=f"Show and Tell on {Path(captions).name}. {task.summary()}",
        config=config.model_dump(),
        epochs=history,
        scores={"validation CIDEr-D": best["cider"], "validation perplexity": best["perplexity"]},
        best_epoch=int(best["epoch"]),
    )
    return Captioner.load(folder.model)


def found_rate(task: CaptioningTask, folder: RunFolder, live: LiveProgress, *, resume: bool) -> float:
    """The learning rate that a range test suggests; that which the run began with, to resume it."""
    if resume:
        return float(tomllib.loads(folder.config.read_text(encoding="utf-8"))["learning_rate"])
    config = task.config

    def loss(step: int) -> Tensor:
        with autocast(config.mixed_precision):
            return task.loss(0, step % task.steps).mean

    live.tell("looking for a learning rate")
    test = range_test(
        task.model,
        loss,
        optimiser=config.optimiser,
        clip=config.clip_norm if config.clipping == "norm" else None,
        groups=task.parameter_groups(),
        seed=config.seed,
    )
    picture = folder.path / "lr-find.png"
    write_atomically(picture, test.png())
    live.tell(f"{picture}: the loss is least about {10 * test.suggestion:.2g}; training with {test.suggestion:.2g}")
    return float(f"{test.suggestion:.3g}")


class Evaluation(NamedTuple):
    """Scores of the best caption of every photo, the captions themselves, and how long it took."""

    scores: CaptionScores
    captions: dict[str, str]  # by file
    seconds_reading: float  # photos to features, from the cache where they are in it
    seconds_decoding: float


def evaluate(
    captions: str | Path,
    images: str | Path,
    *,
    model: str | Path | Captioner = SHIPPED,
    split: Split = "test",
    lists: Mapping[Split, str | Path] | None = None,
    decoding: Decoding = Decoding(),  # noqa: B008
    seed: int = 0,
    progress: LiveProgress | None = None,
) -> Evaluation:
    """Score a captioner on one split of a captioned-photo data set; `seed` is the bootstrap's.

    Raises `DataError` where the split is empty, `ModelFileError` for the model.
    """
    captioner = model if isinstance(model, Captioner) else Captioner.load(model)
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
        pictures = load_pictures(photos, Path(images), captioner.encoder, mirror=False, live=live)
    looked = time.perf_counter()
    texts: list[str] = []
    with torch.inference_mode():
        for i in range(0, len(pictures.files), 64):
            features = captioner.encoder.upper(pictures.lower[i : i + 64].float())
            texts += [best[0].text for best in captioner.describe(features, decoding)]
    decoded = time.perf_counter()
    references = [[" ".join(words) for words in photo] for photo in pictures.captions]
    scores = score_captions(texts, references, training_hashes=captioner.training_hashes.tolist(), seed=seed)
    return Evaluation(scores, dict(zip(pictures.files, texts, strict=True)), looked - began, decoded - looked)


def caption(photo: str | Path, *, model: str | Path | Captioner = SHIPPED, **decoding: Any) -> list[Caption]:
    """Captions of one photo, best first; by default the likeliest one of the model that ships.

    `decoding` is any field of `Decoding`: ``n=5``, ``sample=True, temperature=0.8, seed=1``, ``beam=10`` ... Raises
    `PhotoError`. To caption many photos load the model once: ``caption_photos(Captioner.load(), files)``.
    """
    captioner = model if isinstance(model, Captioner) else Captioner.load(model)
    return captioner.caption(read_photo(photo)[None], Decoding(**decoding))[0]


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
        pictures = load_pictures(photos[:sequences], Path(images), captioner.encoder, mirror=False, live=live)
    nic, vocabulary = captioner.members[0], captioner.vocabulary
    with torch.inference_mode():
        features = captioner.encoder.upper(pictures.lower.float())
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
    before = ["(photo)"] if nic.config.image_at == "pre" else []
    return Inspection(
        nic.eval(),
        [features.clone()[kept], words, lengths],
        lambda logits: F.cross_entropy(logits[ends], last, reduction="sum"),
        f"The decoder of a captioner, reading {len(kept)} captions of {Path(data).name}, one for a photo. The loss is "
        "that of each caption's last word.",
        [[*before, "(start)", *(vocabulary.decode([word]) for word in caption[:-1])] for caption in spoken],
    )
