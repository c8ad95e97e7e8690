"""What the tasks on text share: settings of tokens and of the recurrence."""

from __future__ import annotations

from typing import Any, Self

import torch
from pydantic import Field
from torch import Tensor

from carousel.data.ragged import Keep
from carousel.data.tokenizers import KINDS, Kind, Tokenizer
from carousel.nn import Recurrent
from carousel.training import TrainingConfig

STEPS = 1000  # that training takes at least, by default


class TokensConfig(TrainingConfig):
    """Tokens and the recurrence that reads them."""

    tokens: Kind = Field("words", description="what a text is cut into: " + ", ".join(KINDS))
    lowercase: bool = Field(True, description="Dog and dog are one")
    min_count: int = Field(2, ge=1, description="tokens that occur fewer times in the training data become <unk>")
    max_vocabulary: int = Field(30_000, ge=10, description="the most tokens, the commonest; with bpe how many")

    cell: str = Field("lstm", description="the recurrence, by name; `carousel cells` lists them")
    layers: int = Field(1, ge=1, le=8, description="of the recurrence, one above the other")
    hidden_size: int = Field(128, ge=1, le=8192, description="of each direction of the recurrence")
    embedding_size: int = Field(100, ge=1, le=8192, description="of the token vectors")

    word_dropout: float = Field(0.1, ge=0, lt=1, description="the share of its words that a text does without")
    dropout: float = Field(0.5, ge=0, lt=1, description="on token vectors, between layers and on the last outputs")

    def tokenizer(self, texts: Any) -> Tokenizer:
        """A tokenizer for these texts."""
        return Tokenizer.train(
            self.tokens, texts, lowercase=self.lowercase, min_count=self.min_count, most=self.max_vocabulary
        )

    def recurrent(self, input_size: int, **options: Any) -> Recurrent:
        """The recurrence."""
        return Recurrent(self.cell, input_size, self.hidden_size, layers=self.layers, dropout=self.dropout, **options)


class TextConfig(TokensConfig):
    """Of texts that are read one by one."""

    max_length: int = Field(400, ge=1, description="longer texts are cut to so many tokens")
    keep: Keep = Field("start", description="what of a longer text: its start, its end, or half of both")
    epochs: int = Field(
        0,
        ge=0,
        le=10_000,
        description="at most so many times through the training data; 0: what makes 1000 steps, 5 to 50",
    )
    batch_size: int = Field(32, ge=1, le=65536, description="texts a step, of about one length")

    def settled(self, steps: int) -> Self:
        """With a number of epochs, of so many steps each."""
        return self if self.epochs else self.model_copy(update={"epochs": min(50, max(5, -(-STEPS // steps)))})


def both_ends(outputs: Tensor, lengths: Tensor) -> Tensor:
    """What both directions give when they have read everything: (B, 2H) of outputs (T, B, 2H), forward first."""
    half = outputs.shape[2] // 2
    ahead = outputs[lengths - 1, torch.arange(len(lengths)), :half]
    return torch.cat([ahead, outputs[0, :, half:]], dim=1)


def lengths_in_words(lengths: Tensor) -> str:
    """The lengths of texts, in a few words.

    >>> import torch
    >>> lengths_in_words(torch.tensor([1, 5, 5, 9]))
    '1 to 9 tokens, half of them up to 5'
    """
    return f"{int(lengths.min())} to {int(lengths.max())} tokens, half of them up to {int(lengths.median())}"
