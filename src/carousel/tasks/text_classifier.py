"""The settings and the network of a classifier of texts."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from carousel.data.bucketing import by_length
from carousel.data.ragged import Keep, Ragged
from carousel.data.vocabulary import UNKNOWN
from carousel.nn import Embedding
from carousel.tasks.text import TextConfig, both_ends


class ClassifyConfig(TextConfig):
    """The data, the network and its training."""

    text: str = Field("", description="the column with the texts; empty: inferred")
    label: str = Field("", description="the column with the labels; empty: inferred")
    split: str = Field("", description="the column that says train, val or test; empty: inferred")
    separator: str = Field("", description="what stands between several labels of one text; empty: inferred")
    keep: Keep = Field("both", description="what of a longer text: its start, its end, or half of both")
    bidirectional: bool = Field(True, description="read each text from its end too")
    pooling: Literal["last", "mean", "max", "attention", "concat"] = Field(
        "max", description="what becomes of the outputs of all steps; concat: last, max and mean side by side"
    )
    balance: float = Field(0.0, ge=0, le=1, description="labels weigh as their frequency to the minus this; 0: alike")
    slower: float = Field(2.6, ge=1, description="begun as a language model: how much slower than the layer above")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="the share of the target that all labels get")
    everything: bool = Field(
        False, description="learn from the validation rows too, for good, once the settings are chosen"
    )


class TextClassifier(nn.Module):
    """Token vectors, a recurrence over them in both directions, its outputs pooled, and a linear map to labels."""

    def __init__(self, config: ClassifyConfig, vocabulary: int, labels: int) -> None:
        super().__init__()
        self.pooling = config.pooling
        self.embedding = Embedding(vocabulary, config.embedding_size, dropout=config.word_dropout)
        nn.init.normal_(self.embedding.weight, std=0.1)
        with torch.no_grad():
            self.embedding.weight[UNKNOWN] = 0  # as a word that is dropped: with min_count=1 training never sees it
        self.recurrent = config.recurrent(config.embedding_size, bidirectional=config.bidirectional)
        self.dropout = nn.Dropout(config.dropout)
        width = self.recurrent.output_size
        self.query = nn.Linear(width, 1, bias=False) if config.pooling == "attention" else None
        self.readout = nn.Linear(3 * width if config.pooling == "concat" else width, labels)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, K) of ids (T, B) and lengths (B,)."""
        return self.judge(self.embedding(ids), lengths)

    def judge(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, K) of token vectors (T, B, E)."""
        outputs, _ = self.recurrent(self.dropout(vectors), lengths=lengths)
        logits: Tensor = self.readout(self.dropout(self.pool(outputs, lengths)))
        return logits

    def pool(self, outputs: Tensor, lengths: Tensor) -> Tensor:
        """(B, ...) of outputs (T, B, ...), of each text's own steps."""
        padding = (torch.arange(len(outputs))[:, None] >= lengths)[..., None]
        if self.query is not None:
            weights: Tensor = self.query(outputs).masked_fill(padding, -torch.inf).softmax(0)
            return (weights * outputs).sum(0)
        pooled = {
            "last": lambda: self._last(outputs, lengths),
            "max": lambda: outputs.masked_fill(padding, -torch.inf).amax(0),
            "mean": lambda: outputs.masked_fill(padding, 0).sum(0) / lengths[:, None],
        }
        names = pooled if self.pooling == "concat" else [self.pooling]
        return torch.cat([pooled[name]() for name in names], dim=1)

    def _last(self, outputs: Tensor, lengths: Tensor) -> Tensor:
        """Of each direction the output when it has read everything."""
        if self.recurrent.bidirectional:
            return both_ends(outputs, lengths)
        return outputs[lengths - 1, torch.arange(len(lengths))]


def logits_of(network: TextClassifier, texts: Ragged, config: ClassifyConfig, size: int = 64) -> Tensor:
    """Logits (N, K) of texts, computed in batches of about one length."""
    found = torch.zeros(len(texts), network.readout.out_features)
    training = network.training
    network.eval()
    with torch.inference_mode():
        for rows in by_length(texts.lengths.clamp(max=config.max_length), size):
            ids, lengths = texts.batch(rows, config.max_length, config.keep)
            found[rows] = network(ids, lengths).float()
    network.train(training)
    return found
