"""Dialog: conversations in, a partner out who writes its answers word by word.

The network is that of translation, `carousel.nn.EncoderDecoder`, over turns: a one-way encoder reads all that is said,
its state is carried from turn to turn, and at each turn the decoder starts from it and attends to all of the dialog so
far, whose words it can copy. Eric and Manning 2017, arXiv:1701.04024v3, have such an encoder-decoder. Words that nobody
has seen are numbered.

Read from top to bottom: settings, what is trained, the trained model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from carousel import __version__
from carousel.captioning import teacher_forced
from carousel.data.bucketing import Buckets, by_length
from carousel.data.captions import Split
from carousel.data.dialogs import Dialog, NumberedWords, digest_of, parse_line, read_dialogs
from carousel.data.ragged import Ragged
from carousel.data.splits import complete_splits
from carousel.data.tables import Table
from carousel.data.tokenizers import Tokenizer
from carousel.data.vocabulary import PAD, START, STOP, UNKNOWN, Vocabulary
from carousel.decoding import greedy_search
from carousel.errors import ConfigError, DataError
from carousel.metrics.score import Score
from carousel.nn.encoder_decoder import AttentionScore, Design, EncoderDecoder, Feed
from carousel.reports.section import Section
from carousel.tasks.bag_of_words import TfIdf
from carousel.tasks.inspection import Inspection, first, of_pairs
from carousel.tasks.task import Evaluation, Source, Task
from carousel.training import Loss, TrainingConfig, read_model_file, write_model_file
from carousel.training.model_file import parts_fit
from carousel.training.precision import MixedPrecision
from carousel.training.progress import LiveProgress
from carousel.training.seeding import generator

NAME = "dialog"
LONGEST = 40  # words of an answer


class DialogConfig(TrainingConfig):
    """The data, the network and its training."""

    min_count: int = Field(10, ge=1, description="words in fewer training dialogs are numbered, as new ones are")
    numbers: int = Field(100, ge=1, le=10_000, description="so many words of a dialog can be new")
    strange: float = Field(
        0.15, ge=0, lt=1, description="the share of what users bring up that is new to a training dialog"
    )
    cell: str = Field("gru", description="the recurrence, by name; `carousel cells` lists them")
    layers: int = Field(1, ge=1, le=8, description="of the recurrence, one above the other")
    hidden_size: int = Field(128, ge=1, le=8192, description="of the encoder and of the decoder")
    embedding_size: int = Field(64, ge=1, le=8192, description="of the word vectors")
    attention: AttentionScore = Field("general", description="how a state is scored; none: only the encoder's last")
    feed: Feed = Field("nothing", description="what of the attention the decoder's next step reads beside the word")
    copies: bool = Field(True, description="what was read can be said again, by where the attention is")
    dropout: float = Field(0.1, ge=0, lt=1, description="on word vectors, between layers, on states and outputs")
    batch_size: int = Field(16, ge=1, le=65536, description="dialogs a step, of about one length")
    epochs: int = Field(20, ge=1, le=10_000, description="at most so many times through the training data")
    learning_rate: float = Field(5e-3, gt=0, le=10, description="the greatest, see `schedule`")
    # so small a recurrence is faster compiled, in float32, than step by step in bfloat16
    mixed_precision: MixedPrecision = Field("off", description="bfloat16 products; auto: where they pay")

    def network(self, words: NumberedWords) -> EncoderDecoder:
        """A network with random weights."""
        known = {field.name for field in fields(Design)}
        design = Design(bidirectional=False, **self.model_dump(include=known))
        return EncoderDecoder(design, (len(words), len(words)), shared=True)


class Spoken(NamedTuple):
    """A dialog as ids: all that is read, and for each answer where it is due, its ids and the numbered words so far."""

    read: list[int]
    due: list[int]
    answers: list[list[int]]
    names: Sequence[Mapping[str, int]]


def spoken(dialog: Dialog, words: NumberedWords, strange: frozenset[str] = frozenset()) -> Spoken:
    """A dialog as ids; words in `strange` are as if nobody knew them."""
    read: list[int] = []
    due, answers, known = [], [], []
    names: dict[str, int] = {}
    for turn in dialog.turns:
        read += words.heard(turn.heard, names, strange)
        due.append(len(read))
        known.append(dict(names))  # not what the answer itself brings up: nobody can say that
        said = words.said(turn.answer, names, strange)
        answers.append(said[1:])
        read += said
    return Spoken(read, due, answers, known)


# --- what is trained --------------------------------------------------------------------------------------------------


class Conversation:
    """Training of a partner; see `carousel.tasks.task.Learner`."""

    objective = "score"

    def __init__(self, config: DialogConfig, dialogs: Sequence[Dialog], notes: Sequence[str], file: Path) -> None:
        self.config, self.file, self.notes = config, file, notes
        self.train, self.val, self.test = (
            [dialog for dialog in dialogs if dialog.split == split] for split in ("train", "val", "test")
        )
        self._digest = digest_of(dialogs)
        self.words = NumberedWords.train(self.train, config.numbers, config.min_count)
        counts = Counter(word for dialog in self.train for word in _types(dialog))
        rare = {word for word, count in counts.items() if count < len(self.train) / 2}
        self.brought_up = [sorted(_brought_up(dialog) & rare) for dialog in self.train]
        lengths = torch.tensor([len(spoken(dialog, self.words).read) for dialog in self.train])
        self.buckets = Buckets(lengths, config.batch_size)
        self.steps = len(self.buckets)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = config.network(self.words)

    def summary(self) -> str:
        weights = sum(p.numel() for p in self.model.parameters())
        turns = sum(len(dialog.turns) for dialog in self.train)
        new = [word for dialog in self.test for word in _types(dialog) if word not in self.words.vocabulary]
        lines = [
            *self.notes,
            f"dialogs: {len(self.train)} to train on, {len(self.val)} to validate on, {len(self.test)} for the test; "
            f"{turns / len(self.train):.1f} answers and {self.buckets.lengths.float().mean():.0f} words in each",
            f"vocabulary: {self.words.known} words; {len(set(new))} others of the test are numbered",
            f"network: {self.config.cell}, attention {self.config.attention}, {weights / 1e6:.2f} million weights",
        ]
        return "\n".join(lines)

    def digest(self) -> str:
        return self._digest

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters()), "lr": self.config.learning_rate}]

    def loss(self, epoch: int, step: int) -> Loss:
        config, model = self.config, self.model
        rows = self.buckets.rows(config.seed, epoch, step)
        draw = generator("strange", config.seed, epoch, step)
        some = [spoken(self.train[row], self.words, self._strange(row, draw)) for row in rows]
        read, of, due = batch_of(some)
        words, lengths, targets = teacher_forced([one for dialog in some for one in dialog.answers], LONGEST)
        outputs, _ = model.encode(read.ids, read.lengths)
        outputs, weights = model.decode(words, *model.remember(outputs[: int(due.max()), of], due))
        row, place = torch.where(torch.arange(len(words)) < lengths[:, None])
        looked_at = read.ids.t()[of, : weights.shape[2]][row]
        mean = F.cross_entropy(model.logits(outputs[place, row], weights[place, row], looked_at).float(), targets)
        return Loss(mean, mean.item() * len(targets), len(targets))

    def _strange(self, row: int, draw: torch.Generator) -> frozenset[str]:
        types = self.brought_up[row]
        coins = (torch.rand(len(types), generator=draw) < self.config.strange).tolist()
        return frozenset(word for word, coin in zip(types, coins, strict=True) if coin)

    def validate(self) -> dict[str, float]:
        responses, dialogs = accuracies(self.val, self._partner({}).answers(self.val))
        return {"score": responses.value, "dialogs": dialogs.value}

    def save(self, scores: Mapping[str, float]) -> None:
        facts = {"validation": dict(scores), "carousel": __version__, "data": self._digest}
        self._partner(facts).save(self.file)

    def _partner(self, facts: Mapping[str, Any]) -> Partner:
        return Partner(self.config, self.words, self.model, facts)

    def baselines(self) -> dict[str, Score]:
        commonest = Counter(turn.answer for dialog in self.train for turn in dialog.turns).most_common(1)[0][0]
        always = [[commonest] * len(dialog.turns) for dialog in self.test]
        return {
            "the commonest answer": accuracies(self.test, always)[0],
            "the answer to the nearest dialog by TF-IDF": accuracies(self.test, nearest(self.train, self.test))[0],
        }

    def evaluate(self, model: Partner) -> Evaluation:
        return model.judged(self.test, f"{len(self.test)} dialogs of the test split")


def batch_of(some: Sequence[Spoken]) -> tuple[Any, Tensor, Tensor]:
    """What is read (T, B), and for each answer its dialog and how much of that has been read before it."""
    read = Ragged(dialog.read for dialog in some).batch(range(len(some)))
    of = torch.tensor([k for k, dialog in enumerate(some) for _ in dialog.due])
    return read, of, torch.tensor([due for dialog in some for due in dialog.due])


def accuracies(dialogs: Sequence[Dialog], said: Sequence[Sequence[str]]) -> tuple[Score, Score]:
    """The share of answers that are right to the letter, and of dialogs all of whose answers are."""
    hits = [
        [100.0 * (one == turn.answer) for one, turn in zip(ours, dialog.turns, strict=True)]
        for ours, dialog in zip(said, dialogs, strict=True)
    ]
    responses = Score.mean("answers right in %", np.array([hit for dialog in hits for hit in dialog]))
    return responses, Score.mean("dialogs right in %", np.array([min(dialog) for dialog in hits]))


def nearest(train: Sequence[Dialog], test: Sequence[Dialog]) -> list[list[str]]:
    """For each answer that is due the one that was given in training after the most similar words."""
    histories, answers = zip(*[(text, turn.answer) for one in train for text, turn in _histories(one)], strict=True)
    tokenizer = Tokenizer.train("spaces", histories)
    bag = TfIdf(texts := Ragged(map(tokenizer.encode, histories)))
    known = bag(texts).rows
    found = []
    for dialog in test:
        asked = bag(Ragged(tokenizer.encode(text) for text, _ in _histories(dialog))).rows.to_dense()
        found.append([answers[k] for k in (known @ asked.t()).argmax(0).tolist()])
    return found


def _histories(dialog: Dialog) -> Iterator[tuple[str, Any]]:
    text = ""
    for turn in dialog.turns:
        text = f"{text} {' '.join(turn.heard)}"
        yield text, turn
        text = f"{text} {turn.answer}"


def _types(dialog: Dialog) -> set[str]:
    """The different words of a dialog."""
    return {word for turn in dialog.turns for text in (*turn.heard, turn.answer) for word in text.split()}


def _brought_up(dialog: Dialog) -> set[str]:
    """The words that are heard before they are said: of others nobody could know that they are to be numbered."""
    heard: set[str] = set()
    said: set[str] = set()
    for turn in dialog.turns:
        heard |= {word for line in turn.heard for word in line.split()} - said
        said |= set(turn.answer.split()) - heard
    return heard


# --- the trained model ------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What is said."""

    text: str

    def __str__(self) -> str:
        return self.text

    def as_json(self) -> dict[str, Any]:
        """As ``carousel predict --json`` prints it."""
        return {"answer": self.text}


