"""Language models: running text in, a model out that says how likely a text is and writes more of it.

Read from top to bottom: settings, network, what is trained, the trained model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from carousel import __version__
from carousel.data.captions import Split
from carousel.data.corpus import LINE_END, Corpus, Stream, before_all, joined, tokenizer_for, tokens_of
from carousel.data.tables import Table
from carousel.data.tokenizers import KINDS, Kind, Tokenizer
from carousel.data.vocabulary import SPECIALS
from carousel.decoding import NeuralCache, generate
from carousel.errors import DataError
from carousel.metrics.perplexity import bits_per_character, perplexity
from carousel.metrics.score import Score
from carousel.nn import Embedding
from carousel.reports.language import costly_section, samples_section, surprise_section
from carousel.reports.section import Section
from carousel.tasks.kneser_ney import KneserNey
from carousel.tasks.task import Evaluation, Source, Task
from carousel.tasks.text import TokensConfig
from carousel.training import BPTT, Columns, Loss, read_model_file, write_model_file
from carousel.training.model_file import begin_with, parts_fit
from carousel.training.pieces import Piece
from carousel.training.progress import LiveProgress

NAME = "language"
Floats = NDArray[np.float64]
MANY = 40_000  # tokens from which on the softmax is adaptive
SURPRISING = 2.0  # −ln p of a token that is marked
MASKS = ("input_mask", "state_mask")


class LanguageConfig(TokensConfig):
    """The text, the network and its training."""

    tokens: Literal["auto", "words", "spaces", "characters", "bytes", "bpe"] = Field(  # type: ignore[assignment]
        "auto",
        description=f"what the text is cut into: {', '.join(KINDS)}; auto: spaces where punctuation stands apart, else "
        "characters",
    )
    lowercase: bool = Field(False, description="Dog and dog are one")
    min_count: int = Field(1, ge=1, description="tokens that occur fewer times in the training data become <unk>")
    val_share: float = Field(0.05, ge=0, lt=0.5, description="of the text, to validate on, where no file is for that")
    test_share: float = Field(
        0.05, ge=0, lt=0.5, description="of the text, its end, for the score; 0: the validation's"
    )

    layers: int = Field(2, ge=1, le=8, description="of the recurrence, one above the other")
    hidden_size: int = Field(256, ge=1, le=8192, description="of the recurrence")
    embedding_size: int = Field(128, ge=1, le=8192, description="of the token vectors")
    tied: bool = Field(True, description="token vectors are the weights of the output too")
    softmax: Literal["auto", "full", "adaptive"] = Field(
        "auto", description=f"adaptive: rare tokens by classes, not tied; auto: so from {MANY} tokens on"
    )

    word_dropout: float = Field(
        0.0, ge=0, lt=1, description="the share of tokens that a stream does without for a step"
    )
    dropout: float = Field(0.25, ge=0, lt=1, description="on token vectors, between layers and on the last outputs")
    locked: bool = Field(False, description="dropout draws one mask for all tokens of a step of training")
    weight_dropout: float = Field(0.0, ge=0, lt=1, description="of the recurrent weights")

    batch_size: int = Field(32, ge=1, le=65536, description="streams that the text is cut into, read side by side")
    bptt: int = Field(100, ge=1, le=100_000, description="tokens of each stream in a step; how far gradients go back")
    clip_norm: float = Field(1.0, gt=0, description="what the gradient's norm, or what `clipping` names, is cut to")
    learning_rate: float = Field(4e-3, gt=0, le=10, description="the greatest, see `schedule`")

    ngram: int = Field(5, ge=1, le=20, description="the longest n-gram of the baseline")
    cache: int = Field(0, ge=0, description="neural cache: how many of the latest tokens are likelier again; 0: none")


# --- network ----------------------------------------------------------------------------------------------------------


class LanguageNetwork(nn.Module):
    """Token vectors, a recurrence over them, and of each output the distribution of the next token."""

    def __init__(self, config: LanguageConfig, vocabulary: int) -> None:
        super().__init__()
        E, dropout = config.embedding_size, config.dropout
        self.locked = dropout if config.locked else 0.0
        self.embedding = Embedding(vocabulary, E, dropout=config.word_dropout)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.recurrent = config.recurrent(
            E, locked=config.locked, input_dropout=self.locked, weight_dropout=config.weight_dropout
        )
        self.dropout = nn.Dropout(0.0 if config.locked else dropout)
        H = self.recurrent.output_size
        self.adaptive = None
        if config.softmax == "adaptive" or (config.softmax == "auto" and vocabulary >= MANY):
            cutoffs = sorted({min(vocabulary - 1, max(1, vocabulary // part)) for part in (20, 4)})
            self.adaptive = nn.AdaptiveLogSoftmaxWithLoss(H, vocabulary, cutoffs)
        tied = config.tied and self.adaptive is None
        self.narrow = nn.Linear(H, E, bias=False) if tied and H != E else None
        self.readout = nn.Linear(H, vocabulary) if self.adaptive is None and not tied else None
        self.bias = nn.Parameter(torch.zeros(vocabulary)) if tied else None

    def forward(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Outputs (T, B, W) after each of the ids (T, B), and the state."""
        outputs, state = self.recurrent(self.dropout(self.embedding(ids)), self._with_new_masks(state))
        if self.locked:
            outputs = outputs * F.dropout(outputs.new_ones(outputs.shape[1:]), self.locked, self.training)
        outputs = self.dropout(outputs)
        return (outputs if self.narrow is None else self.narrow(outputs)), state

    def _with_new_masks(self, state: Any) -> Any:
        """Locked masks are drawn anew for each piece: a stream does not end."""
        if state is None or not (self.locked and self.training):
            return state
        fresh = self.recurrent.initial_state(len(state[0][0]))
        drawn = [{name: getattr(one, name) for name in one._fields if name in MASKS} for one in fresh]
        return tuple(type(f)(*old)._replace(**masks) for f, old, masks in zip(fresh, state, drawn, strict=True))

    def logits(self, outputs: Tensor) -> Tensor:
        """(..., V), up to a constant for each."""
        if self.adaptive is not None:
            found: Tensor = self.adaptive.log_prob(outputs.flatten(0, -2))
            return found.view(*outputs.shape[:-1], -1)
        if self.readout is not None:
            logits: Tensor = self.readout(outputs)
            return logits
        return F.linear(outputs, self.embedding.weight, self.bias)

    def surprise(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """−ln p of targets (N,), given outputs (N, W)."""
        if self.adaptive is not None:
            with torch.autocast("cpu", enabled=False):  # torch's module mixes types
                likelihood: Tensor = self.adaptive(outputs.float(), targets).output
            return -likelihood
        return F.cross_entropy(self.logits(outputs).float(), targets, reduction="none")


@torch.inference_mode()
def read(network: LanguageNetwork, ids: Tensor, before: int, chunk: int = 1000) -> tuple[Tensor, Tensor]:
    """−ln p of each token (N,) and the outputs (N, W) that predict them: one stream, its state never reset."""
    training, state = network.training, None
    network.eval()
    words = torch.cat([torch.tensor([before]), ids.long()])
    found, kept = [], []
    for start in range(0, len(ids), chunk):
        outputs, state = network(words[start : min(start + chunk, len(ids)), None], state)
        found.append(network.surprise(outputs[:, 0], words[start + 1 : start + 1 + len(outputs)]))
        kept.append(outputs[:, 0])
    network.train(training)
    return torch.cat(found), torch.cat(kept)


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


def recognise(source: Source) -> str | None:
    """Plain text without labels."""
    return "running text" if source.table.kind == "text" else None


def learner(
    source: Source, config: LanguageConfig, file: Path, live: LiveProgress, start_from: Path | None = None
) -> LanguageTraining:
    """What is trained, when the text has been read."""
    return LanguageTraining(config, Corpus.of(source.table, config.val_share, config.test_share), file, start_from)


TASK = Task(NAME, "the next word, character or byte", LanguageConfig, recognise, learner, load)
