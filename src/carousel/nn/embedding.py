"""Words as vectors, of which some are unknown for a whole sequence."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from carousel.nn.wrapper import check_probability


class Embedding(nn.Embedding):
    """`torch.nn.Embedding` that drops words: in training each sequence does without some, wherever they occur in it.

    Gal and Ghahramani 2016, arXiv:1512.05287, section 4.2.

    Args:
        vocabulary, size: V, the number of words, and E, the width of their vectors.
        dropout: the probability of a word to be zero throughout a sequence; the others are scaled by 1/(1 − p).
        batch_first: tokens are (B, T) rather than (T, B).

    >>> import torch
    >>> Embedding(vocabulary=100, size=8, dropout=0.1)(torch.zeros(7, 2, dtype=torch.long)).shape
    torch.Size([7, 2, 8])
    """

    def __init__(self, vocabulary: int, size: int, *, dropout: float = 0.0, batch_first: bool = False) -> None:
        check_probability("dropout", dropout)
        super().__init__(vocabulary, size)
        self.dropout, self.batch_first = dropout, batch_first

    def forward(self, tokens: Tensor) -> Tensor:
        """(T, B) -> (T, B, E)."""
        vectors = super().forward(tokens)
        if not (self.training and self.dropout):
            return vectors
        sequences = tokens if self.batch_first else tokens.t()
        known = F.dropout(vectors.new_ones(len(sequences), self.num_embeddings), self.dropout).gather(1, sequences)
        return vectors * (known if self.batch_first else known.t())[..., None]
