"""Tagging: parts of speech, entities, slots; sentences with a tag for each word in, a tagger out.

Read from top to bottom: what is trained, the trained model; settings and network are in `tagging_network`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from carousel import __version__
from carousel.data.bucketing import Buckets, by_length
from carousel.data.captions import Split
from carousel.data.ragged import Batch, Ragged
from carousel.data.schemes import Scheme, inventory, written
from carousel.data.splits import balance
from carousel.data.tables import Row, Table
from carousel.data.tagged import TagColumns, TaggedTexts
from carousel.data.tokenizers import SPLITTERS
from carousel.data.vocabulary import UNKNOWN, Vocabulary
from carousel.errors import ConfigError, DataError
from carousel.metrics.score import Score
from carousel.metrics.spans import Span, parts, span_f1, spans, token_accuracy
from carousel.reports.tagging import Judged, tagging_sections
from carousel.tasks.inspection import Inspection, first
from carousel.tasks.tagging_network import LONGEST_WORD, Lexicon, TagConfig, TaggingNetwork, decode
from carousel.tasks.task import Evaluation, Source, Task
from carousel.tasks.text import lengths_in_words
from carousel.training import Loss, read_model_file, write_model_file
from carousel.training.model_file import begin_with, parts_fit
from carousel.training.progress import LiveProgress

NAME = "tag"


# --- what is trained --------------------------------------------------------------------------------------------------


class Tagging:
    """Training of a tagger; see `carousel.tasks.task.Learner`."""

    objective = "score"

    def __init__(self, config: TagConfig, data: TaggedTexts, file: Path, start_from: Path | None = None) -> None:
        self.config, self.data, self.file = config, data, file
        self.train, self.val, self.test = data.rows("train"), data.rows("val"), data.rows("test")
        known = load(start_from) if start_from else None
        self.lexicon = known.lexicon if known else Lexicon.of(data, self.train, config)
        self.forms = self.lexicon.read(data.forms)
        self.tags = known.tags if known else self._inventory()
        numbers = {tag: k for k, tag in enumerate(self.tags)}
        self.sentences = Ragged(data.tokens[row].tolist() for row in self.train)
        try:
            self.targets = self._targets(self.train, numbers)
        except KeyError as error:
            raise ConfigError(
                f"start_from: a model that does not know a tag (got {error}); {', '.join(self.tags[:5])} ...; "
                "another model"
            ) from None
        self.held = [row for row in self.val if numbers.keys() >= {*self._learned(data.right(row))}]
        self.held_targets = self._targets(self.held, numbers)
        self.buckets = Buckets(self.sentences.lengths.clamp(1, config.max_length), config.batch_size)
        self.steps = len(self.buckets)
        self.config = config.settled(self.steps)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = TaggingNetwork(config, len(self.lexicon.words), len(self.lexicon.letters), self.tags)
        if known:
            begin_with(self.model, known.network)

    def _targets(self, rows: Sequence[int], numbers: Mapping[str, int]) -> Ragged:
        return Ragged([numbers[tag] for tag in self._learned(self.data.right(row))] for row in rows)

    def _learned(self, right: Sequence[str]) -> list[str]:
        """Tags in the scheme in which they are learned."""
        return written(spans(right), len(right), self.config.scheme) if self.data.scheme else list(right)

    def _inventory(self) -> list[str]:
        """All tags that can be said."""
        seen = {tag for row in self.train for tag in self.data.right(row)}
        return (
            inventory({parts(tag)[1] for tag in seen} - {""}, self.config.scheme) if self.data.scheme else sorted(seen)
        )

    def summary(self) -> str:
        data, config = self.data, self.config
        what = f"spans in {data.scheme.upper()}, learned as {config.scheme.upper()}" if data.scheme else "a tag each"
        known, counts = self.forms.words != UNKNOWN, torch.bincount(data.tokens.ids.long(), minlength=len(data.forms))
        unknown = 1 - float(counts[known].sum() / counts.sum())
        weights = sum(p.numel() for p in self.model.parameters())
        shown = [data.tags[k] for k in data.targets.ids.tolist()]
        lines = [
            *data.table.notes,
            *data.notes,
            f"columns: {data.columns.tokens!r} has the words, {data.columns.tags!r} {len(data.tags)} tags: {what} "
            "(others: --set words=COLUMN --set tags=COLUMN)",
            f"sentences: {len(self.train)} to train on, {len(self.val)} to validate on, {len(self.test)} for the test",
            f"tags: {balance(shown)}; {metric_of(data.scheme)} counts",
            f"lengths: {lengths_in_words(self.sentences.lengths)}; in a batch {self.buckets.padding():.1%} is padding "
            f"({self.buckets.padding(sort=False):.0%} without buckets)",
            f"vocabulary: {len(self.lexicon.words)} words and {len(self.lexicon.letters)} letters; {unknown:.1%} of "
            "all tokens are no word of it" + (", and known by their letters" if config.spelling else ""),
            f"network: {config.cell}{' with a CRF' if config.crf else ''}, {weights / 1e6:.2f} million weights",
        ]
        return "\n".join(lines)

    def digest(self) -> str:
        return self.data.digest

    def parameter_groups(self) -> list[dict[str, Any]]:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return [{"params": trained, "lr": self.config.learning_rate}]

    def loss(self, epoch: int, step: int) -> Loss:
        rows = self.buckets.rows(self.config.seed, epoch, step)
        batch = self.sentences.batch(rows, self.config.max_length)
        total, words = self._surprise(batch, self.targets.batch(rows, self.config.max_length).ids)
        return Loss(total / words, total.item(), words)

    def _surprise(self, batch: Batch, targets: Tensor) -> tuple[Tensor, int]:
        """−log p of the right tags, summed over a batch, and how many words it has."""
        ids, lengths = batch
        return -self.model.crf(self.model(ids, lengths, self.forms), targets, lengths).sum(), int(lengths.sum())

    def validate(self) -> dict[str, float]:
        found = self._as_model({}).judged(self.data, self.val, sure=False)
        sentences = Ragged(self.data.tokens[row].tolist() for row in self.held)
        sums = [
            self._surprise(sentences.batch(rows), self.held_targets.batch(rows).ids)
            for rows in by_length(sentences.lengths, 64)
        ]
        loss = float(sum(total for total, _ in sums)) / max(1, sum(words for _, words in sums))
        # Of equal scores, such as those before the first span is found, the one with the smaller loss is better.
        return {
            "score": found.scores[0].value - 1e-6 * loss,
            "validation_loss": loss,
            "accuracy": token_accuracy(found.right, found.said).value,
        }

    def _as_model(self, scores: Mapping[str, float]) -> Tagger:
        facts = {"validation": dict(scores), "carousel": __version__, "data": self.data.digest}
        return Tagger(self.config, self.lexicon, self.tags, self.data.columns, self.data.scheme, self.model, facts)

    def save(self, scores: Mapping[str, float]) -> None:
        self._as_model(scores).save(self.file)

    def baselines(self) -> dict[str, Score]:
        right = [self.data.right(row) for row in self.test]
        said = commonest_tags(self.data, self.train, self.test)
        return {"the commonest tag of each word": main_score(self.data.scheme, right, said)}

    def evaluate(self, model: Tagger) -> Evaluation:
        return model.judged(self.data, self.test).evaluation(f"{len(self.test)} sentences of the test split")


def commonest_tags(data: TaggedTexts, train: Sequence[int], rows: Sequence[int]) -> list[list[str]]:
    """To each word its commonest tag in training; to a new one the commonest of the words that are there once."""
    counts: dict[int, Counter[int]] = {}
    for row in train:
        for form, tag in zip(data.tokens[row].tolist(), data.targets[row].tolist(), strict=True):
            counts.setdefault(form, Counter())[tag] += 1
    once = Counter(tag for tags in counts.values() if tags.total() == 1 for tag in tags)
    new = (once or sum(counts.values(), Counter())).most_common(1)[0][0]
    best = {form: tags.most_common(1)[0][0] for form, tags in counts.items()}
    return [[data.tags[best.get(form, new)] for form in data.tokens[row].tolist()] for row in rows]


def metric_of(scheme: Scheme | None) -> str:
    """What counts."""
    return "span F1" if scheme else "token accuracy"


def main_score(scheme: Scheme | None, right: Sequence[Sequence[str]], said: Sequence[Sequence[str]]) -> Score:
    """The score that counts."""
    return span_f1(right, said) if scheme else token_accuracy(right, said)


# --- the trained model ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tagged:
    """A sentence with its tags, as the training data writes them, and how probable each is."""

    tokens: list[str]
    tags: list[str]
    probabilities: list[float]
    lines: bool = False  # it came as tokens, and goes as lines of a token and its tag

    @property
    def spans(self) -> list[Span]:
        """What the tags say together; none where they are no spans."""
        return spans(self.tags)

    def __str__(self) -> str:
        """A line: ``[PER Ada Lovelace] wrote``, or ``The/DET dog/NOUN``."""
        if self.lines:
            return "".join(f"{token}\t{tag}\n" for token, tag in zip(self.tokens, self.tags, strict=True))
        if not self.spans and any(tag != "O" for tag in self.tags):
            return " ".join(f"{token}/{tag}" for token, tag in zip(self.tokens, self.tags, strict=True))
        words = list(self.tokens)
        for span in self.spans:
            words[span.start] = f"[{span.kind} {words[span.start]}"
            words[span.stop - 1] += "]"
        return " ".join(words)

    def as_json(self) -> dict[str, Any]:
        """As ``carousel predict --json`` prints it."""
        found = [{**span._asdict(), "text": " ".join(self.tokens[span.start : span.stop])} for span in self.spans]
        shown = [round(p, 4) for p in self.probabilities]
        return {"tokens": self.tokens, "tags": self.tags, "probabilities": shown, "spans": found}


def numbered(texts: Sequence[Sequence[str]]) -> tuple[Ragged, list[str]]:
    """Sentences of forms, and the forms, the first of which is that of padding.

    >>> sentences, forms = numbered([["a", "b"], ["a"]])
    >>> sentences[0].tolist(), sentences[1].tolist(), forms
    ([1, 2], [1], ['', 'a', 'b'])
    """
    numbers = {"": 0}
    sentences = Ragged([numbers.setdefault(token, len(numbers)) for token in tokens] for tokens in texts)
    return sentences, list(numbers)


class Tagger:
    """A trained tagger, and its one file."""

    def __init__(
        self,
        config: TagConfig,
        lexicon: Lexicon,
        tags: Sequence[str],
        columns: TagColumns,
        scheme: Scheme | None,
        network: TaggingNetwork,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.lexicon, self.tags, self.columns, self.scheme = config, lexicon, tuple(tags), columns, scheme
        self.network, self.facts = network, dict(facts or {})

    def predict(self, inputs: str | Sequence[str | Sequence[str]]) -> Any:
        """The tags of a text, or of each of several, each a string or a list of tokens."""
        if isinstance(inputs, str):
            return self.predict([inputs])[0]
        texts = [self.read(text) for text in inputs]
        tags, probabilities = self._said(*numbered(texts), sure=True)
        rows = zip(texts, tags, probabilities, inputs, strict=True)
        return [Tagged(tokens, said, sure, not isinstance(given, str)) for tokens, said, sure, given in rows]

    def read(self, text: str | Sequence[str]) -> list[str]:
        """The tokens of a text, which may be a list of them."""
        return SPLITTERS[self.config.tokens](text) if isinstance(text, str) else list(text)

    def _said(
        self, sentences: Ragged, forms: Sequence[str], *, sure: bool
    ) -> tuple[list[list[str]], list[list[float]]]:
        """Tags as the training data writes them."""
        found = decode(self.network, sentences, self.lexicon.read(forms), sure=sure)
        said = [[self.tags[k] for k in tags] for tags in found.tags]
        if self.scheme:
            said = [written(spans(tags), len(tags), self.scheme) for tags in said]
        return said, found.probabilities

    def input_column(self, table: Table) -> str:
        """The column with words, or with plain text."""
        for name in (self.columns.tokens, "tokens", "form", "text"):
            if name in table.columns:
                return name
        raise DataError(
            f"{table.path}: no column {self.columns.tokens!r} (got {', '.join(table.columns)}); that which the "
            "model was trained on; rename it"
        )

    def input_of(self, row: Row, column: str) -> str | list[str]:
        """What `predict` takes, of a row."""
        value = row.values.get(column)
        return [str(token) for token in value] if isinstance(value, list) else row.text(column)

    def evaluate(self, source: Source, split: Split, live: LiveProgress) -> Evaluation:
        """On a split of some data; where nobody says which sentences are in it, on all of them."""
        columns = TagColumns.of(source.table, self.config.words, self.config.tags, self.config.split)
        data = TaggedTexts.read(source.table, columns or self.columns)
        if data.digest == self.facts.get("data"):
            data = data.with_splits(self.config.seed)
        elif not any(data.splits):
            data = replace(data, splits=[split] * len(data.splits))
        for note in data.notes:
            live.tell(note)
        rows = data.rows(split)
        return self.judged(data, rows).evaluation(f"{len(rows)} sentences of the {split} split")

    def judged(self, data: TaggedTexts, rows: Sequence[int], *, sure: bool = True) -> Verdict:
        """What is said of some sentences, beside what is right."""
        sentences = Ragged(data.tokens[row].tolist() for row in rows)
        said, probabilities = self._said(sentences, data.forms, sure=sure)
        right = [data.right(row) for row in rows]
        known = (self.lexicon.read(data.forms).words != UNKNOWN).tolist()
        return Verdict(
            [data.words(row) for row in rows],
            right,
            said,
            probabilities,
            [[known[form] for form in data.tokens[row].tolist()] for row in rows],
            self.scheme,
        )

    def save(self, path: str | Path) -> None:
        """Write the one file that `load` reads."""
        known = {
            "task": NAME,
            "config": self.config.model_dump(),
            "words": self.lexicon.words.to_list(),
            "letters": self.lexicon.letters.to_list(),
            "tags": list(self.tags),
            "columns": asdict(self.columns),
            "scheme": self.scheme,
            **self.facts,
        }
        write_model_file(path, self.network.state_dict(), known)


@dataclass(frozen=True)
class Verdict(Judged):
    """Sentences as they are and as they are said to be."""

    scheme: Scheme | None

    @property
    def scores(self) -> list[Score]:
        """The first counts."""
        accuracy = token_accuracy(self.right, self.said)
        return [span_f1(self.right, self.said), accuracy] if self.scheme else [accuracy]

    def evaluation(self, about: str) -> Evaluation:
        return Evaluation(about, self.scores, tagging_sections(self, in_spans=self.scheme is not None))


def load(path: str | Path) -> Tagger:
    """Read a tagger. Raises `ModelFileError`."""
    tensors, facts = read_model_file(path, NAME)
    with parts_fit(path):
        config, tags = TagConfig(**facts.pop("config")), facts.pop("tags")
        words, letters = (Vocabulary.from_list(facts.pop(name)) for name in ("words", "letters"))
        columns, scheme = TagColumns(**facts.pop("columns")), facts.pop("scheme")
        network = TaggingNetwork(config, len(words), len(letters), tags)
        network.load_state_dict(tensors)
        return Tagger(config, Lexicon(words, letters, config.lowercase), tags, columns, scheme, network.eval(), facts)


# --- the task ---------------------------------------------------------------------------------------------------------


def inspection(model: str | Path, data: str | Path, *, sequences: int = 64, **_: Any) -> Inspection:
    """The network at work on the first sentences of some data, and on the letters of their words; see `Inspection`.

    The loss is the score of the likeliest tag of the word in the middle, negated: so each direction has a half of the
    sentence to come from. Tags are not needed.

    Raises `DataError`, `ModelFileError` for what is wrong with the input.
    """
    tagger, table = load(model), Source(Path(data)).table
    column = tagger.input_column(table)
    nothing = f"{data}: no words (got nothing to read in {column!r}); a sentence for a row; check the file"
    texts = first((tagger.read(tagger.input_of(row, column)) for row in table.rows()), sequences, nothing)
    sentences, forms = numbered(texts)
    ids, lengths = sentences.batch(range(len(texts)))
    spelled = [list(forms[k][:LONGEST_WORD]) or [" "] for k in torch.unique(ids).tolist()]
    return Inspection(
        tagger.network,
        [ids, lengths, tagger.lexicon.read(forms)],
        lambda scores: -scores[(lengths - 1) // 2, torch.arange(len(texts))].amax(1).sum(),
        f"A tagger, reading {len(texts)} sentences of {Path(data).name}. The loss is the score of the likeliest tag of "
        "each sentence's word in the middle, negated.",
        {"spelling": spelled, "recurrent": texts} if tagger.network.spelling else texts,
    )


def recognise(source: Source) -> str | None:
    """CoNLL columns, or lists of words with lists of tags."""
    columns = TagColumns.of(source.table)
    return None if columns is None else f"column {columns.tokens!r} has words, {columns.tags!r} a tag for each"


def learner(
    source: Source, config: TagConfig, file: Path, live: LiveProgress, start_from: Path | None = None
) -> Tagging:
    """What is trained, when the data has been read."""
    table = source.table
    columns = TagColumns.of(table, config.words, config.tags, config.split)
    if columns is None:
        raise DataError(
            f"{table.path}: no words with a tag for each (got {', '.join(table.columns)}); CoNLL columns, or JSON "
            "Lines with two lists of one length; name them with --set words=COLUMN --set tags=COLUMN"
        )
    return Tagging(config, TaggedTexts.read(table, columns).with_splits(config.seed), file, start_from)


TASK = Task(NAME, "tags for words", TagConfig, recognise, learner, load, inspection=inspection)