class Talk:
    """A conversation that goes on: of each turn only what is new is read, from the state that was carried over."""

    def __init__(self, network: EncoderDecoder, words: NumberedWords) -> None:
        self.network, self.words = network, words
        self.names: dict[str, int] = {}
        self.read: list[int] = []
        self.outputs: list[Tensor] = []  # (T, 1, M) of each turn
        self.state: Any = None

    def hear(self, line: str) -> None:
        """A fact, or what the user says."""
        self._read(self.words.heard([line], self.names))

    def answer(self) -> str:
        """What is said now, which is read in turn. Raises `ConfigError` where nothing was said yet."""
        if not self.outputs:
            raise ConfigError("dialog: nothing to answer (got no words yet); what the user says; say it first")
        with torch.inference_mode():
            outputs = torch.cat(self.outputs)
            memory, state = self.network.remember(outputs, torch.tensor([len(outputs)]))
            [found] = _written(self.network, memory, state, torch.tensor([self.read]))
        said = self.words.decode(found, self.names)
        self._read(self.words.said(said, self.names))
        return said

    def _read(self, ids: list[int]) -> None:
        with torch.inference_mode():
            outputs, self.state = self.network.encode(torch.tensor(ids)[:, None], state=self.state)
        self.read += ids
        self.outputs.append(outputs)


