"""Decoders that look at places of the photo for every word: soft attention, and attention with a visual sentinel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from carousel.captioning.config import CaptioningConfig
from carousel.captioning.decoder import Decoder, Reading, of_photo, real_steps
from carousel.captioning.nic import NIC, DecoderState
from carousel.captioning.photo_encoder import PLACE_FEATURES, Looked, Seen
from carousel.cells.initialisation import initialise_
from carousel.data.vocabulary import PAD
from carousel.decoding import Step
from carousel.decoding.sentence import select_rows
from carousel.nn import BahdanauAttention, Recurrent
from carousel.nn.attention import Memory


class Places(nn.Module):
    """What there is to look at: v_i = ReLU(W_a a_i + b), with a_i the standardised features of place i.

    >>> looked = Looked(torch.zeros(2, 7), torch.randn(2, 49, 3), torch.randn(2, 49, 2))
    >>> Places(5, 4)(looked).shape                                           # (S, P, M), as `Attention` remembers
    torch.Size([49, 2, 4])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, size: int) -> None:
        super().__init__()
        self.project = nn.Linear(features, size)
        nn.init.normal_(self.project.weight, std=0.1 / features**0.5)  # a trained NIC is hardly disturbed at first
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def standardise_by(self, looked: Looked) -> None:
        """Take mean and deviation over photos and places, of a thousand photos at most."""
        every = slice(None, None, max(1, len(looked.grid) // 1000))
        a = torch.cat([looked.grid[every], looked.early[every]], 2).flatten(0, 1)
        self.mean.copy_(a.mean(0))
        self.scale.copy_(a.std(0) + 1e-3)

    def forward(self, looked: Looked) -> Tensor:
        a = torch.cat([looked.grid, looked.early], 2).transpose(0, 1)
        return torch.relu(self.project(((a - self.mean) / self.scale).clamp(-5, 5)))


class Adaptive(NIC):
    """Knowing when to look: for every word a mean of the places, and of a sentinel that stands for the words so far.

        h_t as of `NIC`
        s_t = σ(W_x x_t + W_h h_{t-1}) ⊙ h_t                        the sentinel
        z_t = w_hᵀ tanh(W_v [v_1 .. v_k] + W_g h_t),  z_s = w_hᵀ tanh(W_s s_t + W_g h_t)
        α̂_t = softmax([z_t; z_s]),  β_t = α̂_t,k+1
        ĉ_t = Σ_i α̂_ti v_i + β_t s_t
        p_{t+1} = softmax(W_p (ĉ_t + h_t) + b)

    Lu et al. 2016, arXiv:1612.01887v2, eq. 5-14.

    Notes:
        What is seen of the whole photo is read as `image_at` says, in the paper at every step (par). The paper's
        sentinel is gated from the LSTM's tanh(m_t), ours from h_t = o_t ⊙ tanh(m_t), so that any cell will do. As no
        word's context is read by the next step, the recurrence is unrolled at once, and so is the attention.

    >>> config = CaptioningConfig(decoder="adaptive", hidden_size=8, embedding_size=8)
    >>> model = Adaptive(config, features=5, vocabulary=11, places=4)
    >>> looked = Looked(torch.randn(2, 5), torch.randn(2, 49, 3), torch.randn(2, 49, 1))
    >>> words, lengths = torch.tensor([[1, 1, 1], [4, 5, 6], [6, 0, 7]]), torch.tensor([3, 2, 3])
    >>> logits, weights = model.read(looked, words, lengths, counts=torch.tensor([2, 1]))
    >>> logits.shape, weights.shape                                          # the sentinel is the last place
    (torch.Size([8, 11]), torch.Size([8, 50]))
    """

    def __init__(self, config: CaptioningConfig, features: int, vocabulary: int, places: int = PLACE_FEATURES) -> None:
        super().__init__(config, features, vocabulary)
        E, H = config.embedding_size, config.hidden_size
        self.places = Places(places, H)
        self.attention = BahdanauAttention(H, H, config.attention_size)
        self.gate = nn.Linear(E + H, H)
        self.sentinel_key = nn.Linear(H, config.attention_size, bias=False)

    def standardise_by(self, seen: Seen) -> None:
        super().standardise_by(seen)
        self.places.standardise_by(looked(seen))

    def read(self, seen: Seen, words: Tensor, lengths: Tensor, counts: Tensor | None = None) -> Reading:
        way = self._unrolled(seen, words, lengths, counts)
        before = torch.cat([way.before[None], way.hidden[:-1]])
        h, h_before, x = (real_steps(steps, lengths) for steps in (way.hidden, before, way.words))
        s = self._sentinel(x, h_before, h)
        steps = lengths if counts is None else lengths.new_zeros(len(counts)).index_add(0, of_photo(counts), lengths)
        query, sentinel = (
            nn.utils.rnn.pad_sequence([*torch.split(rows, steps.tolist())]) for rows in (h, s)
        )  # (R, P, H)
        context, weights = (real_steps(found, steps) for found in self._look(query, sentinel, self._remember(seen)))
        return Reading(self._logits(context + h), weights)

    def begin(self, seen: Seen) -> tuple[Step, DecoderState]:
        return partial(self._advance, self._remember(seen)), self.start(seen)

    def _advance(self, memory: Memory, words: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """The logits (N, V) and the state after one more word (N,), of K rows for each photo of the memory."""
        embedded = self.drop(self.embedding(words))
        x = torch.cat([embedded, state.image], 1) if self.config.image_at == "par" else embedded
        h, recurrent = self.decoder.step(x, state.recurrent)
        query, sentinel = (by_photo(rows, memory) for rows in (h, self._sentinel(embedded, state.recurrent[-1][0], h)))
        context, _ = self._look(query, sentinel, memory)
        return self._logits(context.transpose(0, 1).flatten(0, 1) + h), DecoderState(recurrent, state.image)

    def _remember(self, seen: Seen) -> Memory:
        return self.attention.remember(self.drop(self.places(looked(seen))))

    def _sentinel(self, x: Tensor, before: Tensor, h: Tensor) -> Tensor:
        return torch.sigmoid(self.gate(torch.cat([x, before], 1))) * h

    def _look(self, query: Tensor, sentinel: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Contexts (R, P, H) and weights (R, P, S + 1) of queries and sentinels (R, P, H)."""
        score = self.attention
        z_sentinel = score.v(torch.tanh(self.sentinel_key(sentinel) + score.W(query)))
        weights = torch.cat([score.scores(query, memory.keys), z_sentinel], 2).softmax(2)
        seen = torch.einsum("rps,psm->rpm", weights[..., :-1], memory.values.to(weights.dtype))
        return seen + weights[..., -1:] * sentinel, weights


class AttendState(NamedTuple):
    """What the next word depends on, besides the places."""

    recurrent: Any


class Attend(Decoder):
    """Show, attend and tell, with soft attention.

        h_0, c_0 = tanh(W_init v)                                    v: the features of the whole photo
        e_ti = w_aᵀ tanh(W_a a_i + W_q h_{t-1}),  α_t = softmax(e_t)
        ẑ_t = β_t Σ_i α_ti a_i,  β_t = σ(f_β(h_{t-1}))
        h_t = LSTM([E y_{t-1}; ẑ_t], h_{t-1})
        p_t = softmax(L_o (E y_{t-1} + L_h h_t + L_z ẑ_t))

    Xu et al. 2015, arXiv:1502.03044v3, section 3.1.2, 4.2 and eq. 7. `doubly_stochastic` is the weight λ of

        Σ_i (1 − Σ_t α_ti)²

    Notes:
        a_i here is `Places`' v_i, a layer above the encoder's map. The paper starts from the mean of the places by two
        layers; v holds that mean beside two more, and one layer follows.

    >>> config = CaptioningConfig(decoder="attend", hidden_size=8, embedding_size=8)
    >>> model = Attend(config, features=5, vocabulary=11, places=4)
    >>> looked = Looked(torch.randn(2, 5), torch.randn(2, 49, 3), torch.randn(2, 49, 1))
    >>> logits, weights = model.read(looked, torch.tensor([[1, 1], [4, 5]]), torch.tensor([2, 1]))
    >>> logits.shape, weights.shape
    (torch.Size([3, 11]), torch.Size([3, 49]))
    """

    def __init__(self, config: CaptioningConfig, features: int, vocabulary: int, places: int = PLACE_FEATURES) -> None:
        super().__init__()
        self.config = config
        E, H = config.embedding_size, config.hidden_size
        self.embedding = nn.Embedding(vocabulary, E, padding_idx=PAD)
        self.places = Places(places, H)
        self.attention = BahdanauAttention(H, H, config.attention_size)
        self.decoder = Recurrent(config.cell, E + H, H, layers=config.layers, dropout=config.dropout)
        initialise_(self.decoder, config.initialisation, longest=config.max_length + 1)
        self.start = nn.ModuleDict(
            {f"{k}_{name}": nn.Linear(features, H) for k, name in _plain_fields(self.decoder.initial_state(1))}
        )
        self.gate = nn.Linear(H, 1)
        self.from_hidden, self.from_places = nn.Linear(H, E, bias=False), nn.Linear(H, E, bias=False)
        self.output = nn.Linear(E, vocabulary)
        nn.init.normal_(self.embedding.weight, std=0.2)
        nn.init.zeros_(self.embedding.weight[PAD])
        if config.tied:
            self.output.weight = self.embedding.weight
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_scale", torch.ones(features))

    def standardise_by(self, seen: Seen) -> None:
        super().standardise_by(seen)
        self.places.standardise_by(looked(seen))

    def read(self, seen: Seen, words: Tensor, lengths: Tensor, counts: Tensor | None = None) -> Reading:
        memory, state = self._remember(seen), self._state(seen)
        counts = torch.ones(len(memory.values), dtype=torch.long) if counts is None else counts
        K = int(counts.max())
        rows = (torch.arange(K) < counts[:, None]).flatten().nonzero()[:, 0]  # of K for every photo, those that are
        padded = words.new_full((len(words), len(counts) * K), PAD).index_copy(1, rows, words)
        state = select_rows(state, torch.arange(len(counts)).repeat_interleave(K))
        steps = []
        for x in self.embed(padded):
            h, z, weights, state = self._advance(x, memory, state)
            steps.append((x, h, z, weights))
        x, h, z, weights = (real_steps(torch.stack(field)[:, rows], lengths) for field in zip(*steps, strict=True))
        return Reading(self._logits(x, h, z), weights)

    def begin(self, seen: Seen) -> tuple[Step, AttendState]:
        memory = self._remember(seen)

        def step(words: Tensor, state: AttendState) -> tuple[Tensor, AttendState]:
            x = self.drop(self.embedding(words))
            h, z, _, state = self._advance(x, memory, state)
            return self._logits(x, h, z), state

        return step, self._state(seen)

    def _remember(self, seen: Seen) -> Memory:
        return self.attention.remember(self.drop(self.places(looked(seen))))

    def _state(self, seen: Seen) -> AttendState:
        v = self.standardised(seen)
        recurrent = list(self.decoder.initial_state(len(v)))
        for k, name in _plain_fields(recurrent):
            recurrent[k] = recurrent[k]._replace(**{name: torch.tanh(self.start[f"{k}_{name}"](v))})
        return AttendState(tuple(recurrent))

    def _advance(self, x: Tensor, memory: Memory, state: AttendState) -> tuple[Tensor, Tensor, Tensor, AttendState]:
        """h_t, ẑ_t, α_t and the state after one more word's vector (N, E), of K rows for each photo of the memory."""
        before = state.recurrent[-1][0]
        context, weights = (_flat(found) for found in self.attention(by_photo(before, memory), memory))
        z = torch.sigmoid(self.gate(before)) * context
        h, recurrent = self.decoder.step(torch.cat([x, z], 1), state.recurrent)
        return h, z, weights, AttendState(recurrent)

    def _logits(self, x: Tensor, h: Tensor, z: Tensor) -> Tensor:
        logits: Tensor = self.output(self.drop(x + self.from_hidden(self.drop(h)) + self.from_places(z)))
        return logits


def looked(seen: Seen) -> Looked:
    """What is seen with its grid, which must be there."""
    if not isinstance(seen, Looked):
        raise TypeError(f"a decoder that attends needs the grid (got pooled features {tuple(seen.shape)})")
    return seen


def by_photo(rows: Tensor, memory: Memory) -> Tensor:
    """(P K, H) -> (K, P, H), where the K rows of a photo are side by side."""
    return rows.view(len(memory.values), -1, rows.shape[1]).transpose(0, 1)


def doubly_stochastic(weights: Tensor, lengths: Tensor) -> Tensor:
    """The mean over captions and places of (1 − Σ_t α_ti)², from the weights (Σ lengths, S) of `Reading`.

    >>> float(doubly_stochastic(torch.tensor([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]]), torch.tensor([2, 1])))
    0.25
    """
    sums = torch.stack([caption.sum(0) for caption in torch.split(weights, lengths.tolist())])  # (B, S)
    return (1 - sums).square().mean()


def _flat(found: Tensor) -> Tensor:
    return found.transpose(0, 1).flatten(0, 1)


def _plain_fields(states: Sequence[Any]) -> list[tuple[int, str]]:
    """The layers and names of the fields (B, H), of those of each layer's state."""
    return [(k, name) for k, state in enumerate(states) for name in state._fields if getattr(state, name).dim() == 2]
