"""The settings and the network of a tagger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from carousel.data.bucketing import by_length
from carousel.data.ragged import Batch, Ragged
from carousel.data.schemes import Scheme, may_follow
from carousel.data.tagged import TaggedTexts
from carousel.data.vocabulary import Vocabulary
from carousel.nn import Embedding, LinearChainCRF, TagRules
from carousel.tasks.text import TextConfig, both_ends

LONGEST_WORD = 40  # characters; of longer ones, such as addresses, the beginning is read


class TagConfig(TextConfig):
    """The data, the network and its training."""

    words: str = Field("", description="the column with the words of a sentence; empty: inferred")
    tags: str = Field("", description="the column with their tags; empty: inferred")
    split: str = Field("", description="the column that says train, val or test; empty: inferred")
    tokens: Literal["words", "spaces"] = Field("words", description="how predict cuts a line of plain text")
    scheme: Literal["bioes", "bio"] = Field(
        "bioes", description="how spans are learned, whatever the data has; what is predicted is written as the data is"
    )
    crf: bool = Field(True, description="tags know their neighbours; false: each is chosen for itself")
    spelling: int = Field(
        25, ge=0, le=1024, description="size of each direction of the recurrence over letters; 0: none"
    )
    batch_size: int = Field(8, ge=1, le=65536, description="sentences a step, of about one length")
    learning_rate: float = Field(3e-3, gt=0, le=10, description="the greatest, see `schedule`")
    max_length: int = Field(400, ge=1, description="longer sentences are cut in training, and never else")


class Lexicon(NamedTuple):
    """What the network knows of words and letters."""

    words: Vocabulary
    letters: Vocabulary
    lowercase: bool

    @classmethod
    def of(cls, data: TaggedTexts, rows: Sequence[int], config: TagConfig) -> Lexicon:
        """Of some sentences."""
        counts = Counter(word for row in rows for word in data.words(row))
        words: Counter[str] = Counter()
        letters: Counter[str] = Counter()
        for word, count in counts.items():
            words[word.lower() if config.lowercase else word] += count
            letters.update(word)
        known = Vocabulary.of_counts(words, config.min_count, config.max_vocabulary)
        return cls(known, Vocabulary.of_counts(letters, min_count=2), config.lowercase)

    def read(self, forms: Sequence[str]) -> Forms:
        """Words as they are written, as numbers."""
        words = [form.lower() for form in forms] if self.lowercase else forms
        return Forms(torch.tensor(self.words.encode(words)), Ragged(map(self.letters.encode, forms)))


class Forms(NamedTuple):
    """For each form the number of its word (F,), and those of its letters."""

    words: Tensor
    letters: Ragged


class TaggingNetwork(nn.Module):
    """Scores of tags for each word, from the words around it and from how they are spelled.

        w_t = [embedding of the word; last states of a recurrence over its letters, in both directions]
        e_t = W [h→_t; h←_t] + b,   h a recurrence over w, in both directions

    and a `LinearChainCRF` over e. Lample et al. 2016, arXiv:1603.01360, sections 2 and 4.1.
    """

    def __init__(self, config: TagConfig, words: int, letters: int, tags: Sequence[str]) -> None:
        super().__init__()
        self.embedding = Embedding(words, config.embedding_size, dropout=config.word_dropout)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.spelling = None
        if config.spelling:
            self.letters = nn.Embedding(letters, config.spelling)
            self.spelling = config.model_copy(update={"hidden_size": config.spelling, "layers": 1}).recurrent(
                config.spelling, bidirectional=True
            )
        self.recurrent = config.recurrent(config.embedding_size + 2 * config.spelling, bidirectional=True)
        self.dropout = nn.Dropout(config.dropout)
        self.readout = nn.Linear(self.recurrent.output_size, len(tags))
        self.crf = LinearChainCRF(len(tags), learned=config.crf)
        self.rules = tag_rules(tags, config.scheme)

    def forward(self, ids: Tensor, lengths: Tensor, forms: Forms) -> Tensor:
        """e (T, B, K) of sentences of forms (T, B)."""
        vectors = self.embedding(forms.words[ids])
        if self.spelling is not None:
            different, where = torch.unique(ids, return_inverse=True)
            vectors = torch.cat([vectors, self.spell(forms.letters.batch(different.tolist(), LONGEST_WORD))[where]], 2)
        outputs, _ = self.recurrent(self.dropout(vectors), lengths=lengths)
        emissions: Tensor = self.readout(self.dropout(outputs))
        return emissions.float()

    def spell(self, batch: Batch) -> Tensor:
        """(W, 2H) of the letters of W words."""
        assert self.spelling is not None, "it reads letters"
        outputs, _ = self.spelling(self.letters(batch.ids), lengths=batch.lengths)
        return both_ends(outputs, batch.lengths)


def tag_rules(tags: Sequence[str], scheme: Scheme) -> TagRules:
    """Which tags may follow which; those of no spans any."""
    return TagRules(
        torch.tensor([may_follow(None, tag, scheme) for tag in tags]),
        torch.tensor([[may_follow(before, tag, scheme) for tag in tags] for before in tags]),
        torch.tensor([may_follow(tag, None, scheme) for tag in tags]),
    )


class Decoded(NamedTuple):
    """Of each sentence its tags, and how probable each is where that was asked for."""

    tags: list[list[int]]
    probabilities: list[list[float]]


def decode(network: TaggingNetwork, sentences: Ragged, forms: Forms, *, sure: bool = False, size: int = 64) -> Decoded:
    """The likeliest tags of sentences of forms, computed in batches of about one length."""
    found = Decoded([[] for _ in range(len(sentences))], [[] for _ in range(len(sentences))])
    training = network.training
    network.eval()
    with torch.inference_mode():
        for rows in by_length(sentences.lengths, size):
            ids, lengths = sentences.batch(rows)
            emissions = network(ids, lengths, forms)
            path = network.crf.decode(emissions, lengths, network.rules)
            if sure:
                chosen = network.crf.marginals(emissions, lengths).gather(2, path[..., None])[..., 0]
            for b, row in enumerate(rows):
                T = len(sentences[row])
                found.tags[row] = path[:T, b].tolist()
                found.probabilities[row] = chosen[:T, b].tolist() if sure else []
    network.train(training)
    return found
