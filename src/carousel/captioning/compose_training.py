"""How the parts of the other school learn, each for itself: the detector of concepts and the language model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.captioning.compose_config import ComposeConfig
from carousel.captioning.concepts import Concepts, LogChances, detection_loss, mentions
from carousel.captioning.melm import Evidence, MaxEntModel, Noise, Standing, nce_loss
from carousel.captioning.ngrams import NGrams, Tokens, tokens
from carousel.captioning.photo_encoder import Kept, Looked, rows, where
from carousel.captioning.pictures import Pictures
from carousel.data.vocabulary import PAD, Vocabulary
from carousel.metrics.average_precision import average_precision
from carousel.training import Loss, epoch_order, generator, read_model_file, write_model_file

M = TypeVar("M", bound=nn.Module)

PART = "part of a captioner"
JUDGED = 6000  # tokens of the validation captions by which perplexity is judged


class Part(Generic[M]):
    """What the trained parts have in common: a file with the best weights so far."""

    model: M
    file: Path

    def save(self, scores: Mapping[str, float]) -> None:
        write_model_file(self.file, self.model.state_dict(), {"task": PART, "validation": dict(scores)})

    def best(self) -> dict[str, float]:
        """Take the best weights back; what validation said of them."""
        tensors, facts = read_model_file(self.file, PART)
        self.model.load_state_dict(tensors)
        self.model.eval()
        found: dict[str, float] = facts["validation"]
        return found


def chances(model: Concepts, seen: Kept, batch: int = 100) -> LogChances:
    """Of photos without gradients."""
    assert isinstance(seen, Looked)
    with torch.inference_mode():
        found = [model(_some(seen, slice(i, i + batch))) for i in range(0, len(seen.pooled), batch)]
    return LogChances(*(torch.cat(parts).clone() for parts in zip(*found, strict=True)))


def _some(seen: Kept, which: Any) -> Looked:
    found = rows(seen, which)
    assert isinstance(found, Looked)
    return found


def _both(chosen: Tensor, these: Looked, those: Looked) -> Looked:
    found = where(chosen, these, those)
    assert isinstance(found, Looked)
    return found


class ConceptTask(Part[Concepts]):
    """What `carousel.training.fit` trains: a detector, on some of the training photos."""

    objective = "average_precision"

    def __init__(
        self,
        config: ComposeConfig,
        words: Sequence[str],
        train: Pictures,
        val: Pictures,
        file: Path,
        only: Sequence[int] | None = None,
    ) -> None:
        self.config, self.file, self.train, self.val = config, file, train, val
        self.photos = torch.arange(len(train.files)) if only is None else torch.tensor(only)
        self.steps = max(1, len(self.photos) // config.batch_photos)
        self.labels = (mentions(train.captions, words) > 0).float()
        self.right = (mentions(val.captions, words) > 0).float()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = Concepts(words, config.pooling, config.context, config.detector_dropout)
        self.model.begin(_some(train.lower, self.photos), self.labels[self.photos])

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters()), "lr": self.config.detector_learning_rate}]

    def loss(self, epoch: int, step: int) -> Loss:
        size, seed = self.config.batch_photos, self.config.seed
        order = torch.tensor(epoch_order(len(self.photos), seed, epoch))[step * size : (step + 1) * size]
        photos = self.photos[order]
        seen = _some(self.train.lower, photos)
        if self.train.mirrored is not None:
            flip = torch.rand(len(photos), generator=generator(seed, "mirror", epoch, step)) < 0.5
            seen = _both(flip, _some(self.train.mirrored, photos), seen)
        mean = detection_loss(self.model(seen), self.labels[photos])
        return Loss(mean, mean.item() * len(photos), len(photos))

    def validate(self) -> dict[str, float]:
        found = chances(self.model, self.val.lower)
        precision = average_precision(found.there.double().numpy(), self.right.double().numpy())
        loss = detection_loss(found, self.right).item()
        return {"average_precision": 100 * float(np.nanmean(precision)), "detection_loss": loss}


class Corpus(NamedTuple):
    """Sentences with what was detected in a photo of each."""

    sentences: list[list[int]]
    photo: Tensor  # (S,) a row of `seen`
    seen: Evidence


class LanguageTask(Part[MaxEntModel]):
    """What `carousel.training.fit` trains: the maximum-entropy model, by noise-contrastive estimation."""

    objective = "likelihood"

    def __init__(self, config: ComposeConfig, size: int, train: Corpus, val: Corpus, file: Path) -> None:
        self.config, self.file, self.train, self.val = config, file, train, val
        self.tokens = tokens(train.sentences, config.order)
        self.prefixes, self.held_prefixes = _padded(train.sentences), _padded(val.sentences)
        self.model = MaxEntModel(NGrams.of(self.tokens, size, config.order, config.min_ngrams), config.triggers)
        self.model.begin(self.tokens)
        self.noise = Noise(self.tokens, size)
        self.steps = max(1, len(self.tokens.word) // config.batch_words)
        self._order: tuple[int, Tensor] = (-1, torch.zeros(0))

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters()), "lr": self.config.language_learning_rate}]

    def loss(self, epoch: int, step: int) -> Loss:
        config, size = self.config, self.config.batch_words
        if self._order[0] != epoch:
            self._order = (epoch, torch.tensor(epoch_order(len(self.tokens.word), config.seed, epoch)))
        some = self.tokens.rows(self._order[1][step * size : (step + 1) * size])
        draw = generator(config.seed, "noise", epoch, step)
        words = torch.cat([some.word[:, None], self.noise.draw(some.before[:, -1], config.noise, draw)], 1)
        scores = self.model.scores(some.before, words, _standing(self.train, self.prefixes, some).of(words))
        mean = nce_loss(scores, self.noise.logprob(some.before[:, -1], words))
        longer = self.model.weights[self.model.ngrams.size :]
        penalty = (longer.square().sum() + self.model.trigger.square().sum()) / len(self.tokens.word)
        return Loss(mean + config.ridge * penalty, mean.item() * len(words), len(words))

    @cached_property
    def held(self) -> Tokens:
        """Tokens of the validation captions, evenly spread."""
        found = tokens(self.val.sentences, self.model.ngrams.order)
        return found.rows(torch.arange(0, len(found.word), max(1, len(found.word) // JUDGED)))

    def validate(self, batch: int = 500) -> dict[str, float]:
        """Perplexity per word, base e, the stop counted, <unk> as a word."""
        total = 0.0
        for i in range(0, len(self.held.word), batch):
            some = self.held.rows(torch.arange(i, min(i + batch, len(self.held.word))))
            logits = self.model.logits(some.before, _standing(self.val, self.held_prefixes, some))
            total += F.cross_entropy(logits, some.word, reduction="sum").item()
        mean = total / len(self.held.word)
        return {"likelihood": -mean, "perplexity": math.exp(mean)}


def _padded(sentences: Sequence[Sequence[int]]) -> Tensor:
    found = torch.full((len(sentences), max(map(len, sentences))), PAD)
    for i, words in enumerate(sentences):
        found[i, : len(words)] = torch.tensor(words, dtype=torch.int64)
    return found


def _standing(corpus: Corpus, prefixes: Tensor, some: Tokens) -> Standing:
    """Where tokens' sentences stand before them."""
    prefix = prefixes[some.sentence]
    later = torch.arange(prefix.shape[1]) >= some.place[:, None]
    return Standing.after(corpus.seen.rows(corpus.photo[some.sentence]), prefix.masked_fill(later, PAD))


