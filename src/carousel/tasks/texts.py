"""A user's own texts with a label each, to compare recurrences on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from carousel.data.bucketing import Buckets, by_length
from carousel.data.labelled import Examples as Labelled
from carousel.data.labelled import LabelledTexts, Roles
from carousel.data.tables import open_table
from carousel.data.tokenizers import Tokenizer
from carousel.errors import DataError
from carousel.tasks.bag_of_words import tfidf_logits
from carousel.tasks.problem import Examples, Held, Tally, cross_entropy, hits

LONGEST = 400  # tokens; of longer texts the first and the last 200 are read
WORDS = 10_000  # the most that are known


class Texts:
    """Texts of anything that `carousel.data.tables.open_table` reads, each with one label, as a `Problem`.

    Text and label are the columns that `carousel train` would take, and so are the splits. Elements are words, in lower
    case, as vectors that are trained along; these count among the parameters, equally many for each network.

    Raises:
        DataError: there is no column of texts with one of labels, or a text has several.
    """

    every_step, metric, higher_is_better, input_size = False, "accuracy in %", True, 64

    def __init__(self, path: str | Path, batch_size: int = 32) -> None:
        table = open_table(path)
        roles = Roles.of(table)
        if roles is None or roles.several:
            got = f"several in {roles.label!r}" if roles else ", ".join(table.columns)
            raise DataError(
                f"{path}: no texts with one label each (got {got}); a column of both; name them text and label"
            )
        data = LabelledTexts.read(table, roles).with_splits(seed=0)
        words = Tokenizer.train("words", data.texts("train"), lowercase=True, min_count=2, most=WORDS)
        self.parts = {split: data.examples(split, words) for split in ("train", "val", "test")}
        self.name, self.batch_size, self.output_size = Path(path).stem, batch_size, len(data.labels)
        self.vocabulary = len(words)
        self.parameters = self.vocabulary * self.input_size + 50_000
        self.buckets = Buckets(self.parts["train"].texts.lengths.clamp(1, LONGEST), batch_size)
        self.held_out = cache(self._held_out)
        self.baselines = cache(self._baselines)
        counts = ", ".join(f"{len(part)} {split}" for split, part in self.parts.items())
        self.about = (
            f"{Path(path).name}: {counts}; {self.vocabulary:,} words of {self.input_size} weights each; {self.metric}, "
            "more is better"
        )

    @staticmethod
    def _examples(part: Labelled, rows: Sequence[int]) -> Examples:
        ids, lengths = part.texts.batch(rows, LONGEST, "both")
        return Examples(ids, part.targets[rows], lengths)

    def batch(self, seed: int, step: int) -> Examples:
        return self._examples(self.parts["train"], self.buckets.rows(seed, *divmod(step, len(self.buckets))))

    def _held_out(self, split: Held) -> list[Examples]:
        part = self.parts[split]
        return [self._examples(part, rows) for rows in by_length(part.texts.lengths.clamp(max=LONGEST), 128)]

    def loss(self, outputs: Tensor, examples: Examples) -> Tensor:
        return cross_entropy(outputs, examples.targets)

    def measure(self, outputs: Tensor, examples: Examples) -> Tally:
        return hits(outputs, examples.targets)

    def _baselines(self) -> dict[str, float]:
        train, val, test = (self.parts[split] for split in ("train", "val", "test"))
        logits = tfidf_logits(train.texts, train.targets, val.texts, val.targets, test.texts, self.output_size)
        commonest = torch.bincount(train.targets).argmax()
        return {
            "the commonest label": 100.0 * float((test.targets == commonest).float().mean()),
            "TF-IDF + logistic regression": 100.0 * float((test.targets == logits.argmax(1)).float().mean()),
        }
