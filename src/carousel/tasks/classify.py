"""Text classification: sentiment, topic, any label, or several; texts with labels in, a classifier out.

Read from top to bottom: what is trained, the trained model; settings and network are in `text_classifier`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from carousel import __version__
from carousel.data.bucketing import Buckets
from carousel.data.captions import Split
from carousel.data.labelled import Examples, LabelledTexts, Roles
from carousel.data.ragged import Ragged, cut
from carousel.data.splits import balance
from carousel.data.tables import Table
from carousel.data.tokenizers import Tokenizer
from carousel.errors import ConfigError, DataError
from carousel.metrics.classification import accuracy, macro_f1, micro_f1
from carousel.metrics.score import Score
from carousel.reports.classification import calibration_section, confusion_section, length_section
from carousel.reports.section import Section, Text
from carousel.tasks import language
from carousel.tasks.attribution import integrated_gradients, occlusion
from carousel.tasks.bag_of_words import tfidf_logits
from carousel.tasks.inspection import Inspection, first
from carousel.tasks.language import LanguageModel
from carousel.tasks.task import Evaluation, Source, Task
from carousel.tasks.text import lengths_in_words
from carousel.tasks.text_classifier import ClassifyConfig, TextClassifier, logits_of
from carousel.tasks.transfer import begin_as, from_above, shaped_as, thaw
from carousel.training import Loss, model_task, read_model_file, write_model_file
from carousel.training.model_file import begin_with, parts_fit
from carousel.training.progress import LiveProgress

NAME = "classify"
COUNTS = 0.25  # a token counts with at least this share of the greatest attribution
UNEQUAL = 0.8  # where one label has so large a share, accuracy says little, and macro F1 counts


# --- what is trained --------------------------------------------------------------------------------------------------


class Classification:
    """Training of a classifier; see `carousel.tasks.task.Learner`."""

    objective = "score"

    def __init__(self, config: ClassifyConfig, data: LabelledTexts, file: Path, start_from: Path | None = None) -> None:
        self.data, self.file = data, file
        known = _known(start_from) if start_from else None
        if isinstance(known, LanguageModel):
            config = shaped_as(config, known)
        learned: tuple[Split, ...] = ("train", "val") if config.everything else ("train",)
        self.tokenizer = known.tokenizer if known else config.tokenizer(data.texts(*learned))
        self.train, self.val, self.test = (data.examples(split, self.tokenizer) for split in ("train", "val", "test"))
        if config.everything:
            self.train = self.train + self.val
        self.buckets = Buckets(self.train.texts.lengths.clamp(1, config.max_length), config.batch_size)
        self.steps = len(self.buckets)
        roles = {"text": data.roles.text, "label": data.roles.label, "split": data.roles.split or ""}
        self.config = config.settled(self.steps).model_copy(update=roles | {"separator": data.roles.separator})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = TextClassifier(config, len(self.tokenizer), len(data.labels))
        self.layers = from_above(self.model) if isinstance(known, LanguageModel) else []
        if isinstance(known, LanguageModel):
            begin_as(self.model, known)
        elif known:
            self._take(known)
        counts = self.train.targets.sum(0) if data.roles.several else torch.bincount(self.train.targets)
        self.metric = "micro F1" if data.roles.several else "accuracy"
        if not data.roles.several and counts.max() > UNEQUAL * counts.sum():
            self.metric = "macro F1"
        weights = counts.clamp(min=1).float() ** -config.balance
        self.weights = weights / (weights * counts).sum() * counts.sum() if config.balance else None

    def _take(self, known: Classifier) -> None:
        if known.labels != self.data.labels:
            raise ConfigError(
                f"start_from: a model of other labels (got {', '.join(known.labels[:5])}); "
                f"{', '.join(self.data.labels[:5])}; another model"
            )
        begin_with(self.model, known.network)

    def summary(self) -> str:
        roles, data = self.data.roles, self.data
        shown = [data.labels[k] for k in self.train.targets.tolist()] if not roles.several else []
        cut = int((self.train.texts.lengths > self.config.max_length).sum())
        weights = sum(p.numel() for p in self.model.parameters())
        tokens = sum(len(examples.texts.ids) for examples in (self.train, self.val, self.test))
        unknown = float((self.val.texts.ids == 3).float().mean()) if len(self.val.texts.ids) else 0.0
        lines = [
            *data.table.notes,
            *data.notes,
            f"columns: {roles.text!r} is text, {roles.label!r} has {len(data.labels)} labels"
            f"{', several for a text' if roles.several else ''} (others: --set text=COLUMN --set label=COLUMN)",
            f"rows: {len(self.train)} to train on, {len(self.val)}{' of them' * self.config.everything} to validate "
            f"on, {len(self.test)} for the test; kept are {4e-6 * tokens:.1f} MB of token ids, the texts are not",
            *([f"labels: {balance(shown)}; {self.metric} counts"] if shown else []),
            *self._absent(),
            f"lengths: {lengths_in_words(self.train.texts.lengths)}; {cut} cut to {self.config.max_length}; in a batch "
            f"{self.buckets.padding():.1%} is padding ({self.buckets.padding(sort=False):.0%} without buckets)",
            f"vocabulary: {len(self.tokenizer)} {self.config.tokens}; {unknown:.1%} of the validation's are unknown "
            "(others: --set tokens=characters | bytes | bpe)",
            f"network: {self.config.cell}, {weights / 1e6:.2f} million weights",
            *(["begun as the language model; a layer more of it learns in each epoch"] if self.layers else []),
        ]
        return "\n".join(lines)

    def _absent(self) -> list[str]:
        """A line for each split that has none of some label, as may be where one is rare."""
        lines = []
        for what, part in (("validate on", self.val), ("test", self.test)):
            there = set(part.targets.flatten().tolist())
            missing = [label for k, label in enumerate(self.data.labels) if k not in there]
            if missing and not self.data.roles.several:
                lines.append(
                    f"none of the rows to {what} is {', '.join(missing[:5])}: their score says nothing of that"
                )
        return lines

    def digest(self) -> str:
        return self.data.digest

    def parameter_groups(self) -> list[dict[str, Any]]:
        rate = self.config.learning_rate
        if not self.layers:
            return [{"params": list(self.model.parameters()), "lr": rate}]
        return [{"params": layer, "lr": rate / self.config.slower**depth} for depth, layer in enumerate(self.layers)]

    def loss(self, epoch: int, step: int) -> Loss:
        thaw(self.layers, epoch)
        rows = self.buckets.rows(self.config.seed, epoch, step)
        ids, lengths = self.train.texts.batch(rows, self.config.max_length, self.config.keep)
        logits, targets = self.model(ids, lengths).float(), self.train.targets[rows]
        if self.data.roles.several:
            mean = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=self.weights)
        else:
            mean = F.cross_entropy(logits, targets, self.weights, label_smoothing=self.config.label_smoothing)
        return Loss(mean, mean.item() * len(rows), len(rows))

    def validate(self) -> dict[str, float]:
        logits = logits_of(self.model, self.val.texts, self.config)
        right = self.val.targets
        measure = F.binary_cross_entropy_with_logits if self.data.roles.several else F.cross_entropy
        loss = float(measure(logits, right))
        score = (
            main_score(self.metric, logits, right).value - 1e-6 * loss
        )  # of equals the one with the smaller loss wins
        return {"score": score, "validation_loss": loss}

    def save(self, scores: Mapping[str, float]) -> None:
        facts = {"validation": dict(scores), "carousel": __version__, "data": self.data.digest, "metric": self.metric}
        Classifier(self.config, self.tokenizer, self.data.labels, self.data.roles, self.model, facts).save(self.file)

    def baselines(self) -> dict[str, Score]:
        several, right = self.data.roles.several, self.test.targets
        frequency = self.train.targets.mean(0) if several else torch.bincount(self.train.targets).float()
        commonest = (torch.logit(frequency, 1e-6) if several else frequency).expand(len(right), -1)
        commonest = F.pad(commonest, (0, len(self.data.labels) - commonest.shape[1]), value=-1.0)
        words = Tokenizer.train("words", self.data.texts("train"), lowercase=True, min_count=2)
        train, val, test = (Ragged(map(words.encode, self.data.texts(split))) for split in ("train", "val", "test"))
        targets = self.train.targets[: len(train)]  # with `everything` those of the validation rows come after
        logits = tfidf_logits(train, targets, val, self.val.targets, test, len(self.data.labels))
        return {
            "the commonest label": main_score(self.metric, commonest, right),
            "TF-IDF + logistic regression": main_score(self.metric, logits, right),
        }

    def evaluate(self, model: Classifier) -> Evaluation:
        return model.judged(self.test, self.data, f"{len(self.test)} rows of the test split")


def main_score(metric: str, logits: Tensor, right: Tensor) -> Score:
    """The score that counts, of logits (N, K)."""
    if metric == "micro F1":
        return micro_f1(right.double().numpy(), (logits > 0).double().numpy())
    said = logits.argmax(1).numpy()
    return macro_f1(right.numpy(), said, logits.shape[1]) if metric == "macro F1" else accuracy(right.numpy(), said)


# --- the trained model ------------------------------------------------------------------------------------------------


class Labelling(NamedTuple):
    """What a text is said to be: its likeliest label, or all that are likelier than not."""

    labels: tuple[str, ...]
    probability: float  # of the first
    probabilities: dict[str, float]

    def __str__(self) -> str:
        return f"{' '.join(self.labels)}\t{self.probability:.3f}"

    def as_json(self) -> dict[str, Any]:
        """As ``carousel predict --json`` prints it."""
        shown = {label: round(probability, 6) for label, probability in self.probabilities.items()}
        return {"label": list(self.labels) if len(self.labels) != 1 else self.labels[0], "probabilities": shown}


@dataclass(frozen=True)
class Explained:
    """A labelling with what each token adds to its label's logit."""

    labelling: Labelling
    tokens: Sequence[str]
    gradients: Sequence[float]  # integrated gradients
    occlusion: Sequence[float]

    @property
    def shares(self) -> list[tuple[str, float]]:
        """Tokens with integrated gradients from -1 to 1."""
        most = max(map(abs, self.gradients), default=0.0) or 1.0
        return [(token, value / most) for token, value in zip(self.tokens, self.gradients, strict=True)]

    def __str__(self) -> str:
        """The tokens that count, with their shares."""
        tokens = [f"{token}[{share:+.2f}]" if abs(share) >= COUNTS else token for token, share in self.shares]
        return f"{self.labelling}\t{' '.join(tokens)}"

    def coloured(self) -> str:
        """For a terminal: tokens for the label in orange, against it in blue."""
        tokens = [
            f"\x1b[30;48;5;{209 if share > 0 else 75}m{token}\x1b[0m" if abs(share) >= COUNTS else token
            for token, share in self.shares
        ]
        return f"{self.labelling}\t{' '.join(tokens)}"

    def as_json(self) -> dict[str, Any]:
        """As ``carousel predict --explain --json`` prints it."""
        rows = zip(self.tokens, self.gradients, self.occlusion, strict=True)
        return self.labelling.as_json() | {
            "tokens": [{"token": t, "integrated_gradient": round(g, 5), "occlusion": round(o, 5)} for t, g, o in rows]
        }