def borrowed(sentences: Sequence[Sequence[str]], captions: Sequence[Sequence[Sequence[str]]], there: Tensor,
             words: Sequence[str], draw: torch.Generator) -> Tensor:  # fmt: skip
    """Chances (S, C) for sentences that have no photo, made of those (N, C) of photos whose captions are known.

    Each sentence takes the photo whose captions are most like it (cosine of the concepts that they say, weighted by
    their rarity). The concepts that it says and those captions do not, take the chance of any photo that shows them.
    """
    said = mentions([[sentence] for sentence in sentences], words)
    shown = (mentions(captions, words) > 0).float()
    rarity = (len(shown) / shown.sum(0).clamp(min=1)).log()
    likeness = (said * rarity.square()) @ F.normalize(shown * rarity).T
    nearest = likeness.argmax(1)
    found = there[nearest].clone()
    lacking = (said > 0) & (shown[nearest] == 0)
    for word in lacking.any(0).nonzero()[:, 0].tolist():
        having = there[shown[:, word] > 0, word]
        if len(having):
            rows = lacking[:, word].nonzero()[:, 0]
            found[rows, word] = having[torch.randint(len(having), (len(rows),), generator=draw)]
    return found


def digest(*parts: object) -> str:
    """Names data, so that a run is not resumed on others."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def encoded(vocabulary: Vocabulary, sentences: Sequence[Sequence[str]], longest: int) -> list[list[int]]:
    """As numbers, cut."""
    return [vocabulary.encode(words)[:longest] for words in sentences]
