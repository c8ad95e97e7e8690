"""Neural image caption: a recurrent decoder that begins with a photo."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from carousel.captioning.config import CaptioningConfig
from carousel.captioning.decoder import Decoder, Reading, of_photo, real_steps
from carousel.captioning.photo_encoder import Seen, pooled
from carousel.cells.initialisation import initialise_
from carousel.data.vocabulary import PAD
from carousel.decoding import Step
from carousel.nn import Recurrent


class DecoderState(NamedTuple):
    """What the next word depends on: the recurrent layers' states and, for `par` and `merge`, the image embedding."""

    recurrent: Any
    image: Tensor  # (B, E)


class Unrolled(NamedTuple):
    """The recurrence's way through given captions."""

    words: Tensor  # (T, B, E), the words' vectors
    hidden: Tensor  # (T, B, H), after each word; first after the photo, with `predict_start`
    before: Tensor  # (B, H), before the first
    image: Tensor  # (B, E)
    scored: Tensor  # (B,), how many of the steps are


class NIC(Decoder):
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

    def read(self, seen: Seen, words: Tensor, lengths: Tensor, counts: Tensor | None = None) -> Reading:
        """As of `Decoder`; with `predict_start` the logits of <start> come in addition, first in each row."""
        way = self._unrolled(seen, words, lengths, counts)
        picked = real_steps(way.hidden, way.scored)
        if self.config.image_at == "merge":
            picked = torch.cat([picked, way.image.repeat_interleave(way.scored, 0)], 1)
        return Reading(self._logits(picked), None)

    def begin(self, seen: Seen) -> tuple[Step, DecoderState]:
        return self.step, self.start(seen)

    def embed_image(self, seen: Seen, counts: Tensor | None = None) -> Tensor:
        """Features (P, F) -> W_i v: (B, E)."""
        features = pooled(seen)
        return self.drop(self.image(self.standardised(features if counts is None else features[of_photo(counts)])))

    def _unrolled(self, seen: Seen, words: Tensor, lengths: Tensor, counts: Tensor | None) -> Unrolled:
        image = self.embed_image(seen, counts)
        x = embedded = self.embed(words)
        state, image_step = self._begin(image)
        if self.config.image_at == "par":
            x = torch.cat([x, image.expand(len(words), *image.shape)], 2)
        if image_step is None:
            hidden, _ = self.decoder(x, state, lengths)
            before = (self.decoder.initial_state(len(image)) if state is None else state)[-1][0]
            return Unrolled(embedded, hidden, before.to(hidden.dtype), image, lengths)
        x, lengths = torch.cat([image_step[None], x]), lengths + 1
        hidden, _ = self.decoder(x, state, lengths)
        if self.config.predict_start:
            return Unrolled(embedded, hidden, hidden[0], image, lengths)
        return Unrolled(embedded, hidden[1:], hidden[0], image, lengths - 1)

    def start(self, seen: Seen) -> DecoderState:
        """The state before <start>, from features (B, F)."""
        image = self.embed_image(seen)
        state, image_step = self._begin(image)
        if image_step is not None:
            _, state = self.decoder.step(image_step)
        return DecoderState(self.decoder.initial_state(len(image)) if state is None else state, image)

    def step(self, words: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Logits (B, V) of the word after `words` (B,), and the new state."""
        x = self.drop(self.embedding(words))
        if self.config.image_at == "par":
            x = torch.cat([x, state.image], 1)
        hidden, recurrent = self.decoder.step(x, state.recurrent)
        if self.config.image_at == "merge":
            hidden = torch.cat([hidden, state.image], 1)
        return self._logits(hidden), DecoderState(recurrent, state.image)

    def _begin(self, image: Tensor) -> tuple[Any, Tensor | None]:
        """The recurrent state before everything (None: zeros), and what is read before the words, if anything."""
        if self.config.image_at == "init":
            first, *others = self.decoder.initial_state(len(image))
            return (first._replace(**{first._fields[0]: torch.tanh(image.to(first[0].dtype))}), *others), None
        return None, image if self.config.image_at == "pre" else None

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.output(self.narrow(self.drop(hidden)))
        return logits
