"""Translation: pairs of texts in, a translator out; also reversing, transliterating, or any other text from a text.

Read from top to bottom: settings, what is trained, the trained model. The network is `carousel.nn.EncoderDecoder`.

    Cho et al. 2014         cell=gru attention=none feed=context
    Sutskever et al. 2014   cell=lstm layers=4 attention=none bidirectional=false reverse=true
    Bahdanau et al. 2015    cell=gru attention=additive feed=context
    Luong et al. 2015       cell=lstm attention=general feed=attentional
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from carousel import __version__
from carousel.captioning import teacher_forced
from carousel.data.bucketing import Buckets, by_length
from carousel.data.captions import Split
from carousel.data.pairs import Pairs, Sides
from carousel.data.ragged import Ragged, cut
from carousel.data.tables import Table
from carousel.data.tokenizers import Kind, Tokenizer
from carousel.data.vocabulary import PAD, SPECIALS, START, STOP, UNKNOWN
from carousel.decoding import beam_search, sampled_inputs
from carousel.errors import ConfigError, DataError
from carousel.metrics.score import Score
from carousel.metrics.translation import require_sacrebleu, translation_scores
from carousel.nn.encoder_decoder import AttentionScore, Design, EncoderDecoder, Feed, coverage_loss
from carousel.reports.section import Section
from carousel.reports.translation import Alignment, attention_section, samples_section, source_length_section
from carousel.tasks.inspection import Inspection, first, of_pairs
from carousel.tasks.lexicon import lexicon
from carousel.tasks.task import Evaluation, Source, Task
from carousel.tasks.text import TextConfig, lengths_in_words
from carousel.training import Loss, read_model_file, write_model_file
from carousel.training.model_file import parts_fit
from carousel.training.progress import LiveProgress
from carousel.training.seeding import generator

NAME = "translate"
T = TypeVar("T")
Tokenizers = tuple[Tokenizer, Tokenizer]  # of sources and of targets


class TranslateConfig(TextConfig):
    """The data, the network and its training."""

    source: str = Field("", description="the column, or the ending of the files, to translate from; empty: inferred")
    target: str = Field("", description="that to translate into; empty: inferred")
    split: str = Field("", description="the column that says train, val or test; empty: inferred")
    joint: bool = Field(False, description="one vocabulary for both sides, and one table of token vectors")
    reverse: bool = Field(False, description="read each source from its end")
    bidirectional: bool = Field(True, description="read each source from its end too")
    attention: AttentionScore = Field("general", description="how a state is scored; none: only the encoder's last")
    feed: Feed = Field("nothing", description="what of the attention the decoder's next step reads beside the word")
    coverage: float = Field(0.0, ge=0, le=10, description="weight of the coverage loss; above 0 scores know coverage")
    copy_unknown: bool = Field(True, description="write the source word looked at most in the place of <unk>")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="the share of the target that all tokens get")
    sampled: float = Field(0.0, ge=0, le=1, description="share of decoder inputs from the model itself, at the end")
    beam: int = Field(5, ge=1, le=100, description="beam width")
    length_penalty: float = Field(1.0, ge=0, le=2, description="log-probabilities are divided by length to this power")

    tokens: Kind = Field("bpe", description=TextConfig.model_fields["tokens"].description)
    lowercase: bool = Field(False, description="Dog and dog are one, in texts and in scores")
    max_vocabulary: int = Field(5000, ge=10, description="of each side the most tokens; with bpe how many")
    max_length: int = Field(100, ge=1, description="longer texts are cut to so many tokens in training")
    hidden_size: int = Field(256, ge=1, le=8192, description="of each direction of the encoder, and of the decoder")
    embedding_size: int = Field(256, ge=1, le=8192, description="of the token vectors, and of what the output reads")
    dropout: float = Field(0.3, ge=0, lt=1, description="on token vectors, between layers, on states and outputs")
    batch_size: int = Field(64, ge=1, le=65536, description="pairs a step, of about one length")
    epochs: int = Field(12, ge=1, le=10_000, description="at most so many times through the training data")

    def tokenizers(self, pairs: Pairs) -> Tokenizers:
        """Those of sources and targets, of the training data; one and the same where `joint`."""
        if self.joint:
            both = self.tokenizer(text for pair in pairs.texts("train") for text in pair)
            return both, both
        sources, targets = (self.tokenizer(pair[side] for pair in pairs.texts("train")) for side in (0, 1))
        return sources, targets

    def network(self, tokenizers: Tokenizers) -> EncoderDecoder:
        """A network with random weights."""
        known = {field.name for field in fields(Design)} - {"coverage"}
        design = Design(coverage=self.coverage > 0, **self.model_dump(include=known))
        return EncoderDecoder(design, (len(tokenizers[0]), len(tokenizers[1])), shared=self.joint)

    def source_ids(self, tokenizer: Tokenizer, text: str) -> list[int]:
        """A source as the encoder reads it, with its end."""
        return [*self.read(tokenizer.encode(text)), STOP]

    def read(self, tokens: Sequence[T]) -> list[T]:
        """The tokens of a source in the order in which they are read."""
        kept = [token for part in cut(tokens, self.max_length, self.keep) for token in part]
        return kept[::-1] if self.reverse else kept


# --- what is trained --------------------------------------------------------------------------------------------------


class Translation:
    """Training of a translator; see `carousel.tasks.task.Learner`."""

    objective = "score"

    def __init__(self, config: TranslateConfig, data: Pairs, file: Path, start_from: Path | None = None) -> None:
        require_sacrebleu()  # better now than after the training
        self.config, self.data, self.file = config, data, file
        known = load(start_from) if start_from else None
        self.tokenizers = known.tokenizers if known else config.tokenizers(data)
        self.sources = Ragged(config.source_ids(self.tokenizers[0], source) for source, _ in data.texts("train"))
        self.targets = Ragged(self.tokenizers[1].encode(target) for _, target in data.texts("train"))
        self.val, self.test = list(data.texts("val")), list(data.texts("test"))
        lengths = self.sources.lengths + self.targets.lengths.clamp(max=config.max_length)
        self.buckets = Buckets(lengths, config.batch_size)
        self.steps = len(self.buckets)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = config.network(self.tokenizers)
        if known:
            try:
                self.model.load_state_dict(known.network.state_dict())
            except RuntimeError as error:
                raise ConfigError(
                    f"start_from: a model of another shape (got{str(error).splitlines()[1]}); the same settings as "
                    "that model's; give them with --set"
                ) from None

    def summary(self) -> str:
        config, sides = self.config, self.data.sides
        weights = sum(p.numel() for p in self.model.parameters())
        others = [name for name in self.data.table.columns if name not in (sides.source, sides.target)]
        lines = [
            *self.data.table.notes,
            *self.data.notes,
            f"from {sides.source!r} into {sides.target!r}{f', not {others}' if others else ''} (others: --set "
            "source=COLUMN --set target=COLUMN)",
            f"pairs: {len(self.sources)} to train on, {len(self.val)} to validate on, {len(self.test)} for the test",
            f"lengths: {lengths_in_words(self.sources.lengths)} of source, {lengths_in_words(self.targets.lengths)} of "
            f"target; cut to {config.max_length}; in a batch {self.buckets.padding():.1%} is padding",
            f"vocabulary: {len(self.tokenizers[0])} and {len(self.tokenizers[1])} {config.tokens} (others: --set "
            "tokens=words | characters | bytes)",
            f"network: {config.cell}, attention {config.attention}, fed with {config.feed}, {weights / 1e6:.2f} "
            "million weights",
        ]
        return "\n".join(lines)

    def digest(self) -> str:
        return self.data.digest

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters()), "lr": self.config.learning_rate}]

    def loss(self, epoch: int, step: int) -> Loss:
        config, model = self.config, self.model
        rows = self.buckets.rows(config.seed, epoch, step)
        source, source_lengths = self.sources.batch(rows)
        words, lengths, targets = teacher_forced([self.targets[row].tolist() for row in rows], config.max_length)
        memory, state = model.read(source, source_lengths)
        if config.sampled:
            share = config.sampled * (epoch * self.steps + step) / (config.epochs * self.steps)
            draw = generator("sampled", config.seed, epoch, step)
            words = sampled_inputs(
                model.stepper(memory), state, words, share, padding=PAD, forbidden=(PAD, START), generator=draw
            )
        outputs, weights = model.decode(words, memory, state)
        real = torch.arange(len(words))[:, None] < lengths
        logits = model.logits(outputs.transpose(0, 1)[real.t()]).float()
        mean = F.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)
        if config.coverage:
            mean = mean + config.coverage * coverage_loss(weights.float(), real)
        return Loss(mean, mean.item() * len(targets), len(targets))

    def validate(self) -> dict[str, float]:
        said = self._translator({}).translate([source for source, _ in self.val], beam=1)
        right = [target for _, target in self.val]
        scores = translation_scores([found.text for found in said], right, lowercase=self.config.lowercase)
        return {"score": scores[0].value, "chrf": scores[1].value}

    def save(self, scores: Mapping[str, float]) -> None:
        facts = {"validation": dict(scores), "carousel": __version__, "data": self.data.digest}
        self._translator(facts).save(self.file)

    def _translator(self, facts: Mapping[str, Any]) -> Translator:
        return Translator(self.config, self.tokenizers, self.data.sides, self.model, facts)

    def baselines(self) -> dict[str, Score]:
        words = Tokenizer.train("words", (), lowercase=self.config.lowercase).tokens
        known = lexicon((words(source), words(target)) for source, target in self.data.texts("train"))
        right = [target for _, target in self.test]
        said = {
            "the source itself": [source for source, _ in self.test],
            "word by word (IBM model 1)": [" ".join(known.get(w, w) for w in words(source)) for source, _ in self.test],
        }
        lowercase = self.config.lowercase
        return {name: translation_scores(texts, right, lowercase=lowercase)[0] for name, texts in said.items()}

    def evaluate(self, model: Translator) -> Evaluation:
        return model.judged(self.test, f"{len(self.test)} pairs of the test split")


# --- the trained model ------------------------------------------------------------------------------------------------


class Candidate(NamedTuple):
    """One translation of a text."""

    text: str
    logprob: float  # of all its tokens, natural logarithm
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class Translated:
    """What was found for a text, best first; `weights` (T, S) are where the first looked."""

    candidates: tuple[Candidate, ...]
    source: tuple[str, ...]  # its tokens, as the weights count them
    weights: np.ndarray[Any, np.dtype[np.float64]]

    @property
    def text(self) -> str:
        """The best."""
        return self.candidates[0].text

    def __str__(self) -> str:
        return self.text

    def as_json(self) -> dict[str, Any]:
        """As ``carousel predict --json`` prints it."""
        found = [{"text": one.text, "logprob": round(one.logprob, 5)} for one in self.candidates]
        return {"translation": self.text, "candidates": found}


class Aligned(NamedTuple):
    """A translation with the source token that each of its tokens looked at most."""

    translated: Translated

    def pairs(self) -> list[tuple[str, str]]:
        """Written tokens with read ones."""
        found, of = self.translated, self.translated.weights.argmax(1)
        return [(token, found.source[k]) for token, k in zip(found.candidates[0].tokens, of, strict=False)]

    def __str__(self) -> str:
        return f"{self.translated}\t{' '.join(f'{token}<{source}' for token, source in self.pairs())}"

    def as_json(self) -> dict[str, Any]:
        """As ``carousel predict --explain --json`` prints it."""
        weights = self.translated.weights.round(4).tolist()
        return self.translated.as_json() | {"source": list(self.translated.source), "weights": weights}


class Translator:
    """A trained translator, and its one file."""

    def __init__(
        self,
        config: TranslateConfig,
        tokenizers: Tokenizers,
        sides: Sides,
        network: EncoderDecoder,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.tokenizers, self.sides, self.network = config, tokenizers, sides, network
        self.facts = dict(facts or {})
        self.copies = config.copy_unknown and config.attention != "none"

    def predict(self, inputs: str | Sequence[str]) -> Any:
        """The translation of a text, or those of several."""
        found = self.translate([inputs] if isinstance(inputs, str) else inputs)
        return found[0] if isinstance(inputs, str) else found

    def explain(self, inputs: Sequence[str]) -> list[Aligned]:
        """Translations with where they looked."""
        return [Aligned(found) for found in self.translate(inputs)]

    def translate(
        self, texts: Sequence[str], *, beam: int | None = None, n_best: int | None = None, size: int = 32
    ) -> list[Translated]:
        """Translations of texts, the `n_best` (by default `beam`) likeliest that beam search finds for each."""
        beam = beam or self.config.beam
        ids = Ragged(self.config.source_ids(self.tokenizers[0], text) for text in texts)
        found: dict[int, Translated] = {}
        training = self.network.training
        self.network.eval()
        with torch.inference_mode():
            for rows in by_length(ids.lengths, size):
                some = [texts[row] for row in rows]
                found |= zip(rows, self._translated(some, *ids.batch(rows), beam, n_best or beam), strict=True)
        self.network.train(training)
        return [found[row] for row in range(len(texts))]

    def _translated(
        self, texts: Sequence[str], source: Tensor, lengths: Tensor, beam: int, n_best: int
    ) -> list[Translated]:
        memory, state = self.network.read(source, lengths)
        sentences = beam_search(
            self.network.stepper(memory),
            state,
            batch=len(texts),
            start=START,
            stop=STOP,
            width=beam,
            n_best=n_best,
            max_length=2 * len(source) + 10,
            length_normalisation=self.config.length_penalty,
            forbidden=(PAD,) if self.copies else (PAD, UNKNOWN),
        )
        candidates = [list(sentence.words) for found in sentences for sentence in found]
        of = [row for row, found in enumerate(sentences) for _ in found]
        weights = iter(self._weights(candidates, torch.tensor(of), source, lengths))
        return [
            self._put(text, found, [next(weights) for _ in found]) for text, found in zip(texts, sentences, strict=True)
        ]

    def _weights(self, written: list[list[int]], of: Tensor, source: Tensor, lengths: Tensor) -> list[Tensor]:
        """Where each candidate looked: (T, S) of its words and stop and of its source."""
        memory, state = self.network.read(source[:, of], lengths[of])
        words, steps, _ = teacher_forced(written, max(map(len, written), default=0))
        weights = self.network.decode(words, memory, state)[1].transpose(0, 1)
        return [row[:T, :S] for row, T, S in zip(weights, steps.tolist(), lengths[of].tolist(), strict=True)]

    def _put(self, text: str, sentences: Sequence[Any], weights: Sequence[Tensor]) -> Translated:
        """Ids as texts, with source words in the place of unknown ones."""
        read = [*self.config.read(self.tokenizers[0].tokens(text)), "<stop>"]
        candidates = []
        for sentence, looked in zip(sentences, weights, strict=True):
            into = self.tokenizers[1]
            tokens = [into.vocabulary.word(word) for word in sentence.words]
            for t, word in enumerate(sentence.words):
                if word == UNKNOWN and self.copies:
                    tokens[t] = read[int(looked[t, : max(1, len(read) - 1)].argmax())]
            text = " ".join(tokens) if UNKNOWN in sentence.words else into.decode(sentence.words)
            candidates.append(Candidate(text, sentence.logprob, tuple(tokens)))
        return Translated(tuple(candidates), tuple(read), weights[0].double().numpy())

    def input_column(self, table: Table) -> str:
        """The column with sources."""
        if self.sides.source in table.columns:
            return self.sides.source
        if table.kind == "text":
            return "text"
        raise DataError(
            f"{table.path}: no column {self.sides.source!r} (got {', '.join(table.columns)}); that which the model was "
            "trained on; rename it"
        )

    def evaluate(self, source: Source, split: Split, live: LiveProgress) -> Evaluation:
        """On a split of some data; where nobody says which rows are in it, on all of them."""
        sides = Sides.of(source.table, self.sides.source, self.sides.target)
        assert sides is not None, "both are named"
        data = Pairs.read(source.table, sides)
        if data.digest == self.facts.get("data"):
            data = data.with_splits(self.config.seed)
        elif not any(data.splits):
            data = Pairs(data.table, data.sides, [split] * len(data.rows), data.rows, data.digest, data.notes)
        for note in data.notes:
            live.tell(note)
        pairs = list(data.texts(split))
        return self.judged(pairs, f"{len(pairs)} pairs of the {split} split")

    def judged(self, pairs: Sequence[tuple[str, str]], about: str) -> Evaluation:
        """Scores and sections."""
        sources, right = [source for source, _ in pairs], [target for _, target in pairs]
        found = self.translate(sources)
        scores = translation_scores([one.text for one in found], right, lowercase=self.config.lowercase)
        return Evaluation(about, scores, self._sections(sources, right, found, scores[0]))

    def _sections(self, sources: list[str], right: list[str], found: list[Translated], score: Score) -> list[Section]:
        rows = [(source, one.text, target) for source, one, target in zip(sources, found, right, strict=True)]
        each = [float(score.aggregate(row)[0]) for row in score.statistics]
        worst = sorted(range(len(each)), key=lambda k: (each[k], -len(found[k].source)))[:8]
        lengths = np.array([len(one.source) for one in found])
        shown = [k for k in range(len(found)) if 4 <= lengths[k] <= 20 and found[k].candidates[0].tokens][:4]
        sections = [
            samples_section("Translations", "The first of the test split.", rows[:12]),
            samples_section("The worst", "Those with the lowest score of a sentence.", [rows[k] for k in worst]),
            self._n_best_section(sources, found),
            source_length_section(score, lengths),
        ]
        if self.config.attention != "none" and shown:
            alignments = [
                Alignment(found[k].source, (*found[k].candidates[0].tokens, "<stop>"), found[k].weights) for k in shown
            ]
            sections.insert(1, attention_section(alignments))
        return sections

    def _n_best_section(self, sources: list[str], found: list[Translated]) -> Section:
        first = max(range(min(20, len(found))), key=lambda k: len(found[k].source))
        rows = [(one.text, f"{one.logprob:.2f}") for one in found[first].candidates]
        return Section("What else it could have said", sources[first], table=(("translation", "log p"), *rows))

    def save(self, path: str | Path) -> None:
        """Write the one file that `load` reads."""
        tokenizers = [one.facts() for one in (self.tokenizers[:1] if self.config.joint else self.tokenizers)]
        known = {
            "task": NAME,
            "config": self.config.model_dump(),
            "tokenizers": tokenizers,
            "sides": asdict(self.sides),
            **self.facts,
        }
        tensors = dict(self.network.state_dict())
        if self.config.joint:
            del tensors["source.weight"]
        write_model_file(path, tensors, known)


def load(path: str | Path) -> Translator:
    """Read a translator. Raises `ModelFileError`."""
    tensors, facts = read_model_file(path, NAME)
    with parts_fit(path):
        config = TranslateConfig(**facts.pop("config"))
        found = [Tokenizer.from_facts(one) for one in facts.pop("tokenizers")]
        tokenizers, sides = (found[0], found[-1]), Sides(**facts.pop("sides"))
        network = config.network(tokenizers)
        if config.joint:
            tensors["source.weight"] = tensors["target.weight"]
        network.load_state_dict(tensors)
        return Translator(config, tokenizers, sides, network.eval(), facts)


# --- the task ---------------------------------------------------------------------------------------------------------


def inspection(model: str | Path, data: str | Path, *, sequences: int = 64, **_: Any) -> Inspection:
    """Encoder and decoder at work on the first pairs of some data, see `of_pairs`.

    Raises `DataError`, `ModelFileError` for what is wrong with the input.
    """
    known, table = load(model), Source(Path(data)).table
    config, (reads, writes) = known.config, known.tokenizers
    sides = Sides.of(table, known.sides.source, known.sides.target)
    assert sides is not None, "both are named"
    nothing = f"{data}: no pairs (got nothing to read in {sides.source!r} or {sides.target!r}); both; check the file"
    rows = ((reads.tokens(row.text(sides.source)), writes.tokens(row.text(sides.target))) for row in table.rows())
    pairs = first((pair for pair in rows if all(pair)), sequences, nothing)
    sources = [[*config.read(source), SPECIALS[STOP]] for source, _ in pairs]
    targets = [target[: config.max_length] for _, target in pairs]
    return of_pairs(
        known.network,
        list(map(reads.vocabulary.encode, sources)),
        list(map(writes.vocabulary.encode, targets)),
        f"A translator, reading {len(pairs)} pairs of {Path(data).name}. The loss is that of each translation's last "
        "token, given the source and the tokens before.",
        (sources, targets),
    )


def recognise(source: Source) -> str | None:
    """Parallel text, or a table with two columns named as translations are."""
    sides = Sides.of(source.table)
    return None if sides is None else f"{sides.target!r} is a translation of {sides.source!r}"


def learner(
    source: Source, config: TranslateConfig, file: Path, live: LiveProgress, start_from: Path | None = None
) -> Translation:
    """What is trained, when the data has been read."""
    table = source.table
    sides = Sides.of(table, config.source, config.target, config.split)
    if sides is None:
        raise DataError(
            f"{table.path}: no two columns of translations (got {', '.join(table.columns)}); two; name them with --set "
            "source=COLUMN --set target=COLUMN"
        )
    return Translation(config, Pairs.read(table, sides).with_splits(config.seed), file, start_from)


TASK = Task(NAME, "texts into other texts", TranslateConfig, recognise, learner, load, inspection=inspection)
