"""The deep multimodal similarity model: how well a sentence fits a photo, as the cosine of two vectors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.training import TrainingConfig

MARK = "#"  # begins and ends a word


class SimilarityConfig(TrainingConfig):
    """The model and its training; the rest of its settings are those of all training."""

    trigram_size: int = Field(300, ge=1, le=8192, description="of the vector that a letter trigram adds to its word")
    maps: int = Field(400, ge=1, le=8192, description="feature maps of the convolution over words")
    window: int = Field(3, ge=1, le=15, description="words that the convolution sees at once; odd")
    size: int = Field(500, ge=1, le=8192, description="of the space where photos and sentences meet")
    gamma: float = Field(10.0, gt=0, le=1000, description="what cosines are multiplied with before the softmax")
    negatives: int = Field(50, ge=1, description="other captions of the batch that the true one must be told from")
    both_ways: bool = Field(True, description="the true photo must be told from others' too")
    feature_dropout: float = Field(0.2, ge=0, lt=1, description="on the photo's features")
    dropout: float = Field(0.2, ge=0, lt=1, description="on word vectors and on what was pooled")

    epochs: int = Field(12, ge=1, le=10_000, description="at most so many times through the captions")
    batch_size: int = Field(200, ge=2, le=65536, description="captions a step")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="the greatest, see `schedule`")
    weight_decay: float = Field(
        0.01, ge=0, le=1, description="what is taken from each weight at a step, times the rate"
    )
    patience: int = Field(3, ge=1, description="stop after this many epochs without better validation retrieval")


def letter_trigrams(word: str) -> list[str]:
    """Three letters in a row, again and again, of the word between two marks.

    Huang et al. 2013, "Learning deep structured semantic models for web search using clickthrough data", section 3.2.

    >>> letter_trigrams("good"), letter_trigrams("a")
    (['#go', 'goo', 'ood', 'od#'], ['#a#'])
    """
    marked = f"{MARK}{word}{MARK}"
    return [marked[i : i + 3] for i in range(len(marked) - 2)]


class Trigrams:
    """A fixed list of letter trigrams; the number of one is its place. Those not listed count for nothing.

    >>> Trigrams.build(["dog", "dogs"]).numbers("dodo")
    [0]
    """

    def __init__(self, trigrams: Sequence[str]) -> None:
        self._trigrams = list(trigrams)
        self._numbers = {trigram: i for i, trigram in enumerate(self._trigrams)}
        if len(self._numbers) < len(self._trigrams) or any(len(trigram) != 3 for trigram in self._trigrams):
            raise ValueError("trigrams: each has three letters and stands there once")

    @classmethod
    def build(cls, words: Iterable[str]) -> Trigrams:
        """All trigrams of the words, by alphabet."""
        return cls(sorted({trigram for word in set(words) for trigram in letter_trigrams(word)}))

    def numbers(self, word: str) -> list[int]:
        """The number of each known trigram of a word, as often as it is there."""
        return [self._numbers[trigram] for trigram in letter_trigrams(word) if trigram in self._numbers]

    def to_list(self) -> list[str]:
        """All of them in order, ready for JSON."""
        return list(self._trigrams)

    def __len__(self) -> int:
        return len(self._trigrams)


class DMSM(nn.Module):
    """A photo and a sentence as vectors of one space.

        x_t = Σ_{g in trigrams of word t} E_g                 that is E times the word's letter-trigram counts
        h_t = tanh(W_c [x_{t-1}; x_t; x_{t+1}] + b_c)         a convolution over the words
        y_D = tanh(W_s max_t h_t + b_s)                       of the sentence D
        y_I = tanh(W_i v + b_i)                               of the photo I with the features v, standardised
        R(I, D) = y_I · y_D / (|y_I| |y_D|)

    Fang et al. 2015, arXiv:1411.4952, section 5; the convolution is that of Shen et al. 2014, "A latent semantic model
    with convolutional-pooling structure for information retrieval", section 3.

    Notes:
        E W_c in place of one wide W_c over trigram counts: the same map with fewer weights.

    >>> model = DMSM(SimilarityConfig(size=8), features=5, trigrams=Trigrams.build(["a", "dog", "runs"]))
    >>> model(torch.randn(2, 5), [["a", "dog"], ["a"], ["dog", "runs"]]).shape
    torch.Size([2, 3])
    """

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, config: SimilarityConfig, features: int, trigrams: Trigrams) -> None:
        super().__init__()
        self.config, self.trigrams = config, trigrams
        self.embedding = nn.EmbeddingBag(len(trigrams), config.trigram_size, mode="sum")
        self.convolution = nn.Conv1d(config.trigram_size, config.maps, config.window, padding=config.window // 2)
        self.sentence = nn.Linear(config.maps, config.size)
        self.image = nn.Linear(features, config.size)
        nn.init.normal_(self.embedding.weight, std=0.2)
        nn.init.normal_(self.image.weight)  # v has about unit length
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_scale", torch.ones(features))

    def standardise_by(self, features: Tensor) -> None:
        """Take mean and deviation from the training photos' features (N, F)."""
        features = features.float()
        self.feature_mean.copy_(features.mean(0))
        self.feature_scale.copy_(features.std(0, correction=min(1, len(features) - 1)) + 1e-3)

    def photos(self, features: Tensor) -> Tensor:
        """Unit vectors (N, size) of photos' features (N, F)."""
        v = (features - self.feature_mean) / self.feature_scale
        v = F.dropout(v.clamp(-5, 5) / math.sqrt(v.shape[1]), self.config.feature_dropout, self.training)
        return F.normalize(torch.tanh(self.image(v)))

    def sentences(self, sentences: Sequence[Sequence[str]]) -> Tensor:
        """Unit vectors (N, size) of sentences, each a list of words; one without words is read as an unknown word."""
        number = {word: i + 1 for i, word in enumerate(sorted({word for words in sentences for word in words}))}
        rows = [torch.tensor([number[word] for word in words] or [0]) for words in sentences]
        lengths = torch.tensor([len(row) for row in rows])
        x = self._words(list(number))[nn.utils.rnn.pad_sequence(rows, batch_first=True)]  # (N, T, trigram_size)
        h = torch.tanh(self.convolution(x.transpose(1, 2)))  # (N, maps, T)
        padding = torch.arange(h.shape[2]) >= lengths[:, None]
        pooled = h.masked_fill(padding[:, None], -torch.inf).amax(2)
        return F.normalize(torch.tanh(self.sentence(self._drop(pooled))))

    def _words(self, words: list[str]) -> Tensor:
        """x of every word, (1 + words, trigram_size); first that of the padding, which is all zeros."""
        bags = [self.trigrams.numbers(word) for word in words]
        numbers = torch.tensor([number for bag in bags for number in bag], dtype=torch.long)
        starts = torch.tensor([0, *(len(bag) for bag in bags)]).cumsum(0)[:-1]
        return F.pad(self._drop(self.embedding(numbers, starts)), (0, 0, 1, 0))

    def forward(self, features: Tensor, sentences: Sequence[Sequence[str]]) -> Tensor:
        """The cosine of every photo (N, F) with every sentence: (N, M)."""
        return self.photos(features) @ self.sentences(sentences).T

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training)


