"""Language models: running text in, a model out that says how likely a text is and writes more of it.

Read from top to bottom: what is trained, the trained model; settings and network are in `language_network`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carousel import __version__
from carousel.data.captions import Split
from carousel.data.corpus import LINE_END, Corpus, Stream, before_all, joined, tokenizer_for, tokens_of
from carousel.data.tables import Table
from carousel.data.tokenizers import Kind, Tokenizer
from carousel.data.vocabulary import SPECIALS
from carousel.decoding import NeuralCache, generate
from carousel.errors import DataError
from carousel.metrics.perplexity import bits_per_character, perplexity
from carousel.metrics.score import Score
from carousel.reports.language import costly_section, samples_section, surprise_section
from carousel.reports.section import Section
from carousel.tasks.inspection import Inspection
from carousel.tasks.kneser_ney import KneserNey
from carousel.tasks.language_network import LanguageConfig, LanguageNetwork, read
from carousel.tasks.task import Evaluation, Source, Task
from carousel.training import BPTT, Columns, Loss, read_model_file, write_model_file
from carousel.training.model_file import begin_with, parts_fit
from carousel.training.pieces import Piece
from carousel.training.progress import LiveProgress

NAME = "language"
Floats = NDArray[np.float64]
SURPRISING = 2.0  # −ln p of a token that is marked


# --- what is trained --------------------------------------------------------------------------------------------------


class LanguageTraining:
    """Truncated backpropagation over a text in parallel streams; see `carousel.tasks.task.Learner`."""

    objective = "score"

    def __init__(self, config: LanguageConfig, corpus: Corpus, file: Path, start_from: Path | None = None) -> None:
        self.corpus, self.file = corpus, file
        known = load(start_from) if start_from else None
        kind: Kind = corpus.kind() if config.tokens == "auto" else config.tokens
        self.config = config = config.model_copy(update={"tokens": kind})
        self.tokenizer = known.tokenizer if known else tokenizer_for(
            kind, corpus.lines("train"), lowercase=config.lowercase, min_count=config.min_count,
            most=config.max_vocabulary,
        )  # fmt: skip
        self.held: Split = "test" if "test" in corpus.splits else "val"
        self.streams = {split: corpus.stream(split, self.tokenizer) for split in ("train", "val", self.held)}
        self.before = before_all(self.tokenizer)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = LanguageNetwork(config, len(self.tokenizer))
        if known:
            begin_with(self.model, known.network)
        ids = self.streams["train"].ids
        self.batch = min(config.batch_size, max(1, len(ids) // (4 * config.bptt)))
        self.text = torch.cat([torch.tensor([self.before], dtype=torch.int32), ids])
        self.columns = lru_cache(maxsize=1)(self._columns)
        self.steps = len(self.columns(0))
        self.bptt = BPTT(self._forward, self.model, k1=config.bptt, initial_state=self.model.recurrent.initial_state)

    def _columns(self, epoch: int) -> Columns:
        """The streams of an epoch, which begin at another place each time: pieces do not meet where they did."""
        steps = self.config.bptt
        draw = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
        shift = int(torch.randint(steps, (1,), generator=draw)) if len(self.text) > 8 * steps else 0
        usable = len(self.text) - 1 - (steps if len(self.text) > 8 * steps else 0)
        inputs, targets = self.text[shift : shift + usable], self.text[shift + 1 : shift + 1 + usable]
        return Columns(inputs, targets, self.batch, steps)

    def summary(self) -> str:
        config, streams = self.config, self.streams
        weights = sum(p.numel() for p in self.model.parameters())
        unknown = float((streams["val"].ids == 3).float().mean())
        sizes = [f"{len(streams[split].ids):,} for {words}" for split, words in SPLITS.items() if split in streams]
        lines = [
            *self.corpus.table.notes,
            f"text: {len(streams['train'].ids):,} {UNITS[self.tokenizer.kind]} to train on, {', '.join(sizes)}"
            + ("" if self.held == "test" else "; the score is the validation's, by which the model is chosen too"),
            f"vocabulary: {len(self.tokenizer):,} {self.tokenizer.kind}; {unknown:.1%} of the validation's are unknown "
            "(others: --set tokens=words | spaces | characters | bytes | bpe)",
            f"{self.batch} streams, {config.bptt} tokens a step, the state carried over; {self.steps} steps an epoch; "
            "what is held out is read in one stream, every token given all before it",
            f"network: {config.layers} x {config.hidden_size} {config.cell}, {weights / 1e6:.2f} million weights"
            + (", adaptive softmax" if self.model.adaptive is not None else ""),
        ]
        return "\n".join(lines)

    @cached_property
    def _digest(self) -> str:
        return self.corpus.digest()

    def digest(self) -> str:
        return self._digest

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters()), "lr": self.config.learning_rate}]

    def _forward(self, piece: Piece, state: Any) -> tuple[Tensor, Any]:
        outputs, state = self.model(piece.inputs.long(), state)
        surprise = self.model.surprise(outputs.flatten(0, 1), piece.targets.long().flatten())
        return surprise.sum() / (self.batch * self.config.bptt), state

    def loss(self, epoch: int, step: int) -> Loss:
        if step == 0:
            self.bptt.reset()
        piece = self.columns(epoch)[step]
        mean = self.bptt(piece)
        return Loss(mean, mean.item() * self.batch * self.config.bptt, piece.inputs.numel())

    def carried(self) -> dict[str, Tensor]:
        return self.bptt.state_dict()

    def carry(self, tensors: Mapping[str, Tensor]) -> None:
        self.bptt.load_state_dict(tensors)

    def validate(self) -> dict[str, float]:
        surprise, _ = read(self.model, self.streams["val"].ids, self.before)
        loss = float(surprise.double().mean())
        return {"score": -loss, "validation_loss": loss, "validation_perplexity": float(np.exp(loss))}

    def save(self, scores: Mapping[str, float]) -> None:
        counts = torch.bincount(self.streams["train"].ids, minlength=len(self.tokenizer)).tolist()
        facts = {"validation": dict(scores), "carousel": __version__, "data": self.digest(), "counts": counts}
        LanguageModel(self.config, self.tokenizer, self.model, facts).save(self.file)

    def baselines(self) -> dict[str, Score]:
        model = KneserNey(self.streams["train"].ids, len(self.tokenizer), self.config.ngram)
        name = f"{model.order}-grams, interpolated Kneser-Ney"
        return {name: perplexity(model.surprise(self.streams[self.held].ids))}

    def evaluate(self, model: LanguageModel) -> Evaluation:
        tune = self.streams["val"] if self.config.cache else None
        return model.judged(self.streams[self.held], self.held, tune)


SPLITS = {"val": "validation", "test": "the test"}
UNITS = {"words": "words", "spaces": "words", "characters": "characters", "bytes": "bytes", "bpe": "pieces of words"}


# --- the trained model ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Surprise:
    """What a model thinks of a text: −ln p of each token."""

    text: str
    tokens: Sequence[str]
    surprise: Sequence[float]
    apart: str = " "  # what stands between tokens

    @property
    def perplexity(self) -> float:
        """exp of the mean."""
        return float(np.exp(np.mean(self.surprise)))

    def __str__(self) -> str:
        return f"{self.perplexity:.2f}\t{self.text}"

    def as_json(self) -> dict[str, Any]:
        """As ``carousel predict --json`` prints it."""
        tokens = [{"token": t, "surprise": round(s, 4)} for t, s in zip(self.tokens, self.surprise, strict=True)]
        return {"text": self.text, "perplexity": round(self.perplexity, 4), "nats": round(sum(self.surprise), 4),
                "tokens": tokens}  # fmt: skip


class Explained(Surprise):
    """The same, of which a line shows the tokens that were not expected."""

    def __str__(self) -> str:
        shown = [f"{token}[{value:.1f}]" if value >= SURPRISING else token for token, value in self._before_the_end]
        return f"{self.perplexity:.2f}\t{self.apart.join(shown)}"

    def coloured(self) -> str:
        """For a terminal: the less it was expected, the redder."""
        shown = [
            f"\x1b[30;48;5;{224 if value < 4 else 217 if value < 7 else 210}m{token}\x1b[0m"
            if value >= SURPRISING
            else token
            for token, value in self._before_the_end
        ]
        return f"{self.perplexity:.2f}\t{self.apart.join(shown)}"

    @property
    def _before_the_end(self) -> list[tuple[str, float]]:
        return list(zip(self.tokens, self.surprise, strict=True))[:-1]


class LanguageModel:
    """A trained language model, and its one file."""

    def __init__(
        self,
        config: LanguageConfig,
        tokenizer: Tokenizer,
        network: LanguageNetwork,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.tokenizer, self.network, self.facts = config, tokenizer, network, dict(facts or {})
        self.before = before_all(tokenizer)

    def predict(self, inputs: str | Sequence[str]) -> Any:
        """How surprising a line is, or each of several, with its end."""
        if isinstance(inputs, str):
            return self.predict([inputs])[0]
        return [Surprise(text, *self._judged(text)) for text in inputs]

    def explain(self, inputs: Sequence[str]) -> list[Explained]:
        """The same; `str` of it shows which tokens were surprising."""
        return [Explained(text, *self._judged(text)) for text in inputs]

    @property
    def apart(self) -> str:
        """What stands between two tokens of a text."""
        return " " if self.tokenizer.kind in ("words", "spaces") else ""

    def shown(self, token: str) -> str:
        """A token as it looks in a text: of pieces and bytes what they stand for; the end of a line can be seen."""
        if self.tokenizer.kind in ("bytes", "bpe"):
            token = joined(self.tokenizer, self.tokenizer.vocabulary.encode([token]))
        return "↵\n" if token == LINE_END else token

    def _judged(self, text: str) -> tuple[list[str], list[float], str]:
        tokens = tokens_of(self.tokenizer, text + LINE_END)
        ids = torch.tensor(self.tokenizer.vocabulary.encode(tokens))
        return tokens, read(self.network, ids, self.before)[0].tolist(), self.apart

    def generate(self, prompt: str = "", *, length: int = 200, **options: Any) -> str:
        """The prompt and `length` tokens after it; options as of `stream`."""
        return prompt + "".join(self.stream(prompt, length=length, **options))

    def stream(
        self,
        prompt: str = "",
        *,
        length: int = 200,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Iterator[str]:
        """What comes after the prompt, in parts as they are drawn: the same for the same seed.

        Raises `ConfigError` where a number is out of its range, and `DataError` for a prompt of unknown tokens.
        """
        self.network.eval()
        start = self._prompt(prompt)
        with torch.inference_mode():
            outputs, state = self.network(torch.tensor(start)[:, None])
            first = self.network.logits(outputs[-1])[0]
        feed = self.network.recurrent.stream(state=state)

        @torch.inference_mode()
        def step(token: int) -> Tensor:
            output = feed(self.network.embedding(torch.tensor([token])))
            narrow = output if self.network.narrow is None else self.network.narrow(output)
            return self.network.logits(narrow)[0]

        drawn = generate(
            step, first, temperature=temperature, top_k=top_k, top_p=top_p, forbidden=self._never,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        return self._written(start[-1:] if prompt else [], islice(drawn, length))

    @property
    def _never(self) -> list[int]:
        """Tokens that are not text."""
        return list(range(len(SPECIALS)))

    def _prompt(self, prompt: str) -> list[int]:
        tokens = tokens_of(self.tokenizer, prompt)
        ids = self.tokenizer.vocabulary.encode(tokens)
        if unknown := [token for token, i in zip(tokens, ids, strict=True) if i == 3 and token != SPECIALS[3]]:
            raise DataError(
                f"prompt: not in the vocabulary (got {unknown[0]!r}); the {len(self.tokenizer):,} "
                f"{UNITS[self.tokenizer.kind]} of the training text; choose others"
            )
        return [self.before, *ids]

    def _written(self, context: list[int], drawn: Iterator[int]) -> Iterator[str]:
        """Text as it becomes whole: a character may be several bytes, and between words there are spaces."""
        pending: list[int] = []
        for token in drawn:
            pending.append(token)
            shown, known = joined(self.tokenizer, [*context, *pending]), joined(self.tokenizer, context)
            if shown.endswith("\ufffd") and len(pending) < 4:
                continue
            yield shown[len(known) :]
            context, pending = pending, []

    def input_column(self, table: Table) -> str:
        """The column with texts."""
        if table.kind != "text":
            raise DataError(f"{table.path}: no lines of text (got {', '.join(table.columns)}); plain text; choose it")
        return "text"

    def evaluate(self, source: Source, split: Split, live: LiveProgress) -> Evaluation:
        """On a split of some text; of a file that was not trained on, all of it."""
        corpus = Corpus.of(source.table, self.config.val_share, self.config.test_share)
        if corpus.digest() != self.facts.get("data") and set(corpus.files) == {"train"}:
            corpus = Corpus(corpus.table, {}, {"train": (), split: corpus.files["train"]})
        tune = corpus.stream("val", self.tokenizer) if self.config.cache and "val" in corpus.splits else None
        return self.judged(corpus.stream(split, self.tokenizer), split, tune)

    def judged(self, stream: Stream, split: str, tune: Stream | None = None) -> Evaluation:
        """Scores and sections of a text that is read in one stream; with a neural cache, tuned on another."""
        found, outputs = read(self.network, stream.ids, self.before)
        surprise: Floats = found.double().numpy()
        scores = [perplexity(surprise), bits_per_character(surprise, stream.characters)]
        if tune is not None:
            cache = NeuralCache.chosen(self.config.cache, *read(self.network, tune.ids, self.before), tune.ids)
            cached = perplexity(cache.surprise(found, outputs, stream.ids).double().numpy())
            name = f"perplexity with a cache of {cache.size} (θ {cache.flatness}, λ {cache.share})"
            scores.append(Score(name, cached.statistics, cached.aggregate, higher_is_better=False))
        about = f"{len(stream.ids):,} {UNITS[self.tokenizer.kind]} of the {split} split"
        return Evaluation(about, scores, self._sections(stream.ids, surprise))

    def _sections(self, ids: Tensor, surprise: Floats, width: int = 120) -> list[Section]:
        tokens = [self.tokenizer.vocabulary.word(i) for i in ids.tolist()]
        wide = min(width if self.apart else 4 * width, len(tokens))
        sums = np.convolve(surprise, np.ones(wide), "valid")[::wide]
        places = [0, *sorted((int(k) * wide for k in np.argsort(-sums)[:3] if k), key=int)]
        passages = [(tokens[at : at + wide], surprise[at : at + wide]) for at in places]
        samples = {f"temperature {t}": self.generate(length=2 * wide, temperature=t) for t in (0.5, 0.8, 1.0)}
        vocabulary = self.tokenizer.vocabulary.to_list()
        counts = Counter(dict(zip(vocabulary, self.facts.get("counts", []), strict=False)))
        return [
            samples_section(samples),
            surprise_section(passages, apart=self.apart, unit=UNITS[self.tokenizer.kind]),
            costly_section(tokens, surprise, counts),
        ]

    def save(self, path: str | Path) -> None:
        """Write the one file that `load` reads."""
        known = {"task": NAME, "config": self.config.model_dump(), "tokenizer": self.tokenizer.facts(), **self.facts}
        write_model_file(path, self.network.state_dict(), known)


def load(path: str | Path) -> LanguageModel:
    """Read a language model. Raises `ModelFileError`."""
    tensors, facts = read_model_file(path, NAME)
    with parts_fit(path):
        config = LanguageConfig(**facts.pop("config"))
        tokenizer = Tokenizer.from_facts(facts.pop("tokenizer"))
        network = LanguageNetwork(config, len(tokenizer))
        network.load_state_dict(tensors)
        return LanguageModel(config, tokenizer, network.eval(), facts)


# --- the task ---------------------------------------------------------------------------------------------------------


def inspection(model: str | Path, data: str | Path, *, sequences: int = 64, **_: Any) -> Inspection:
    """The network at work on the beginning of a text, in passages that follow one another; see `Inspection`.

    A passage is as long as a step of training, `bptt`, and begins with the state that the one before it ended with. The
    loss is −ln p of the token after each.

    Raises `DataError`, `ModelFileError` for what is wrong with the input.
    """
    known, table = load(model), Source(Path(data)).table
    known.input_column(table)
    network, tokenizer, bptt = known.network, known.tokenizer, known.config.bptt
    found = (token for line in Corpus.of(table, 0, 0).lines("train") for token in tokens_of(tokenizer, line))
    text = list(islice(found, sequences * bptt))
    T = min(bptt, len(text))
    words = torch.tensor([known.before, *tokenizer.vocabulary.encode(text)])
    passages, states = words[: len(text) // T * T].view(-1, T), [network.recurrent.initial_state(1)]
    with torch.no_grad():
        for passage in passages[:-1]:
            states.append(network(passage[:, None], states[-1])[1])
    state = tuple(type(some[0])(*map(torch.cat, zip(*some, strict=True))) for some in zip(*states, strict=True))
    shown = [known.shown(token) for token in (LINE_END, *text)]
    return Inspection(
        network,
        [passages.t(), state],
        lambda answer: network.surprise(answer[0][-1], words[T::T]).sum(),
        f"A language model, reading {passages.numel():,} {UNITS[tokenizer.kind]} of {Path(data).name} in passages of "
        f"{T}, each with the state that the one before it ended with. The loss is that of the token after each.",
        [shown[start : start + T] for start in range(0, passages.numel(), T)],
        running=known.apart,
    )


def recognise(source: Source) -> str | None:
    """Plain text without labels."""
    return "running text" if source.table.kind == "text" else None


def learner(
    source: Source, config: LanguageConfig, file: Path, live: LiveProgress, start_from: Path | None = None
) -> LanguageTraining:
    """What is trained, when the text has been read."""
    return LanguageTraining(config, Corpus.of(source.table, config.val_share, config.test_share), file, start_from)


TASK = Task(NAME, "the next word, character or byte", LanguageConfig, recognise, learner, load, inspection=inspection)