def _written(network: EncoderDecoder, memory: Any, state: Any, read: Tensor) -> list[Sequence[int]]:
    """What is said for each row of what was read (B, S)."""

    def step(words: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, state = forward(words, state)
        return logits.index_fill(1, torch.tensor([PAD, UNKNOWN]), float("-inf")), state

    forward = network.stepper(memory, read)
    found = greedy_search(step, state, batch=len(read), start=START, stop=STOP, max_length=LONGEST)
    return [sentence.words for sentence in found]


class Partner:
    """A trained partner, and its one file."""

    def __init__(
        self,
        config: DialogConfig,
        words: NumberedWords,
        network: EncoderDecoder,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.words, self.network, self.facts = config, words, network, dict(facts or {})
        self.talking = self.talk()

    def talk(self) -> Talk:
        """A new conversation."""
        self.network.eval()
        return Talk(self.network, self.words)

    def predict(self, inputs: str | Sequence[str]) -> Any:
        """The answer to what is said, or to each of several lines, one after the other in one conversation.

        A line may have the form of the data: number 1 begins another conversation, and the answer behind a tab, where
        there is one, is what is taken to have been said. Among several lines, a numbered one without an answer is a
        fact, which nobody answers.
        """
        if isinstance(inputs, str):
            self._hear(inputs)
            return Answer(self.talking.answer())
        return [Answer(self.talking.answer()) for line in inputs if self._hear(line)]

    def _hear(self, line: str) -> bool:
        """Take in a line; whether it asks for an answer."""
        number, said, answer = parse_line(line) or (0, line.strip(), "")
        if number == 1:
            self.talking = self.talk()
        self.talking.hear(said)
        return answer is not None

    def answers(self, dialogs: Sequence[Dialog], size: int = 16) -> list[list[str]]:
        """What is said at each turn of dialogs, when all before went as it stands there."""
        all_of = [spoken(dialog, self.words) for dialog in dialogs]
        found: dict[int, list[str]] = {}
        training = self.network.training
        self.network.eval()
        with torch.inference_mode():
            for rows in by_length(torch.tensor([len(one.read) for one in all_of]), size):
                some = [all_of[row] for row in rows]
                read, of, due = batch_of(some)
                outputs, _ = self.network.encode(read.ids, read.lengths)
                longest = int(due.max())
                start = self.network.remember(outputs[:longest, of], due)
                written = iter(_written(self.network, *start, read.ids.t()[of, :longest]))
                for row, one in zip(rows, some, strict=True):
                    found[row] = [self.words.decode(next(written), names) for names in one.names]
        self.network.train(training)
        return [found[row] for row in range(len(dialogs))]

    def input_column(self, table: Table) -> str:
        """Lines of dialogs."""
        if table.kind == "text":
            return "text"
        raise DataError(
            f"{table.path}: no dialogs (got {', '.join(table.columns)}); text with lines NUMBER SAID<tab>ANSWER; "
            "write it so"
        )

    def evaluate(self, source: Source, split: Split, live: LiveProgress) -> Evaluation:
        """On a split of some data; where nobody says which dialogs are in it, on all of them."""
        dialogs, _ = _with_splits(list(read_dialogs(source.table)), self.config.seed)
        if digest_of(dialogs) != self.facts.get("data"):
            dialogs = list(read_dialogs(source.table))
            if any(dialog.split for dialog in dialogs):
                dialogs = [dialog for dialog in dialogs if dialog.split == split]
        else:
            dialogs = [dialog for dialog in dialogs if dialog.split == split]
        if not dialogs:
            raise DataError(f"{source.path}: nothing in {split!r} (got no dialog); one that has some; --split chooses")
        return self.judged(dialogs, f"{len(dialogs)} dialogs of the {split} split")

    def judged(self, dialogs: Sequence[Dialog], about: str) -> Evaluation:
        """Scores and sections."""
        said = self.answers(dialogs)
        wrong = [
            (turn.heard[-1], ours, turn.answer)
            for dialog, answers in zip(dialogs, said, strict=True)
            for turn, ours in zip(dialog.turns, answers, strict=True)
            if ours != turn.answer
        ]
        counts = Counter(wrong).most_common(15)
        table = [("times", "heard last", "said", "right"), *((str(n), *row) for row, n in counts)]
        words = f"{len(wrong)} answers are wrong; the commonest."
        first = [(line, ours) for turn, ours in zip(dialogs[0].turns, said[0], strict=True) for line in turn.heard[-1:]]
        sections = [
            Section("The first dialog of the test", "", table=[("heard", "said"), *first]),
            Section("Mistakes", words if wrong else "There is none.", table=table if wrong else ()),
        ]
        return Evaluation(about, accuracies(dialogs, said), sections)

    def save(self, path: str | Path) -> None:
        """Write the one file that `load` reads."""
        known = {
            "task": NAME,
            "config": self.config.model_dump(),
            "vocabulary": self.words.vocabulary.to_list(),
            **self.facts,
        }
        tensors = {name: one for name, one in self.network.state_dict().items() if name != "source.weight"}
        write_model_file(path, tensors, known)


def load(path: str | Path) -> Partner:
    """Read a partner. Raises `ModelFileError`."""
    tensors, facts = read_model_file(path, NAME)
    with parts_fit(path):
        config = DialogConfig(**{"copies": False, **facts.pop("config")})  # older files do not name it
        words = NumberedWords(Vocabulary.from_list(facts.pop("vocabulary")), config.numbers)
        network = config.network(words)
        network.load_state_dict({**tensors, "source.weight": tensors["target.weight"]})
        return Partner(config, words, network.eval(), facts)


# --- the task ---------------------------------------------------------------------------------------------------------


def inspection(model: str | Path, data: str | Path, *, sequences: int = 64, **_: Any) -> Inspection:
    """Encoder and decoder at work on the last answer of each of the first dialogs of some data, see `of_pairs`.

    Raises `DataError`, `ModelFileError` for what is wrong with the input.
    """
    partner, table = load(model), Source(Path(data)).table
    partner.input_column(table)
    nothing = f"{data}: no answer (got dialogs without any); lines NUMBER SAID<tab>ANSWER; check the file"
    dialogs = [
        spoken(Dialog(turns), partner.words)
        for turns in first((one.turns for one in read_dialogs(table)), sequences, nothing)
    ]
    heard = [one.read[: one.due[-1]] for one in dialogs]
    said = [one.answers[-1][:LONGEST] for one in dialogs]
    heard_tokens, said_tokens = (
        [[partner.words.decode([i], one.names[-1]) for i in ids] for one, ids in zip(dialogs, some, strict=True)]
        for some in (heard, said)
    )
    return of_pairs(
        partner.network,
        heard,
        said,
        f"A partner in dialog, reading {len(dialogs)} dialogs of {Path(data).name} up to the last answer of each. The "
        "loss is that of this answer's last word, given all before.",
        (heard_tokens, said_tokens),
    )


def recognise(source: Source) -> str | None:
    """Numbered lines of text, of which some have an answer behind a tab."""
    if source.table.kind != "text":
        return None
    lines = [parse_line(row.text("text")) for row in source.table.first_rows]
    if lines[0] is None or lines[0][0] != 1 or None in lines or not any(line and line[2] for line in lines):
        return None
    return "lines are NUMBER SAID<tab>ANSWER"


def _with_splits(dialogs: list[Dialog], seed: int) -> tuple[list[Dialog], str]:
    splits, said = complete_splits([dialog.split for dialog in dialogs], [0] * len(dialogs), seed)
    divided = [dialog._replace(split=split) for dialog, split in zip(dialogs, splits, strict=True)]
    return divided, said


def learner(
    source: Source, config: DialogConfig, file: Path, live: LiveProgress, start_from: Path | None = None
) -> Conversation:
    """What is trained, when the data has been read."""
    dialogs, said = _with_splits(list(read_dialogs(source.table)), config.seed)
    counts = Counter(dialog.split for dialog in dialogs)
    if len(counts) < 3:
        raise DataError(
            f"{source.path}: too few dialogs (got {len(dialogs)}); some to train on, to validate on and for the test; "
            "add some"
        )
    return Conversation(config, dialogs, [*source.table.notes, said], file)


TASK = Task(NAME, "answers in a dialog", DialogConfig, recognise, learner, load, inspection=inspection)
