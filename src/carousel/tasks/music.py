"""Polyphonic music: piano rolls in, a model out that says which keys sound next, and plays on.

Each frame is the next one's input, and the keys of a frame are independent given all frames before:

    p(x_1..T) = Π_t Π_k σ(y_tk)^x_tk (1 - σ(y_tk))^(1 - x_tk),    y_t = W h_t + b,   h_t of 0, x_1 .. x_{t-1}

The score is the negative log-likelihood of a frame in nats, of all frames but each piece's first, as in Bai et al.
2018, arXiv:1803.01271v2, section 4. Read from top to bottom: settings, what is trained, the trained model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from carousel import __version__
from carousel.data.bucketing import Buckets, by_length
from carousel.data.captions import SPLITS, Split
from carousel.data.rolls import KEYS, parsed, roll_of, written
from carousel.data.splits import complete_splits
from carousel.data.tables import NAMES, Row, Table
from carousel.errors import ConfigError, DataError
from carousel.metrics.score import Score
from carousel.nn import Recurrent
from carousel.reports.music import rolls_section
from carousel.tasks.chorales import guesses
from carousel.tasks.inspection import Inspection, first
from carousel.tasks.problem import Examples, SequenceModel, padded
from carousel.tasks.task import Evaluation, Source, Task
from carousel.training import Loss, TrainingConfig, read_model_file, write_model_file
from carousel.training.model_file import begin_with, parts_fit
from carousel.training.precision import MixedPrecision
from carousel.training.progress import LiveProgress

NAME = "music"
STEPS = 4000  # that training takes at least, by default
SHOWN = 96  # frames of a picture


class MusicConfig(TrainingConfig):
    """The network and its training."""

    cell: str = Field("lstm", description="the recurrence, by name; `carousel cells` lists them")
    layers: int = Field(1, ge=1, le=8, description="of the recurrence, one above the other")
    hidden_size: int = Field(220, ge=1, le=8192, description="of the recurrence")
    input_dropout: float = Field(0.2, ge=0, lt=1, description="of the keys, one mask for all frames of a piece")
    state_dropout: float = Field(0.6, ge=0, lt=1, description="of the state that a step reads, one mask for a piece")
    dropout: float = Field(0.5, ge=0, lt=1, description="on the last outputs")
    longest: int = Field(200, ge=1, description="longer pieces are learned in parts of so many frames")
    batch_size: int = Field(8, ge=1, le=65536, description="pieces or parts a step, of about one length")
    epochs: int = Field(
        0, ge=0, le=10_000, description="at most so many times through the pieces; 0: what makes 4000 steps, 20 to 150"
    )
    patience: int = Field(20, ge=1, description="stop after this many epochs without a better validation score")
    clip_norm: float = Field(1.0, gt=0, description="what the gradient's norm, or what `clipping` names, is cut to")
    learning_rate: float = Field(8e-3, gt=0, le=10, description="the greatest, see `schedule`")
    mixed_precision: MixedPrecision = Field("off", description="bfloat16 products; auto: where they pay")

    def network(self) -> SequenceModel:
        """A network with random weights."""
        recurrent = Recurrent(
            self.cell, KEYS, self.hidden_size, layers=self.layers, input_dropout=self.input_dropout,
            state_dropout=self.state_dropout,
        )  # fmt: skip
        return SequenceModel(recurrent, KEYS, every_step=True, dropout=self.dropout)


class Piece(NamedTuple):
    roll: Tensor  # (T, 88)
    split: Split | None


def read_pieces(table: Table) -> list[Piece]:
    """The pieces of a table with a column `keys`. Raises `DataError` for what is none."""
    if "keys" not in table.columns:
        raise DataError(
            f"{table.path}: no piano rolls (got {NAMES[table.kind]} with {', '.join(table.columns)}); JSON Lines with "
            "'keys', or a .mat of Boulanger-Lewandowski's sets; choose another --task"
        )
    return [
        Piece(roll_of(row.values.get("keys"), row.place), row.split or SPLITS.get(str(row.values.get("split")).lower()))
        for row in table.rows()
    ]


def with_splits(pieces: Sequence[Piece], seed: int) -> tuple[list[Piece], str]:
    """Each piece in a split, and a line that says how."""
    splits, said = complete_splits([piece.split for piece in pieces], [0] * len(pieces), seed)
    return [Piece(piece.roll, split) for piece, split in zip(pieces, splits, strict=True)], said


def digest_of(pieces: Sequence[Piece]) -> str:
    """Names the data."""
    digest = hashlib.blake2b(digest_size=8)
    for piece in pieces:
        digest.update(f"{piece.split} {len(piece.roll)} ".encode() + piece.roll.bool().numpy().tobytes())
    return digest.hexdigest()


def before(piece: Tensor) -> Tensor:
    """What is heard before each frame (T, 88): silence, then the one before it."""
    return F.pad(piece[:-1], (0, 0, 1, 0))


def examples_of(pieces: Sequence[Tensor]) -> Examples:
    """Inputs and the frames that are next."""
    return padded([before(piece) for piece in pieces], list(pieces))


def parts_of(piece: Tensor, longest: int) -> list[tuple[Tensor, Tensor]]:
    """Inputs and next frames of a piece, cut into parts.

    >>> [(heard[:, 0].tolist(), frames[:, 0].tolist()) for heard, frames in parts_of(torch.tensor([[1], [2], [3]]), 2)]
    [([0, 1], [1, 2]), ([2], [3])]
    """
    return list(zip(torch.split(before(piece), longest), torch.split(piece, longest), strict=True))


def frame_nats(logits: Tensor, frames: Tensor) -> Tensor:
    """−ln p (...) of frames (..., 88)."""
    return F.binary_cross_entropy_with_logits(logits.float(), frames, reduction="none").sum(-1)


@torch.inference_mode()
def heard(network: SequenceModel, pieces: Sequence[Tensor], size: int = 32) -> list[tuple[Tensor, Tensor]]:
    """Of each piece −ln p of its frames (T,), the first one's too, and the logits (T, 88)."""
    training, found = network.training, dict[int, tuple[Tensor, Tensor]]()
    network.eval()
    for rows in by_length(torch.tensor([len(piece) for piece in pieces]), size):
        examples = examples_of([pieces[row] for row in rows])
        logits = network(examples).float()
        for b, row in enumerate(rows):
            said = logits[: len(pieces[row]), b]
            found[row] = frame_nats(said, pieces[row]), said
    network.train(training)
    return [found[row] for row in range(len(pieces))]


