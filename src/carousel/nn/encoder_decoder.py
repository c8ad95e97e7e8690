"""One sequence in, another out: an encoder reads, a decoder writes, and attention is between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.errors import ConfigError
from carousel.nn.attention import Attention, BahdanauAttention, LuongAttention, Memory
from carousel.nn.embedding import Embedding
from carousel.nn.recurrent import Recurrent

AttentionScore = Literal["none", "additive", "dot", "general", "concat"]
Feed = Literal["nothing", "attentional", "context"]


@dataclass(frozen=True)
class Design:
    """What an `EncoderDecoder` is made of.

    Args:
        feed: what of the attention the next step of the recurrence reads beside the word: "nothing", "attentional" (the
            h̃ of the step before) or "context" (looked up with the state of the step before).
        coverage: the score knows how much each state has been looked at.
        dropout: on vectors of words, between layers, on encoder states and before the output.
        word_dropout: see `Embedding`.
        copies: words of the source can be said again, see `EncoderDecoder.logits`.
    """

    cell: str = "lstm"
    layers: int = 1
    hidden_size: int = 256
    embedding_size: int = 256
    bidirectional: bool = True
    attention: AttentionScore = "general"
    feed: Feed = "nothing"
    coverage: bool = False
    dropout: float = 0.0
    word_dropout: float = 0.0
    copies: bool = False

    def __post_init__(self) -> None:
        if self.coverage and self.attention != "additive":
            raise ConfigError(
                f"coverage: is inside the additive score (got attention={self.attention}); attention=additive; set it"
            )
        if self.copies and self.attention == "none":
            raise ConfigError("copies: a word to copy is looked at (got attention=none); attention=general; set it")


class DecoderState(NamedTuple):
    """What the next word depends on, besides the memory."""

    recurrent: Any
    fed: Tensor  # (B, E), h̃ of the step before
    looked: Tensor  # (B, S), the sum of all weights so far


class EncoderDecoder(nn.Module):
    """Encoder, attention, decoder, and an output whose weights are those of the target's word vectors.

        h̄_1..S = encoder(x_1..S)                          both directions, side by side
        s_0 = tanh(W_0 [h̄→_S; h̄←_1])                      each field of the state of each layer has its own W_0
        s_t = decoder([E y_{t-1}; fed_t], s_{t-1})
        c_t = Σ_j softmax_j(score(s, h̄_j)) h̄_j            s = s_t; with feed "context" s = s_{t-1}
        h̃_t = tanh(W_c [s_t; c_t])
        p(y_t) = softmax(E h̃_t + b)

    fed_t is nothing (all steps of the recurrence at once, then all of the attention), h̃_{t-1} (Luong, Pham and Manning
    2015, arXiv:1508.04025v5, eq. 5 and section 3.3) or c_t (Bahdanau, Cho and Bengio 2015, arXiv:1409.0473v7, A.1.2).
    Without attention c_t is [h̄→_S; h̄←_1] where it is fed, as in Cho et al. 2014 (arXiv:1406.1078v3, section 2.2), and
    is left out where it is not, as in Sutskever, Vinyals and Le 2014 (arXiv:1409.3215v3, section 2).

        e_tj = vᵀ tanh(W s + U h̄_j + w Σ_{t'<t} α_t'j)    with coverage

    See, Liu and Manning 2017, arXiv:1704.04368v2, eq. 11.

        p(y_t) = (1 - g_t) softmax(E h̃_t + b)_y + g_t Σ_{j: x_j = y} α_tj,    g_t = σ(vᵀ h̃_t + b_g)    that copies

    The same, eq. 9; its g_t is of c_t, s_t and E y_{t-1} rather than of h̃_t. Both sides must be `shared`.

    Args:
        vocabularies: of source and target; ids as of `Vocabulary`.
        shared: both have one vocabulary and its vectors.

    Notes:
        The decoder's start is a map of the encoder's last outputs, whatever the cell, where Sutskever et al. copy the
        states; Bahdanau et al. have a maxout layer where we have h̃.

    >>> network = EncoderDecoder(Design(hidden_size=8, embedding_size=8), (11, 12))
    >>> memory, state = network.read(torch.tensor([[4, 5], [6, 0]]), torch.tensor([2, 1]))
    >>> outputs, weights = network.decode(torch.tensor([[1, 1], [7, 8], [9, 0]]), memory, state)
    >>> network.logits(outputs).shape, weights.shape                   # (T, B, V) and (T, B, S)
    (torch.Size([3, 2, 12]), torch.Size([3, 2, 2]))
    """

    def __init__(self, design: Design, vocabularies: tuple[int, int], *, shared: bool = False) -> None:
        super().__init__()
        if design.copies and not shared:
            raise ConfigError("copies: words of the other side (got two vocabularies); one; shared=True, or no copying")
        self.design = design
        E, H = design.embedding_size, design.hidden_size
        self.target = Embedding(vocabularies[1], E, dropout=design.word_dropout)
        self.source = self.target if shared else Embedding(vocabularies[0], E, dropout=design.word_dropout)
        for table in dict.fromkeys((self.target, self.source)):  # not a set, whose order is that of addresses
            nn.init.normal_(table.weight, std=1.6 / E**0.5)  # 0.1 of 256; vectors of one length, however narrow
        layers: dict[str, Any] = {"layers": design.layers, "dropout": design.dropout}
        self.encoder = Recurrent(design.cell, E, H, bidirectional=design.bidirectional, **layers)
        M = self.encoder.output_size
        fed = {"nothing": 0, "attentional": E, "context": M}[design.feed]
        self.decoder = Recurrent(design.cell, E + fed, H, **layers)
        fields = [(k, one) for k, one in enumerate(self.decoder.initial_state(1))]
        self.start = nn.ModuleDict(
            {f"{k}_{name}": nn.Linear(M, H) for k, one in fields for name in one._fields if _plain(getattr(one, name))}
        )
        self.attention = _attention(design, H, M)
        self.weigh_looked = nn.Parameter(torch.zeros(H)) if design.coverage else None
        self.sees = self.attention is not None or design.feed == "context"
        self.combine = nn.Linear(H + M if self.sees else H, E)
        self.bias = nn.Parameter(torch.zeros(vocabularies[1]))
        self.gate = nn.Linear(E, 1) if design.copies else None

    @property
    def at_once(self) -> bool:
        """Whether the decoder's recurrence needs nothing of the attention, so that all of its steps are one run."""
        return self.design.feed == "nothing" and not self.design.coverage

    def forward(self, ids: Tensor, lengths: Tensor, words: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """`decode` of words (T, B), `steps` (B,) of them, given ids (S, B) of lengths (B,)."""
        return self.decode(words, *self.read(ids, lengths), steps)

    def encode(self, ids: Tensor, lengths: Tensor | None = None, state: Any = None) -> tuple[Tensor, Any]:
        """The encoder's outputs (S, B, M) and its state, from ids (S, B); one direction can go on from a state."""
        outputs, state = self.encoder(self._drop(self.source(ids)), state, lengths)
        return outputs, state

    def read(self, ids: Tensor, lengths: Tensor) -> tuple[Memory, DecoderState]:
        """What to attend to and where to start, from ids (S, B) and lengths (B,)."""
        return self.remember(self.encode(ids, lengths)[0], lengths)

    def remember(self, outputs: Tensor, lengths: Tensor) -> tuple[Memory, DecoderState]:
        """As `read`, from the encoder's outputs (S, B, M)."""
        B = len(lengths)
        last = outputs[lengths - 1, torch.arange(B)]
        if self.encoder.bidirectional:
            half = outputs.shape[2] // 2
            last = torch.cat([last[:, :half], outputs[0, :, half:]], 1)
        recurrent = tuple(
            one._replace(
                **{name: torch.tanh(self.start[f"{k}_{name}"](last)) for name in one._fields if self._has(k, name)}
            )
            for k, one in enumerate(self.decoder.initial_state(B))
        )
        if self.attention is None:
            memory = Memory(last[:, None], last[:, None], None)
        else:
            memory = self.attention.remember(self._drop(outputs), lengths)
        nothing = last.new_zeros(B, self.design.embedding_size)
        return memory, DecoderState(recurrent, nothing, last.new_zeros(memory.values.shape[:2]))

    def decode(
        self, words: Tensor, memory: Memory, state: DecoderState, steps: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """h̃ (T, B, E) and the attention's weights (T, B, S) when the words (T, B), <start> first, are given.

        for t in 1..T:  h̃_t, α_t, state = advance(y_{t-1}, state)

        What comes after the `steps` (B,) of each is padding, and means nothing.
        """
        embedded = self._drop(self.target(words))
        if self.at_once:
            hidden, _ = self.decoder(embedded, state.recurrent, steps)
            context, weights = self._look(hidden, memory)
            return self._combined(hidden, context), weights
        found = []
        for x in embedded:
            output, weights, state = self._advance(x, memory, state)
            found.append((output, weights))
        return torch.stack([output for output, _ in found]), torch.stack([weights for _, weights in found])

    def stepper(self, memory: Memory, ids: Tensor | None = None) -> Callable[[Tensor, Any], tuple[Tensor, Any]]:
        """A step for `carousel.decoding`, of B inputs or of K rows for each of them, one input's rows side by side.

        ids (B, S): those of the memory, for a network that copies.
        """

        def step(words: Tensor, state: Any) -> tuple[Tensor, Any]:
            output, weights, state = self._advance(self._drop(self.target(words[None])[0]), memory, state)
            of = None if ids is None else ids.repeat_interleave(len(words) // len(ids), 0)
            return self.logits(output, weights, of), state

        return step

    def logits(self, outputs: Tensor, weights: Tensor | None = None, ids: Tensor | None = None) -> Tensor:
        """(..., V) of h̃ (..., E); where the network copies, of the weights (..., S) and what they look at, too."""
        logits = F.linear(self._drop(outputs), self.target.weight, self.bias)
        if self.gate is None:
            return logits
        if weights is None or ids is None:
            raise ConfigError("logits: nothing to copy from (got no weights or no ids); those of the memory; give both")
        copies, said = torch.sigmoid(self.gate(outputs)), logits.softmax(-1)
        again = torch.zeros_like(said).scatter_add(-1, ids, weights.to(said.dtype))
        return ((1 - copies) * said + copies * again).clamp(min=1e-12).log()

    def _advance(self, x: Tensor, memory: Memory, state: DecoderState) -> tuple[Tensor, Tensor, DecoderState]:
        if self.design.feed == "context":
            context, weights = self._look(state.recurrent[-1][0], memory, state.looked)
            hidden, recurrent = self.decoder.step(torch.cat([x, context], 1), state.recurrent)
        else:
            fed = torch.cat([x, state.fed], 1) if self.design.feed == "attentional" else x
            hidden, recurrent = self.decoder.step(fed, state.recurrent)
            context, weights = self._look(hidden, memory, state.looked)
        output = self._combined(hidden, context)
        return output, weights, DecoderState(recurrent, output, state.looked + weights)

    def _look(self, query: Tensor, memory: Memory, looked: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Contexts and weights of queries (..., B, H), or (B K, H) of K rows for each of B memories."""
        B, rows = len(memory.values), query.shape[-2]
        if self.attention is None:
            context = memory.values[:, 0].repeat_interleave(rows // B, 0).expand(*query.shape[:-1], -1)
            return context, context.new_ones(*query.shape[:-1], 1)
        together = query if rows == B else query.view(B, -1, query.shape[-1]).transpose(0, 1)
        if self.weigh_looked is not None and looked is not None:
            before = looked if rows == B else looked.view(B, -1, looked.shape[-1]).transpose(0, 1)
            memory = memory._replace(keys=memory.keys + before[..., None] * self.weigh_looked)
        context, weights = self.attention(together, memory)
        if rows == B:
            return context, weights
        return context.transpose(0, 1).flatten(0, 1), weights.transpose(0, 1).flatten(0, 1)

    def _combined(self, hidden: Tensor, context: Tensor) -> Tensor:
        return torch.tanh(self.combine(torch.cat([hidden, context], -1) if self.sees else hidden))

    def _has(self, layer: int, field: str) -> bool:
        return f"{layer}_{field}" in self.start

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.design.dropout, self.training)


def coverage_loss(weights: Tensor, real: Tensor) -> Tensor:
    """How much is looked at that has been looked at before, the mean over real steps of

        Σ_j min(α_tj, Σ_{t'<t} α_t'j)

    See, Liu and Manning 2017, arXiv:1704.04368v2, eq. 12. weights: (T, B, S); real: (T, B) of booleans.

    >>> float(coverage_loss(torch.tensor([[[1.0, 0.0]], [[0.75, 0.25]]]), torch.ones(2, 1, dtype=torch.bool)))
    0.375
    """
    before = weights.cumsum(0) - weights
    return torch.minimum(weights, before).sum(-1)[real].mean()


def _plain(field: Any) -> bool:
    return isinstance(field, Tensor) and field.dim() == 2


def _attention(design: Design, query: int, memory: int) -> Attention | None:
    if design.attention == "none":
        return None
    if design.attention == "additive":
        return BahdanauAttention(query, memory, attention_size=query)
    return LuongAttention(query, memory, score=design.attention)
