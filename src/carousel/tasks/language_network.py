"""The settings and the network of a language model."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.data.tokenizers import KINDS
from carousel.nn import Embedding
from carousel.tasks.text import TokensConfig

MANY = 40_000  # tokens from which on the softmax is adaptive
MASKS = ("input_mask", "state_mask")


class LanguageConfig(TokensConfig):
    """The text, the network and its training."""

    tokens: Literal["auto", "words", "spaces", "characters", "bytes", "bpe"] = Field(  # type: ignore[assignment]
        "auto",
        description=f"what the text is cut into: {', '.join(KINDS)}; auto: spaces where punctuation stands apart, else "
        "characters",
    )
    lowercase: bool = Field(False, description="Dog and dog are one")
    min_count: int = Field(1, ge=1, description="tokens that occur fewer times in the training data become <unk>")
    val_share: float = Field(0.05, ge=0, lt=0.5, description="of the text, to validate on, where no file is for that")
    test_share: float = Field(
        0.05, ge=0, lt=0.5, description="of the text, its end, for the score; 0: the validation's"
    )

    layers: int = Field(2, ge=1, le=8, description="of the recurrence, one above the other")
    hidden_size: int = Field(256, ge=1, le=8192, description="of the recurrence")
    embedding_size: int = Field(128, ge=1, le=8192, description="of the token vectors")
    tied: bool = Field(True, description="token vectors are the weights of the output too")
    softmax: Literal["auto", "full", "adaptive"] = Field(
        "auto", description=f"adaptive: rare tokens by classes, not tied; auto: so from {MANY} tokens on"
    )

    word_dropout: float = Field(
        0.0, ge=0, lt=1, description="the share of tokens that a stream does without for a step"
    )
    dropout: float = Field(0.25, ge=0, lt=1, description="on token vectors, between layers and on the last outputs")
    locked: bool = Field(False, description="dropout draws one mask for all tokens of a step of training")
    weight_dropout: float = Field(0.0, ge=0, lt=1, description="of the recurrent weights")

    batch_size: int = Field(32, ge=1, le=65536, description="streams that the text is cut into, read side by side")
    bptt: int = Field(100, ge=1, le=100_000, description="tokens of each stream in a step; how far gradients go back")
    clip_norm: float = Field(1.0, gt=0, description="what the gradient's norm, or what `clipping` names, is cut to")
    learning_rate: float = Field(4e-3, gt=0, le=10, description="the greatest, see `schedule`")

    ngram: int = Field(5, ge=1, le=20, description="the longest n-gram of the baseline")
    cache: int = Field(0, ge=0, description="neural cache: how many of the latest tokens are likelier again; 0: none")


class LanguageNetwork(nn.Module):
    """Token vectors, a recurrence over them, and of each output the distribution of the next token."""

    def __init__(self, config: LanguageConfig, vocabulary: int) -> None:
        super().__init__()
        E, dropout = config.embedding_size, config.dropout
        self.locked = dropout if config.locked else 0.0
        self.embedding = Embedding(vocabulary, E, dropout=config.word_dropout)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.recurrent = config.recurrent(
            E, locked=config.locked, input_dropout=self.locked, weight_dropout=config.weight_dropout
        )
        self.dropout = nn.Dropout(0.0 if config.locked else dropout)
        H = self.recurrent.output_size
        self.adaptive = None
        if config.softmax == "adaptive" or (config.softmax == "auto" and vocabulary >= MANY):
            cutoffs = sorted({min(vocabulary - 1, max(1, vocabulary // part)) for part in (20, 4)})
            self.adaptive = nn.AdaptiveLogSoftmaxWithLoss(H, vocabulary, cutoffs)
        tied = config.tied and self.adaptive is None
        self.narrow = nn.Linear(H, E, bias=False) if tied and H != E else None
        self.readout = nn.Linear(H, vocabulary) if self.adaptive is None and not tied else None
        self.bias = nn.Parameter(torch.zeros(vocabulary)) if tied else None

    def forward(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Outputs (T, B, W) after each of the ids (T, B), and the state."""
        outputs, state = self.recurrent(self.dropout(self.embedding(ids)), self._with_new_masks(state))
        if self.locked:
            outputs = outputs * F.dropout(outputs.new_ones(outputs.shape[1:]), self.locked, self.training)
        outputs = self.dropout(outputs)
        return (outputs if self.narrow is None else self.narrow(outputs)), state

    def _with_new_masks(self, state: Any) -> Any:
        """Locked masks are drawn anew for each piece: a stream does not end."""
        if state is None or not (self.locked and self.training):
            return state
        fresh = self.recurrent.initial_state(len(state[0][0]))
        drawn = [{name: getattr(one, name) for name in one._fields if name in MASKS} for one in fresh]
        return tuple(type(f)(*old)._replace(**masks) for f, old, masks in zip(fresh, state, drawn, strict=True))

    def logits(self, outputs: Tensor) -> Tensor:
        """(..., V), up to a constant for each."""
        if self.adaptive is not None:
            found: Tensor = self.adaptive.log_prob(outputs.flatten(0, -2))
            return found.view(*outputs.shape[:-1], -1)
        if self.readout is not None:
            logits: Tensor = self.readout(outputs)
            return logits
        return F.linear(outputs, self.embedding.weight, self.bias)

    def surprise(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """−ln p of targets (N,), given outputs (N, W)."""
        if self.adaptive is not None:
            with torch.autocast("cpu", enabled=False):  # torch's module mixes types
                likelihood: Tensor = self.adaptive(outputs.float(), targets).output
            return -likelihood
        return F.cross_entropy(self.logits(outputs).float(), targets, reduction="none")


@torch.inference_mode()
def read(network: LanguageNetwork, ids: Tensor, before: int, chunk: int = 1000) -> tuple[Tensor, Tensor]:
    """−ln p of each token (N,) and the outputs (N, W) that predict them: one stream, its state never reset."""
    training, state = network.training, None
    network.eval()
    words = torch.cat([torch.tensor([before]), ids.long()])
    found, kept = [], []
    for start in range(0, len(ids), chunk):
        outputs, state = network(words[start : min(start + chunk, len(ids)), None], state)
        found.append(network.surprise(outputs[:, 0], words[start + 1 : start + 1 + len(outputs)]))
        kept.append(outputs[:, 0])
    network.train(training)
    return torch.cat(found), torch.cat(kept)
