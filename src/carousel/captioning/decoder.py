"""What all decoders of captions have: words in, words out, standardised features, and a way to search."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.captioning.config import CaptioningConfig
from carousel.captioning.photo_encoder import Seen, pooled, rows
from carousel.data.vocabulary import PAD, START, STOP, UNKNOWN
from carousel.decoding import Step, sampled_inputs


class Reading(NamedTuple):
    """What a decoder makes of given captions: one row for every real word read, caption after caption."""

    logits: Tensor  # (Σ lengths, V), of the word after it
    weights: Tensor | None  # (Σ lengths, S), how much each place of the photo is looked at for it


class Decoder(nn.Module):
    """A network that reads what is seen in photos, `Seen`, and words, and says what the next word is.

    A subclass has `read`, for captions that are given, and `begin`, for captions that are searched for.
    """

    config: CaptioningConfig
    embedding: nn.Embedding
    feature_mean: Tensor
    feature_scale: Tensor

    def read(self, seen: Seen, words: Tensor, lengths: Tensor, counts: Tensor | None = None) -> Reading:
        """All captions at once.

        Args:
            seen: of P photos.
            words: (T, B) inputs, <start> first, padded; the captions of a photo are side by side.
            lengths: (B,) of the inputs, <start> counted.
            counts: (P,) captions of each photo; one each by default.
        """
        raise NotImplementedError(f"{type(self).__name__} does not read")

    def begin(self, seen: Seen) -> tuple[Step, Any]:
        """A step and the state before <start>, for `carousel.decoding`: of P photos, or of K rows for each of them."""
        raise NotImplementedError(f"{type(self).__name__} does not begin")

    def forward(self, seen: Seen, words: Tensor, lengths: Tensor, counts: Tensor | None = None) -> Tensor:
        """The logits of `read`."""
        return self.read(seen, words, lengths, counts).logits

    def standardise_by(self, seen: Seen) -> None:
        """Take mean and deviation from what is seen in the training photos."""
        features = pooled(seen)
        self.feature_mean.copy_(features.mean(0))
        self.feature_scale.copy_(features.std(0, correction=min(1, len(features) - 1)) + 1e-3)

    def standardised(self, seen: Seen) -> Tensor:
        """Features (P, F) of about unit length, with dropout."""
        features = pooled(seen)
        v = ((features - self.feature_mean) / self.feature_scale).clamp(-5, 5) / math.sqrt(features.shape[1])
        return F.dropout(v, self.config.feature_dropout, self.training)

    def sampled_inputs(
        self,
        seen: Seen,
        words: Tensor,
        share: float,
        generator: torch.Generator | None = None,
        counts: Tensor | None = None,
    ) -> Tensor:
        """Scheduled sampling: `words` (T, B) with a `share` of them drawn from what the model itself would say there.

            for t in 1..T-1:  S'_t ~ p_t( . | S'_0 .. S'_{t-1}) with probability `share`, else S_t

        Bengio et al. 2015, arXiv:1506.03099v3, section 2.4. The draw carries no gradient; then train on the result as
        on any other input.
        """
        with torch.no_grad():
            step, state = self.begin(seen if counts is None else rows(seen, of_photo(counts)))
        never = range(UNKNOWN + 1)
        return sampled_inputs(step, state, words, share, padding=PAD, forbidden=never, generator=generator)

    def embed(self, words: Tensor) -> Tensor:
        """The words' vectors, with word dropout and dropout."""
        return self.drop(self.embedding(self._blank(words)))

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training)

    def _blank(self, words: Tensor) -> Tensor:
        """Word dropout: some input words become <unk>."""
        if not (self.training and self.config.word_dropout):
            return words
        blank = (torch.rand(words.shape) < self.config.word_dropout) & (words > UNKNOWN)
        return words.masked_fill(blank, UNKNOWN)


def of_photo(counts: Tensor) -> Tensor:
    """For each caption the position of its photo, from the numbers of captions.

    >>> of_photo(torch.tensor([2, 1])).tolist()
    [0, 0, 1]
    """
    return torch.arange(len(counts)).repeat_interleave(counts)


def real_steps(padded: Tensor, lengths: Tensor) -> Tensor:
    """The steps (Σ lengths, ·) before each caption's end, caption after caption, of (T, B, ·)."""
    real = torch.arange(len(padded))[None] < lengths[:, None]  # (B, T)
    return padded.transpose(0, 1)[real]


def teacher_forced(
    captions: list[list[int]], max_length: int, predict_start: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (T, B), lengths (B,) and targets, row after row, of captions cut at `max_length` words.

    What follows a cut is the word that was there, not <stop>. With `predict_start` each row's targets begin with
    <start>.

    >>> words, lengths, targets = teacher_forced([[7, 8], [9]], max_length=18)
    >>> words.tolist(), lengths.tolist(), targets.tolist()
    ([[1, 1], [7, 9], [8, 0]], [3, 2], [7, 8, 2, 9, 2])
    """
    inputs = [torch.tensor([START, *caption[:max_length]]) for caption in captions]
    first = [START] if predict_start else []
    targets = [[*first, *[*caption, STOP][: max_length + 1]] for caption in captions]
    words = nn.utils.rnn.pad_sequence(inputs, padding_value=PAD)
    return words, torch.tensor([len(row) for row in inputs]), torch.tensor([word for row in targets for word in row])
