"""Neural image caption: a recurrent decoder that begins with a photo."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.captioning.config import CaptioningConfig
from carousel.captioning.photo_encoder import Seen, pooled
from carousel.cells.initialisation import initialise_
from carousel.data.vocabulary import PAD, START, STOP, UNKNOWN
from carousel.decoding import sampled_inputs
from carousel.nn import Recurrent


class DecoderState(NamedTuple):
    """What the next word depends on: the recurrent layers' states and, for `par` and `merge`, the image embedding."""

    recurrent: Any
    image: Tensor  # (B, E)


class NIC(nn.Module):
    """Show and Tell: the photo is what the recurrent decoder reads before the first word.

        x_{-1} = W_i v                        v: the photo's features, standardised
        x_t = W_e S_t                         S_0 = <start>, S_N = <stop>
        h_t = LSTM(x_t, h_{t-1})
        p_{t+1} = softmax(W_o h_t + b)
        L(I, S) = - Σ_{t=1..N} log p_t(S_t)   the output at t = -1 is not scored

    Vinyals et al. 2014, arXiv:1411.4555v2, eq. 10-13. `image_at` chooses among the ways of Tanti et al. 2017,
    arXiv:1703.09137v2, section 3:

        pre     as above; with `predict_start` the image step must predict <start>, and that is scored
        init    h_{-1} = tanh(W_i v): the photo is the first layer's initial state
        par     x_t = [W_e S_t, W_i v]: the photo at every step
        merge   p_{t+1} = softmax(W_o [h_t, W_i v] + b): the recurrence sees the words alone

    Notes:
        The paper's p = softmax(m), m = o ⊙ c, leaves out both the cell's tanh and W_o; we use the common cell and an
        output layer, as the authors' released code does. Features are standardised with the training photos' mean and
        deviation, which the model keeps, and divided by √F: at unit variance each, a few steps of Adam drive all gates
        of the image step into saturation, and the decoder no longer sees.

    >>> model = NIC(CaptioningConfig(hidden_size=8, embedding_size=8), features=5, vocabulary=11)
    >>> words = torch.tensor([[1, 1], [4, 5], [6, 0]])                      # (T, B) from <start> on
    >>> model(torch.randn(2, 5), words, lengths=torch.tensor([3, 2])).shape  # one row for every real word
    torch.Size([5, 11])
    """

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, config: CaptioningConfig, features: int, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        E, H = config.embedding_size, config.hidden_size
        at = config.image_at
        self.embedding = nn.Embedding(vocabulary, E, padding_idx=PAD)
        self.image = nn.Linear(features, H if at == "init" else E)
        self.decoder = Recurrent(
            config.cell, 2 * E if at == "par" else E, H, layers=config.layers, dropout=config.dropout
        )
        initialise_(self.decoder, config.initialisation, longest=config.max_length + 1)
        outputs = H + E if at == "merge" else H
        self.narrow = nn.Linear(outputs, E, bias=False) if config.tied and outputs != E else nn.Identity()
        self.output = nn.Linear(E if config.tied else outputs, vocabulary)
        nn.init.normal_(self.embedding.weight, std=0.2)
        nn.init.normal_(self.image.weight, std=0.2)  # v has about unit length: photos begin as large as words
        nn.init.zeros_(self.embedding.weight[PAD])
        if config.tied:
            self.output.weight = self.embedding.weight
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_scale", torch.ones(features))

    def standardise_by(self, seen: Seen) -> None:
        """Take mean and deviation from the training photos' features (N, F)."""
        features = pooled(seen)
        self.feature_mean.copy_(features.mean(0))
        self.feature_scale.copy_(features.std(0, correction=min(1, len(features) - 1)) + 1e-3)

    def forward(self, seen: Seen, words: Tensor, lengths: Tensor) -> Tensor:
        """Logits (Σ lengths, V) of the word after each real one, in the order of ``words.t()`` row by row.

        Args:
            seen: features (B, F).
            words: (T, B) inputs, <start> first, padded.
            lengths: (B,) of the inputs, <start> counted; with `predict_start` the logits of <start> come in addition,
                first in each row.
        """
        image = self.embed_image(seen)
        embedded = self._drop(self.embedding(self._blank(words)))
        state, image_step = self._begin(image)
        if self.config.image_at == "par":
            embedded = torch.cat([embedded, image.expand(len(words), *image.shape)], 2)
        scored = lengths
        if image_step is not None:
            embedded, lengths = torch.cat([image_step[None], embedded]), lengths + 1
        hidden, _ = self.decoder(embedded, state, lengths)
        if image_step is not None and not self.config.predict_start:
            hidden = hidden[1:]
        elif image_step is not None:
            scored = lengths
        real = torch.arange(len(hidden))[None] < scored[:, None]  # (B, T)
        picked = hidden.transpose(0, 1)[real]
        if self.config.image_at == "merge":
            picked = torch.cat([picked, image.repeat_interleave(scored, 0)], 1)
        return self._logits(picked)

    def embed_image(self, seen: Seen) -> Tensor:
        """Features (B, F) -> W_i v: (B, E)."""
        features = pooled(seen)
        v = ((features - self.feature_mean) / self.feature_scale).clamp(-5, 5) / math.sqrt(features.shape[1])
        v = F.dropout(v, self.config.feature_dropout, self.training)
        return self._drop(self.image(v))

    def start(self, seen: Seen) -> DecoderState:
        """The state before <start>, from features (B, F)."""
        image = self.embed_image(seen)
        state, image_step = self._begin(image)
        if image_step is not None:
            _, state = self.decoder.step(image_step)
        return DecoderState(self.decoder.initial_state(len(image)) if state is None else state, image)

    def step(self, words: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Logits (B, V) of the word after `words` (B,), and the new state."""
        x = self._drop(self.embedding(words))
        if self.config.image_at == "par":
            x = torch.cat([x, state.image], 1)
        hidden, recurrent = self.decoder.step(x, state.recurrent)
        if self.config.image_at == "merge":
            hidden = torch.cat([hidden, state.image], 1)
        return self._logits(hidden), DecoderState(recurrent, state.image)

    def sampled_inputs(
        self, seen: Seen, words: Tensor, share: float, generator: torch.Generator | None = None
    ) -> Tensor:
        """Scheduled sampling: `words` (T, B) with a `share` of them drawn from what the model itself would say there.

            for t in 1..T-1:  S'_t ~ p_t( . | S'_0 .. S'_{t-1}) with probability `share`, else S_t

        Bengio et al. 2015, arXiv:1506.03099v3, section 2.4. The draw carries no gradient; then train on the result as
        on any other input.
        """
        with torch.no_grad():
            state = self.start(seen)
        never = range(UNKNOWN + 1)
        return sampled_inputs(self.step, state, words, share, padding=PAD, forbidden=never, generator=generator)

    def _begin(self, image: Tensor) -> tuple[Any, Tensor | None]:
        """The recurrent state before everything (None: zeros), and what is read before the words, if anything."""
        if self.config.image_at == "init":
            first, *others = self.decoder.initial_state(len(image))
            return (first._replace(**{first._fields[0]: torch.tanh(image.to(first[0].dtype))}), *others), None
        return None, image if self.config.image_at == "pre" else None

    def _blank(self, words: Tensor) -> Tensor:
        """Word dropout: some input words become <unk>."""
        if not (self.training and self.config.word_dropout):
            return words
        blank = (torch.rand(words.shape) < self.config.word_dropout) & (words > UNKNOWN)
        return words.masked_fill(blank, UNKNOWN)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training)

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.output(self.narrow(self._drop(hidden)))
        return logits


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
    rows = [torch.tensor([START, *caption[:max_length]]) for caption in captions]
    first = [START] if predict_start else []
    targets = [[*first, *[*caption, STOP][: max_length + 1]] for caption in captions]
    words = nn.utils.rnn.pad_sequence(rows, padding_value=PAD)
    return words, torch.tensor([len(row) for row in rows]), torch.tensor([word for row in targets for word in row])