def nats_a_frame(pieces: Sequence[Tensor]) -> Score:
    """The mean over frames of −ln p (T,) of pieces; the interval is over pieces."""
    sums = np.array([[float(piece.double().sum()), len(piece)] for piece in pieces])
    return Score("nats a frame", sums, lambda totals: totals[..., :1] / totals[..., 1:], higher_is_better=False)


# --- what is trained --------------------------------------------------------------------------------------------------


class Practice:
    """Training of a player; see `carousel.tasks.task.Learner`."""

    objective = "score"

    def __init__(
        self, config: MusicConfig, pieces: Sequence[Piece], notes: Sequence[str], file: Path, known: Player | None
    ) -> None:
        self.file, self.notes, self._digest = file, notes, digest_of(pieces)
        self.train, self.val, self.test = (
            [piece.roll for piece in pieces if piece.split == split] for split in ("train", "val", "test")
        )
        self.parts = [part for piece in self.train for part in parts_of(piece, config.longest)]
        self.buckets = Buckets(torch.tensor([len(frames) for _, frames in self.parts]), config.batch_size)
        self.steps = len(self.buckets)
        epochs = config.epochs or min(150, max(20, -(-STEPS // self.steps)))
        self.config = config.model_copy(update={"epochs": epochs})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = config.network()
        if known:
            begin_with(self.model, known.network)
        else:
            often = guesses(self.train)["each key's frequency"]  # found by training, it takes longer than the rest
            self.model.readout.bias.data = often(torch.zeros(KEYS)).logit()

    def summary(self) -> str:
        config, weights = self.config, sum(p.numel() for p in self.model.parameters())
        frames = torch.cat(self.train)
        cut = f", learned in {len(self.parts)} parts" if len(self.parts) > len(self.train) else ""
        lines = [
            *self.notes,
            f"pieces: {len(self.train)} to train on, {len(self.val)} to validate on, {len(self.test)} for the test; "
            f"{len(frames) / len(self.train):.0f} frames in each{cut}, {float(frames.sum(1).mean()):.1f} keys in a "
            "frame",
            f"network: {config.layers} x {config.hidden_size} {config.cell}, {weights / 1e6:.2f} million weights",
        ]
        return "\n".join(lines)

    def digest(self) -> str:
        return self._digest

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters()), "lr": self.config.learning_rate}]

    def loss(self, epoch: int, step: int) -> Loss:
        chosen = [self.parts[row] for row in self.buckets.rows(self.config.seed, epoch, step)]
        examples = padded(*map(list, zip(*chosen, strict=True)))
        real = examples.real
        mean = frame_nats(self.model(examples)[real], examples.targets[real]).mean()
        return Loss(mean, mean.item() * int(real.sum()), int(real.sum()))

    def validate(self) -> dict[str, float]:
        nats = nats_a_frame([nats[1:] for nats, _ in heard(self.model, self.val)]).value
        return {"score": -nats, "validation_nats": nats}

    def save(self, scores: Mapping[str, float]) -> None:
        facts = {"validation": dict(scores), "carousel": __version__, "data": self._digest}
        Player(self.config, self.model, facts).save(self.file)

    def baselines(self) -> dict[str, Score]:
        return {
            name: nats_a_frame([frame_nats(guess(piece[:-1]).logit(), piece[1:]) for piece in self.test])
            for name, guess in guesses(self.train).items()
        }

    def evaluate(self, model: Player) -> Evaluation:
        return model.judged(self.test, f"{len(self.test)} pieces of the test split")