class Classifier:
    """A trained classifier, and its one file."""

    def __init__(
        self,
        config: ClassifyConfig,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        roles: Roles,
        network: TextClassifier,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.tokenizer, self.labels, self.roles = config, tokenizer, tuple(labels), roles
        self.network, self.facts = network, dict(facts or {})

    def predict(self, inputs: str | Sequence[str]) -> Any:
        """What a text is, or what each of several is."""
        if isinstance(inputs, str):
            return self.predict([inputs])[0]
        texts = Ragged(self.tokenizer.encode(text) for text in inputs)
        return [self._labelling(row) for row in logits_of(self.network, texts, self.config)]

    def _labelling(self, logits: Tensor) -> Labelling:
        probabilities = (logits.sigmoid() if self.roles.several else logits.softmax(0)).tolist()
        order = sorted(range(len(self.labels)), key=lambda k: -probabilities[k])
        chosen = [k for k in order if probabilities[k] > 0.5] if self.roles.several else order[:1]
        return Labelling(
            tuple(self.labels[k] for k in chosen),
            probabilities[order[0]],
            {self.labels[k]: probabilities[k] for k in order},
        )

    def read(self, text: str) -> list[str]:
        """The tokens of a text that the network reads: those that `keep` leaves of a long one."""
        start, end = cut(self.tokenizer.tokens(text), self.config.max_length, self.config.keep)
        return [*start, *end]

    def explain(self, inputs: Sequence[str], steps: int = 32) -> list[Explained]:
        """What each text is, and which tokens speak for it, by integrated gradients and by occlusion."""
        return [self._explained(text, steps) for text in inputs]

    def _explained(self, text: str, steps: int) -> Explained:
        labelling = self.predict(text)
        tokens = self.read(text)
        if not tokens:
            return Explained(labelling, [], [], [])
        best = max(labelling.probabilities, key=labelling.probabilities.__getitem__)
        label = self.labels.index(best)
        ids = torch.tensor(self.tokenizer.vocabulary.encode(tokens))
        self.network.eval()
        with torch.no_grad():
            vectors = self.network.embedding(ids[:, None])[:, 0]

        def output(some: Tensor, lengths: Tensor) -> Tensor:
            return self.network.judge(some, lengths)[:, label]

        gradients = integrated_gradients(output, vectors, steps).tolist()
        return Explained(labelling, tokens, gradients, occlusion(output, vectors).tolist())

    def input_column(self, table: Table) -> str:
        """The column with texts."""
        if self.roles.text in table.columns:
            return self.roles.text
        if table.kind == "text":
            return "text"
        raise DataError(
            f"{table.path}: no column {self.roles.text!r} (got {', '.join(table.columns)}); that which the model was "
            "trained on; rename it"
        )

    def evaluate(self, source: Source, split: Split, live: LiveProgress) -> Evaluation:
        """On a split of some data; where nobody says which rows are in it, on all of them."""
        data = LabelledTexts.read(source.table, self.roles, self.labels)
        if data.digest == self.facts.get("data"):
            data = data.with_splits(self.config.seed)
        elif not any(data.splits):
            data = replace(data, splits=[split] * len(data.splits))
        for note in data.notes:
            live.tell(note)
        examples = data.examples(split, self.tokenizer)
        return self.judged(examples, data, f"{len(examples)} rows of the {split} split")

    def judged(self, examples: Examples, data: LabelledTexts, about: str) -> Evaluation:
        """Scores and sections."""
        logits = logits_of(self.network, examples.texts, self.config)
        right = examples.targets
        first = main_score(self.facts["metric"], logits, right)
        if self.roles.several:
            return Evaluation(about, [first, Score.mean("all labels right in %", _all_right(logits, right))])
        said = logits.argmax(1).numpy()
        others = [accuracy(right.numpy(), said), macro_f1(right.numpy(), said, len(self.labels))]
        scores = [first, *(score for score in others if score.name != first.name)]
        return Evaluation(about, scores, self._sections(examples, data, logits))

    def _sections(self, examples: Examples, data: LabelledTexts, logits: Tensor) -> list[Section]:
        right = examples.targets
        sure, said = logits.softmax(1).max(1)
        hit = (said == right).double().numpy()
        worst = sorted((said != right).nonzero()[:, 0].tolist(), key=lambda k: -float(sure[k]))[:12]
        some = [k for k in range(len(examples)) if said[k] == right[k]][:6]
        texts = data.texts_of([examples.rows[k] for k in (*worst, *some)])

        def shown(k: int) -> Text:
            explained = self._explained(texts[examples.rows[k]], 16)
            caption = f"is {self.labels[right[k]]}, said {self.labels[said[k]]} with {float(sure[k]):.1%}"
            return Text(caption, explained.shares)

        how = "Orange tokens speak for what was said, blue ones against it, by integrated gradients."
        wrong = f"{int(hit.size - hit.sum())} of {hit.size} are wrong; these with the most confidence."
        return [
            confusion_section(right.numpy(), said.numpy(), self.labels),
            *([Section("The worst mistakes", wrong, how, texts=[shown(k) for k in worst])] if worst else []),
            Section("Some that are right", "The first of the test split.", how, texts=[shown(k) for k in some]),
            length_section(examples.texts.lengths.numpy(), hit),
            calibration_section(sure.double().numpy(), hit),
        ]

    def save(self, path: str | Path) -> None:
        """Write the one file that `load` reads."""
        known = {
            "task": NAME,
            "config": self.config.model_dump(),
            "tokenizer": self.tokenizer.facts(),
            "labels": list(self.labels),
            "roles": asdict(self.roles),
            **self.facts,
        }
        write_model_file(path, self.network.state_dict(), known)


def _known(path: Path) -> Classifier | LanguageModel:
    """A model to begin with."""
    found: Classifier | LanguageModel = language.load(path) if model_task(path) == language.NAME else load(path)
    return found


def _all_right(logits: Tensor, right: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return 100.0 * ((logits > 0) == (right > 0)).all(1).double().numpy()


def load(path: str | Path) -> Classifier:
    """Read a classifier. Raises `ModelFileError`."""
    tensors, facts = read_model_file(path, NAME)
    with parts_fit(path):
        config = ClassifyConfig(**facts.pop("config"))
        tokenizer = Tokenizer.from_facts(facts.pop("tokenizer"))
        labels, roles = facts.pop("labels"), Roles(**facts.pop("roles"))
        network = TextClassifier(config, len(tokenizer), len(labels))
        network.load_state_dict(tensors)
        return Classifier(config, tokenizer, labels, roles, network.eval(), facts)


# --- the task ---------------------------------------------------------------------------------------------------------


def inspection(model: str | Path, data: str | Path, *, sequences: int = 64, **_: Any) -> Inspection:
    """The network at work on the first texts of some data; see `Inspection`. Labels are not needed.

    The loss is the logit of the likeliest label, negated.

    Raises `DataError`, `ModelFileError` for what is wrong with the input.
    """
    classifier, table = load(model), Source(Path(data)).table
    column = classifier.input_column(table)
    nothing = f"{data}: no text (got nothing to read in {column!r}); one for a row; check the file"
    tokens = first((classifier.read(row.text(column)) for row in table.rows()), sequences, nothing)
    ids, lengths = Ragged(map(classifier.tokenizer.vocabulary.encode, tokens)).batch(range(len(tokens)))
    pooling = classifier.config.pooling
    return Inspection(
        classifier.network,
        [ids, lengths],
        lambda logits: -logits.amax(1).sum(),
        f"A classifier, reading {len(tokens)} texts of {Path(data).name}. The loss is the logit of each text's "
        f"likeliest label, negated. Outputs are pooled ({pooling})"
        + (
            ": the lag of a step is its distance from the last one."
            if pooling == "last"
            else ", so that any step may be read directly."
        ),
        tokens,
    )


def recognise(source: Source) -> str | None:
    """A table with a column of text and one of labels."""
    roles = Roles.of(source.table)
    return None if roles is None else f"column {roles.text!r} is text, {roles.label!r} is a label"


def learner(
    source: Source, config: ClassifyConfig, file: Path, live: LiveProgress, start_from: Path | None = None
) -> Classification:
    """What is trained, when the data has been read."""
    table = source.table
    roles = Roles.of(table, config.text, config.label, config.split, config.separator)
    if roles is None:
        raise DataError(
            f"{table.path}: no column of texts with one of labels (got {', '.join(table.columns)}); both; name them "
            "with --set text=COLUMN --set label=COLUMN"
        )
    data = LabelledTexts.read(table, roles).with_splits(config.seed)
    return Classification(config, data, file, start_from)


TASK = Task(NAME, "labels for texts", ClassifyConfig, recognise, learner, load, inspection=inspection)
