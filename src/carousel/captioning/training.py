"""What a captioner learns from: likelihood or CIDEr-D of its captions, and the validation that chooses the best."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel import __version__
from carousel.captioning.attend import doubly_stochastic
from carousel.captioning.captioner import Captioner, decoder
from carousel.captioning.config import CaptioningConfig
from carousel.captioning.decoder import of_photo, teacher_forced
from carousel.captioning.photo_encoder import Kept, PhotoEncoder, Seen, joined, rows, where
from carousel.captioning.pictures import Pictures
from carousel.captioning.reward import Reward, advantages
from carousel.data.vocabulary import START, Vocabulary
from carousel.errors import ConfigError, DataError
from carousel.metrics import CiderD
from carousel.metrics.diversity import sentence_hashes
from carousel.metrics.words import normalise
from carousel.training import Loss, epoch_order, generator


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
        teacher: Captioner | None = None,
    ) -> None:
        self.config, self.encoder, self.train, self.val, self.file = config, encoder, train, val, file
        self.teacher = teacher
        sentences = [words for captions in train.captions for words in captions]
        known = next((one.vocabulary for one in (start_from, teacher) if one), None)
        self.vocabulary = known or Vocabulary.build(sentences, config.min_count)
        if not any(word in self.vocabulary for words in sentences for word in words):
            raise DataError(
                f"captions: no word occurs {config.min_count} times (got {len(sentences)} training captions); more "
                "captions, or rarer words; lower min_count"
            )
        self.encoded = [[self.vocabulary.encode(words) for words in captions] for captions in train.captions]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.decoder = decoder(config, encoder, len(self.vocabulary))
        if start_from:
            self._take(start_from)
        else:
            self.decoder.standardise_by(self.look(train))
        self.model = torch.nn.ModuleDict({"encoder": encoder, "decoder": self.decoder})
        self.steps = math.ceil(len(train.files) / config.batch_photos)
        hashes = sorted(sentence_hashes(" ".join(words) for words in sentences))
        self.captioner = Captioner(
            config, self.vocabulary, encoder, [self.decoder], torch.tensor(hashes, dtype=torch.int64)
        )
        self.references = [[normalise(" ".join(words)) for words in captions] for captions in val.captions]
        self.consensus = CiderD(self.references)

    def _take(self, trained: Captioner) -> None:
        """Begin with the weights of a model of the same shape, or with those of a NIC where this one also looks."""
        here, there = self.decoder.state_dict(), trained.members[0].state_dict()
        looks_too = (trained.config.decoder, self.config.decoder) == ("nic", "adaptive")
        for name, tensor in here.items():
            misfits = not looks_too if name not in there else there[name].shape != tensor.shape
            if misfits or len(trained.members) > 1:
                got = tuple(there[name].shape) if name in there else "none"
                raise ConfigError(
                    f"start_from: a model of another shape (got {name} {got}); {tuple(tensor.shape)}; the same "
                    "settings as that model's"
                )
        try:
            self.encoder.load_trained_state(trained.encoder.trained_state())
        except KeyError:
            begins = trained.encoder.finetune_from
            raise ConfigError(
                f"start_from: its photo encoder was trained from block {begins} on (got finetune_from "
                f"{self.encoder.finetune_from}); at most {begins}; change the setting"
            ) from None
        if looks_too:
            self.decoder.standardise_by(self.look(self.train))
        self.decoder.load_state_dict({**self.decoder.state_dict(), **there})

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
        decoder = [p for p in self.decoder.parameters() if p.requires_grad]
        groups = [{"params": decoder, "lr": self.config.learning_rate}]
        return groups + ([{"params": encoder, "lr": self.config.encoder_learning_rate}] if encoder else [])

    def look(self, pictures: Pictures, batch: int = 64) -> Seen:
        """What is seen in photos, from what the encoder's frozen part made of them, without gradients."""
        starts = range(0, len(pictures.files), batch)
        with torch.no_grad():
            return joined([self.encoder.upper(rows(pictures.lower, slice(i, i + batch))) for i in starts])

    def _photos(self, epoch: int, step: int) -> list[int]:
        size = self.config.batch_photos
        return epoch_order(len(self.train.files), self.config.seed, epoch)[step * size : (step + 1) * size]

    def batch_name(self, epoch: int, step: int) -> str:
        return ", ".join(self.train.files[photo] for photo in self._photos(epoch, step))

    def loss(self, epoch: int, step: int) -> Loss:
        photos = self._photos(epoch, step)
        lower = self._maybe_mirrored(photos, epoch, step)
        if self.config.loss == "self-critical":
            return self._self_critical(photos, lower, epoch, step)
        return self._likelihood(photos, lower, epoch, step)

    def _likelihood(self, photos: list[int], lower: Kept, epoch: int, step: int) -> Loss:
        """Cross-entropy of the training captions, word by word; with a teacher t and its share a

            L = -(1 - a) Σ log p(S_n) - a Σ_n Σ_w p_t(w) log p(w)      p, p_t: given the photo and S_1 .. S_{n-1}

        Kim and Rush 2016, arXiv:1606.07947v4, section 3.1.
        """
        config, seen = self.config, self.encoder.upper(lower)
        captions = [caption for photo in photos for caption in self.encoded[photo]]
        counts = torch.tensor([len(self.encoded[photo]) for photo in photos])
        words, lengths, targets = teacher_forced(captions, config.max_length, config.predict_start)
        if share := config.scheduled_sampling * epoch / max(1, config.epochs - 1):
            draw = generator(config.seed, "scheduled sampling", epoch, step)
            words = self.decoder.sampled_inputs(seen, words, share, draw, counts)
        logits, weights = self.decoder.read(seen, words, lengths, counts)
        logits = logits.float()
        mean = F.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)
        if config.decoder == "attend" and weights is not None:
            mean = mean + config.doubly_stochastic * doubly_stochastic(weights.float(), lengths)
        if self.teacher:
            taught = F.cross_entropy(logits, self._taught(self.teacher, lower, words, lengths, counts))
            mean = torch.lerp(mean, taught, config.teacher_share)
        with torch.no_grad():
            plain = F.cross_entropy(logits, targets)
        return Loss(mean, plain.item() * len(targets), len(targets))

    @torch.no_grad()
    def _taught(self, teacher: Captioner, lower: Kept, words: Tensor, lengths: Tensor, counts: Tensor) -> Tensor:
        """What the teacher would say next, (words, V): probabilities, the mean over its decoders."""
        seen = teacher.encoder.upper(lower)
        read = [member.read(seen, words, lengths, counts).logits for member in teacher.members]
        return torch.stack([logits.float().softmax(1) for logits in read]).mean(0)

    def _self_critical(self, photos: list[int], lower: Kept, epoch: int, step: int) -> Loss:
        """Policy gradient: sentences that score above the photo's others become likelier.

            L = - Σ_k (r_k - mean of r_j over j ≠ k) log p(S_k | I) / words,    S_k ~ p( . | I), or S_1..n a beam's

        Rennie et al. 2017, arXiv:1612.00563v2, eq. 8, with the baseline of Luo 2020, arXiv:2003.09971v1; the sentences
        of a beam as of Cornia et al. 2020, arXiv:1912.08226v2, section 3.3. Where they are drawn, p is the softmax of
        the logits over `temperature`, in the draw and in L. They are found without dropout and scored with it. With a
        share a of the likelihood, (1 - a) L and a times the loss of `_likelihood`.
        """
        seen = self.encoder.upper(lower)
        drawn = self.config.candidates == "samples"
        temperature = self.config.temperature if drawn else 1.0
        found = self.captioner.candidates(
            rows(seen, slice(None)),
            self.config.samples,
            generator(self.config.seed, "samples", epoch, step) if drawn else None,
            temperature,
        )
        counts = torch.tensor([len(group) for group in found])
        sentences = [sentence for group in found for sentence in group]
        texts, finished = [self.vocabulary.decode(s.words) for s in sentences], [s.finished for s in sentences]
        scores = self.reward.scores(texts, finished, [photos[k] for k in of_photo(counts)])
        rewards = torch.tensor(scores, dtype=torch.float32)
        captions = [list(sentence.words) for sentence in sentences]
        words, lengths, targets = teacher_forced(captions, self.config.max_length, self.config.predict_start)
        logits = self.decoder(seen, words, lengths, counts).float() / temperature
        logprobs = -F.cross_entropy(logits, targets, reduction="none")[targets != START]  # <start> was not drawn
        mean = -(logprobs * advantages(rewards, counts).repeat_interleave(lengths)).sum() / len(logprobs)
        if share := self.config.likelihood_share:
            mean = torch.lerp(mean, self._likelihood(photos, lower, epoch, step).mean, share)
        return Loss(mean, -float(rewards.mean()) * len(logprobs), len(logprobs))

    @cached_property
    def reward(self) -> Reward:
        """Of the training photos' captions."""
        captions = [[" ".join(words) for words in photo] for photo in self.train.captions]
        return Reward(captions, self.config.object_penalty)

    def _maybe_mirrored(self, photos: list[int], epoch: int, step: int) -> Kept:
        lower = rows(self.train.lower, photos)
        if self.train.mirrored is None:
            return lower
        flip = torch.rand(len(photos), generator=generator(self.config.seed, "mirror", epoch, step)) < 0.5
        return where(flip, rows(self.train.mirrored, photos), lower)

    def validate(self) -> dict[str, float]:
        """Perplexity per word (base e, the stop counts as one), CIDEr-D with the model's own beam, and how many of a
        hundred captions differ: one caption for every photo is a decoder that does not see."""
        features = self.look(self.val)
        found = self.captioner.describe(features)
        texts = [captions[0].text for captions in found]
        cider = float(self.consensus.scores(texts, range(len(texts))).mean())
        return {
            "perplexity": self._perplexity(features),
            "cider": cider,
            "distinct": 100 * len(set(texts)) / len(texts),
        }

    def _perplexity(self, seen: Seen, batch: int = 64) -> float:
        total, count = 0.0, 0
        for i in range(0, len(self.val.files), batch):
            group = self.val.captions[i : i + batch]
            captions = [self.vocabulary.encode(words) for photo in group for words in photo]
            counts = torch.tensor([len(photo) for photo in group])
            words, lengths, targets = teacher_forced(captions, self.config.max_length, self.config.predict_start)
            logits = self.decoder(rows(seen, slice(i, i + batch)), words, lengths, counts)
            scored = targets != START
            total += F.cross_entropy(logits[scored], targets[scored], reduction="sum").item()
            count += int(scored.sum())
        return math.exp(total / count)

    def save(self, scores: Mapping[str, float]) -> None:
        facts = {"validation": dict(scores), "carousel": __version__, "trained_on": len(self.train.files)}
        self.captioner.save(self.file, facts)


def check_teacher(teacher: Captioner, config: CaptioningConfig, start_from: Captioner | None) -> None:
    """Raise `ConfigError` unless it reads the same words, and the same of a photo, as what is to be trained."""
    for name in ("finetune_from", "predict_start"):
        here, there = getattr(config, name), getattr(teacher.config, name)
        if here != there:
            raise ConfigError(f"teacher: another {name} (got {there}); {here}, this one's; the same for both")
    if start_from and start_from.vocabulary.to_list() != teacher.vocabulary.to_list():
        raise ConfigError("teacher: another vocabulary than that of the model to begin with; one of the same captions")