def similarity_loss(
    cosines: Tensor, photo: Tensor, gamma: float, negatives: int, generator: torch.Generator | None = None
) -> Tensor:
    """How surprising the true sentence of each photo is among those of other photos.

        P(D+ | I) = exp(γ R(I, D+)) / Σ_{D in {D+, D-_1 .. D-_N}} exp(γ R(I, D)),    L = - mean of log P(D+ | I)

    Fang et al. 2015, arXiv:1411.4952, section 5. Transposed `cosines` ask for the true photo of each sentence.

    Args:
        cosines: (B, B); the pairs on the diagonal belong together.
        photo: (B,) numbers of the photos: other sentences of the same photo are no negatives.
        negatives: so many others are drawn for each row; as many as there are, where there are fewer.

    >>> similarity_loss(torch.eye(3), torch.arange(3), gamma=1.0, negatives=2).exp()   # (e + 2) / e
    tensor(1.7358)
    """
    others = photo[:, None] != photo
    if negatives < len(photo) - 1:
        lots = torch.rand(cosines.shape, generator=generator).masked_fill(~others, -1.0)
        others &= torch.zeros_like(others).scatter(1, lots.topk(negatives, 1).indices, True)
    kept = others | torch.eye(len(photo), dtype=torch.bool)
    return F.cross_entropy((gamma * cosines).masked_fill(~kept, -torch.inf), torch.arange(len(photo)))