# --- the trained model ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard:
    """What a model thinks of a piece: −ln p of each frame, the first one's too."""

    frames: Sequence[str]
    nats: Sequence[float]

    def __str__(self) -> str:
        shown = " | ".join(self.frames[:8]) + (" | ..." if len(self.frames) > 8 else "")
        return f"{np.mean(self.nats):.2f}\t{shown}"

    def as_json(self) -> dict[str, Any]:
        """As ``carousel predict --json`` prints it."""
        return {"nats_a_frame": round(float(np.mean(self.nats)), 4), "frames": list(self.frames),
                "nats": [round(value, 4) for value in self.nats]}  # fmt: skip


class Player:
    """A trained model of music, and its one file."""

    def __init__(self, config: MusicConfig, network: SequenceModel, facts: Mapping[str, Any] | None = None) -> None:
        self.config, self.network, self.facts = config, network, dict(facts or {})

    def predict(self, inputs: Any) -> Any:
        """How likely a piece is, or each of several: text as of `carousel.data.rolls`, or frames (T, 88)."""
        if isinstance(inputs, str | Tensor):
            return self.predict([inputs])[0]
        pieces = [parsed(piece, "input") if isinstance(piece, str) else piece for piece in inputs]
        if any(not len(piece) for piece in pieces):
            raise DataError("input: no frame (got an empty text); notes such as C4 E4 G4 | C4 F4 A4; write some")
        found = heard(self.network, pieces)
        return [
            Heard([written(frame) for frame in piece], nats.tolist())
            for piece, (nats, _) in zip(pieces, found, strict=True)
        ]

    def input_column(self, table: Table) -> str:
        """The column with piano rolls, or text."""
        return "keys" if "keys" in table.columns else "text"

    def input_of(self, row: Row, column: str) -> Any:
        """What `predict` takes."""
        return roll_of(row.values.get(column), row.place) if column == "keys" else parsed(row.text(column), row.place)

    def generate(self, prompt: str = "", *, length: int = 200, **options: Any) -> str:
        """The prompt and `length` frames after it; options as of `stream`."""
        return prompt + "".join(self.stream(prompt, length=length, **options))

    def stream(self, prompt: str = "", *, length: int = 200, **options: Any) -> Iterator[str]:
        """The frames after the prompt, each in a line as it is drawn; options as of `play`."""
        before = "\n" if prompt else ""
        for frame in self.play(parsed(prompt, "prompt"), length, **options):
            yield f"{before}{written(frame)}"
            before = "\n"

    def play(
        self, begun: Tensor, length: int, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0
    ) -> Iterator[Tensor]:
        """Frames (88,) after those begun with (T, 88), the same for the same seed; temperature 0: what is likelier.

        Raises `ConfigError` for a temperature below 0, and for truncations, which are of words.
        """
        if temperature < 0:
            raise ConfigError(
                f"temperature: out of range (got {temperature}); 0 or more; 0.8 makes likely keys likelier"
            )
        if top_k or top_p != 1:
            raise ConfigError(f"top_k, top_p: not for music (got {top_k}, {top_p}); of words alone; leave them out")
        self.network.eval()
        draw = torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            outputs, state = self.network.recurrent(F.pad(begun, (0, 0, 1, 0))[:, None])
            feed, output = self.network.recurrent.stream(state=state), outputs[-1]
            for _ in range(length):
                logits = self.network.readout(output)[0]
                chances = torch.sigmoid(logits / temperature) if temperature else (logits > 0).float()
                frame = torch.bernoulli(chances, generator=draw)
                yield frame
                output = feed(frame[None])

    def evaluate(self, source: Source, split: Split, live: LiveProgress) -> Evaluation:
        """On a split of some data; where nobody says which pieces are in it, on all of them."""
        found = read_pieces(source.table)
        pieces, _ = with_splits(found, self.config.seed)
        if digest_of(pieces) != self.facts.get("data"):
            pieces = found
        chosen = [piece.roll for piece in pieces if piece.split in (split, None)]
        if not chosen:
            raise DataError(f"{source.path}: nothing in {split!r} (got no piece); one that has some; --split chooses")
        return self.judged(chosen, f"{len(chosen)} pieces of the {split} split")

    def judged(self, pieces: Sequence[Tensor], about: str) -> Evaluation:
        """The score and what the page shows."""
        found = heard(self.network, pieces)
        said = torch.sigmoid(found[0][1][:SHOWN])
        played = torch.stack(list(self.play(pieces[0][:8], SHOWN - 8)))
        rolls = {
            "as it is": pieces[0][:SHOWN],
            "how likely each key was, given all frames before": said,
            "eight frames as they are, and what the model makes of them": torch.cat([pieces[0][:8], played]),
        }
        section = rolls_section(
            "The first piece of the test", "", "A column is a frame, a row a key; the darker, the likelier.",
            {name: roll.numpy() for name, roll in rolls.items()},
        )  # fmt: skip
        return Evaluation(about, [nats_a_frame([nats[1:] for nats, _ in found])], [section])

    def save(self, path: str | Path) -> None:
        """Write the one file that `load` reads."""
        write_model_file(
            path, self.network.state_dict(), {"task": NAME, "config": self.config.model_dump(), **self.facts}
        )


def load(path: str | Path) -> Player:
    """Read a model of music. Raises `ModelFileError`."""
    tensors, facts = read_model_file(path, NAME)
    with parts_fit(path):
        config = MusicConfig(**facts.pop("config"))
        network = config.network()
        network.load_state_dict(tensors)
        return Player(config, network.eval(), facts)


# --- the task ---------------------------------------------------------------------------------------------------------


def inspection(model: str | Path, data: str | Path, *, sequences: int = 64, **_: Any) -> Inspection:
    """The network at work on the beginnings of the first pieces of some data; see `Inspection`.

    The loss is −ln p of the last frame that is shown, given those before.

    Raises `DataError`, `ModelFileError` for what is wrong with the input.
    """
    player, table = load(model), Source(Path(data)).table
    column = player.input_column(table)
    nothing = f"{data}: no frame (got nothing to read in {column!r}); a piece for a row; check the file"
    pieces = [one[:SHOWN] for one in first((player.input_of(row, column) for row in table.rows()), sequences, nothing)]
    examples = examples_of(pieces)
    last = torch.tensor([len(piece) for piece in pieces]) - 1, torch.arange(len(pieces))
    return Inspection(
        player.network,
        examples,
        lambda logits: frame_nats(logits[last], examples.targets[last]).sum(),
        f"A model of music, reading {len(pieces)} pieces of {Path(data).name}, of each at most {SHOWN} frames. The "
        "loss is that of the last one, given those before.",
        [["(start)", *map(written, piece[:-1])] for piece in pieces],
    )


def recognise(source: Source) -> str | None:
    """A column `keys` of lists of lists."""
    if "keys" not in source.table.columns:
        return None
    first = source.table.first_rows[0].values.get("keys")
    return "piano rolls" if isinstance(first, list) and all(isinstance(frame, list) for frame in first) else None


def learner(
    source: Source, config: MusicConfig, file: Path, live: LiveProgress, start_from: Path | None = None
) -> Practice:
    """What is trained, when the data has been read."""
    pieces, said = with_splits(read_pieces(source.table), config.seed)
    if len({piece.split for piece in pieces}) < 3:
        raise DataError(
            f"{source.path}: too few pieces (got {len(pieces)}); some to train on, to validate on and for the test; "
            "add some"
        )
    return Practice(config, pieces, [*source.table.notes, said], file, load(start_from) if start_from else None)


TASK = Task(NAME, "the next frame of a piano roll", MusicConfig, recognise, learner, load, inspection=inspection)
