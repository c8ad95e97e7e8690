"""Captioners of both schools on the same photos: docs/captioning-study.md is made by this.

    python benchmarks/captioning_study.py DATA OUT [--seeds 0 1 2] [--variants pre par ...] [--parts train caption ...]

DATA is a folder with `captions.jsonl.gz` and `images/`. Each training has a run folder in OUT, `VARIANT-SEED`, where
what is measured of it is kept beside the model: stopped at any moment, the same command goes on, and with more seeds or
variants it grows. `--parts page` writes the page and its picture from what is there. Training takes about 20 minutes of
a core for each variant and seed, retrieval by likelihood among 1,000 photos and a caption of each about 10, with all
five captions about 40 (where bfloat16 is not fast, twice as long).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import captioning_tables as tables
import numpy as np
import torch

from carousel import Decoding
from carousel.captioning import Captioner, PhotoEncoder, pooled, rows
from carousel.captioning.photo_encoder import Seen
from carousel.captioning.pictures import load_pictures
from carousel.captioning.similarity import Captioned, cosines, retrieved
from carousel.data.captions import read_captions
from carousel.data.vocabulary import START, STOP
from carousel.decoding import select_rows
from carousel.errors import ConfigError
from carousel.metrics import caption_statistics, distinct_captions, vocabulary_used
from carousel.tasks.captioning import evaluate
from carousel.tasks.task import TASKS, task_named
from carousel.tasks.verbs import load, train
from carousel.training import RunFolder, autocast, write_atomically
from carousel.training.progress import LiveProgress
from carousel.training.settings import read_settings
from carousel.vision.photo import read_photo

PAGE = Path(__file__).parents[1] / "docs/captioning-study.md"
PARTS = ("train", "caption", "speed", "retrieval", "page")
WARM_UP = 10


@dataclass(frozen=True)
class Variant:
    """What is trained, beginning with another's model if with any; other settings are the task's defaults."""

    name: str
    about: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    task: str = "captioning"
    after: str = ""


LOOKS, CRITICAL = {"decoder": "adaptive"}, {"loss": "self-critical", "learning_rate": 1e-4, "epochs": 2}
PARTS_OF_IT = {"pooling": "pooled", "folds": 2, "precision": 0.08, "beam": 30, "candidates": 30}
PARTS_OF_IT |= {"detector_epochs": 3, "language_epochs": 3, "similarity_epochs": 4}
SMALL = {"trigram_size": 128, "maps": 300, "size": 300}
VARIANTS = (
    Variant("pre", "the photo is read once, before the words (Show and Tell)"),
    Variant("par", "the photo at every time step, beside the word", {"image_at": "par"}),
    Variant("init", "the photo is the recurrence's first state", {"image_at": "init"}),
    Variant("merge", "the recurrence reads words alone; the photo joins its output", {"image_at": "merge"}),
    Variant("pre-start", "`pre`, and the image step must predict `<start>`", {"predict_start": True}),
    Variant("attend", "soft attention over the 7 x 7 grid", {"decoder": "attend"}),
    Variant(
        "adaptive",
        "`pre` goes on with attention and a sentinel",
        {**LOOKS, "learning_rate": 1e-3, "epochs": 3, "dropout": 0.5},
        after="pre",
    ),
    Variant(
        "adaptive-critical",
        "and learns from its sentences",
        {**LOOKS, **CRITICAL, "object_penalty": 0.1},
        after="adaptive",
    ),
    Variant("pre-critical", "`pre` goes on with its own sentences", {**CRITICAL, "object_penalty": 0.5}, after="pre"),
    Variant("compose", "concepts, candidates, ranking, as trained", PARTS_OF_IT, task="compose"),
    Variant("similarity", "the similarity model, for retrieval alone", SMALL, task="similarity"),
)


@dataclass(frozen=True)
class Study:
    """The data, where everything is kept, and how much is measured."""

    data: Path
    out: Path
    seeds: Sequence[int] = (0, 1, 2)
    variants: Sequence[Variant] = VARIANTS
    beams: Sequence[int] = (1, 3, 5, 20)
    settings: Mapping[str, Any] = field(default_factory=dict)  # of all encoder-decoders, in place of the defaults
    timed: int = 50
    retrieval_photos: int = 1000
    retrieval_captions: int = 1  # of each photo

    @property
    def source(self) -> tuple[Path, Path]:
        """The captions and the folder of their photos."""
        return self.data / "captions.jsonl.gz", self.data / "images"

    def run(self, variant: Variant, seed: int) -> RunFolder:
        return RunFolder(self.out / f"{variant.name}-{seed}")

    def config(self, variant: Variant, seed: int) -> Any:
        """Every setting of one training."""
        settings = {**variant.settings, **(self.settings if variant.task == "captioning" else {}), "seed": seed}
        return read_settings(task_named(variant.task).config, values=settings)

    def beam(self, variant: Variant) -> int:
        """The model's own, as validated."""
        return int(self.config(variant, 0).beam)

    def trained(self, variant: Variant) -> list[int]:
        """The seeds whose training is over: the report is what it writes last."""
        return [seed for seed in self.seeds if self.run(variant, seed).report.exists()]


# --- what is done for one variant and seed ----------------------------------------------------------------------------


def train_one(study: Study, variant: Variant, seed: int, live: LiveProgress) -> None:
    """Train, or go on, or leave a finished training as it is. Raises `ConfigError` where the folder has another's."""
    folder, wanted = study.run(variant, seed), study.config(variant, seed)
    start = RunFolder(study.out / f"{variant.after}-{seed}").model if variant.after else None
    if folder.config.exists():
        check(folder.config, wanted.model_dump())
    if folder.report.exists():
        return
    resume = any(folder.path.rglob(folder.checkpoint.name))
    if not resume:
        shutil.rmtree(folder.path, ignore_errors=True)  # it had not come to anything
    train(
        *study.source, task=variant.task, run=folder.path, config=wanted, resume=resume, start_from=start, progress=live
    )


def check(file: Path, wanted: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where a run was not begun with the settings wanted; it may be older than some of them."""
    begun = tomllib.loads(file.read_text(encoding="utf-8"))
    if odd := [name for name, value in begun.items() if wanted.get(name) != value]:
        name = odd[0]
        raise ConfigError(f"{file}: {name} (got {begun[name]}); {wanted.get(name)}; another OUT, or remove this run")


def caption_one(study: Study, variant: Variant, seed: int, live: LiveProgress) -> None:
    """What the model says of the test photos with each beam, and the statistics of it."""
    if variant.task == "similarity":
        return
    captions, images = study.source
    own = study.beam(variant)
    for beam in sorted({*study.beams, own}, key=lambda beam: (beam != own, beam)):

        def say(beam: int = beam) -> dict[str, Any]:
            model = load(study.run(variant, seed).model)
            found = evaluate(captions, images, model=model, decoding=Decoding(beam=beam), progress=live)
            references = {photo.file: photo.captions for photo in read_captions(captions, photos=images).part("test")}
            files = sorted(found.captions)
            texts = [found.captions[file] for file in files]
            truths, hashes = [references[file] for file in files], model.training_hashes.tolist()
            numbers = caption_statistics(texts, truths, training_hashes=hashes)
            return {"captions": dict(zip(files, texts, strict=True)), "statistics": numbers.tolist()}

        kept(study.run(variant, seed).path / f"beam-{beam}.json", say)


def time_one(study: Study, variant: Variant, seed: int, live: LiveProgress) -> None:
    """From a file to its best caption, one photo at a time on one thread: the median, after some to warm up."""
    if variant.task == "similarity":
        return
    captions, images = study.source

    def measure() -> dict[str, Any]:
        model = load(study.run(variant, seed).model)
        photos = read_captions(captions, photos=images).part("test")[: WARM_UP + study.timed]
        threads, times = torch.get_num_threads(), []
        torch.set_num_threads(1)
        for photo in photos:
            began = time.perf_counter()
            model.caption(read_photo(images / photo.file)[None], Decoding())
            times.append(1000 * (time.perf_counter() - began))
        torch.set_num_threads(threads)
        return {"milliseconds": statistics.median(times[WARM_UP:] or times)}

    kept(study.run(variant, seed).path / "speed.json", measure)


def retrieve_one(study: Study, variant: Variant, seed: int, live: LiveProgress) -> None:
    """Retrieval both ways among the first test photos and the first captions of each."""
    if variant.task == "compose":
        return  # it has no probability of a sentence that it did not make

    def measure() -> dict[str, Any]:
        model = load(study.run(variant, seed).model)
        captions, images = study.source
        photos = read_captions(captions, photos=images).part("test")[: study.retrieval_photos]
        grid = isinstance(model, Captioner) and model.config.decoder != "nic"
        seen = load_pictures(photos, images, PhotoEncoder(), mirror=False, live=live, grid=grid)
        found = Captioned(pooled(seen.lower), [captions[: study.retrieval_captions] for captions in seen.captions])
        owner = torch.tensor([photo for photo, _ in found.pairs])
        if isinstance(model, Captioner):
            with autocast("auto"):  # sums of logarithms move by some hundredths
                logp = log_likelihoods(model, seen.lower, [words for _, words in found.pairs])
            prior = torch.logsumexp(logp, 0) - np.log(len(logp))  # of the sentence, were the photo any of these
            scores = {"log p(S given I)": logp, "log p(S given I) - log p(S)": logp - prior}
        else:
            scores = {"cosine": cosines(model.network, found)}
        ranks = {way: retrieved(score, owner).as_scores() for way, score in scores.items()}
        return {"photos": len(photos), "captions": len(found.pairs), "scores": ranks}

    kept(study.run(variant, seed).path / f"retrieval-{study.retrieval_photos}x{study.retrieval_captions}.json", measure)


class Level(NamedTuple):
    """The beginnings of one length that sentences have, each once: a level of the tree of their words."""

    parents: torch.Tensor  # (N,) the beginning a word shorter, in the level above
    words: torch.Tensor  # (N,) its last word
    ended: torch.Tensor  # (M,) the sentences that are one of these beginnings
    at: torch.Tensor  # (M,) which of them


def levels(sentences: Sequence[Sequence[int]]) -> list[Level]:
    """From <start> alone to the longest sentence.

    >>> [len(level.words) for level in levels([[7, 8, 9], [7, 8], [7, 5]])]
    [1, 1, 2, 1]
    """
    above: dict[tuple[int, ...], int] = {(): 0}
    found = []
    for length in range(max(map(len, sentences)) + 1):
        different = dict.fromkeys(tuple(s[:length]) for s in sentences if len(s) >= length)
        here = {beginning: place for place, beginning in enumerate(different)}
        ended = [i for i, s in enumerate(sentences) if len(s) == length]
        columns = (
            [above[beginning[:-1]] for beginning in here],
            [beginning[-1] if beginning else START for beginning in here],
            ended,
            [here[tuple(sentences[i])] for i in ended],
        )
        found.append(Level(*(torch.tensor(column, dtype=torch.long) for column in columns)))
        above = here
    return found


def log_likelihoods(model: Captioner, seen: Seen, captions: Sequence[Sequence[str]]) -> torch.Tensor:
    """log p(S | I) of every sentence, to its stop, for every photo: (photos, captions); base e.

    What sentences begin with in common is read once for each photo.
    """
    [decoder] = model.members
    tree = levels([model.vocabulary.encode(words) for words in captions])
    scores = torch.empty(len(pooled(seen)), len(captions))
    with torch.inference_mode():
        for photo in range(len(scores)):
            step, state = decoder.begin(rows(seen, [photo]))
            total, logp = torch.zeros(1), torch.zeros(1, START + 1)  # <start> is certain
            for level in tree:
                total = total[level.parents] + logp[level.parents, level.words]
                logits, state = step(level.words, select_rows(state, level.parents))
                logp = logits.log_softmax(1)
                scores[photo, level.ended] = (total + logp[:, STOP])[level.at]
    return scores


def kept(file: Path, make: Callable[[], dict[str, Any]]) -> None:
    """Write what is made as JSON, whole or not at all; what is there is not made again."""
    if not file.exists():
        write_atomically(file, json.dumps(make()).encode())


STEPS = {"train": train_one, "caption": caption_one, "speed": time_one, "retrieval": retrieve_one}


# --- the page ---------------------------------------------------------------------------------------------------------


def said(study: Study, beam: int | None = None) -> dict[str, dict[int, tables.Said]]:
    """What is kept of one beam, or of each model's own, by variant and seed."""
    found: dict[str, dict[int, tables.Said]] = {}
    for variant in study.variants:
        for seed in study.trained(variant):
            if variant.task == "similarity":
                continue
            width = study.beam(variant) if beam is None else beam
            if (file := study.run(variant, seed).path / f"beam-{width}.json").exists():
                one = json.loads(file.read_text())
                texts = list(one["captions"].values())
                counts = distinct_captions(texts), vocabulary_used(texts)
                numbers = tables.Said(list(one["captions"]), np.array(one["statistics"]), *counts)
                found.setdefault(variant.name, {})[seed] = numbers
    return found


def measured(study: Study, name: str) -> dict[str, dict[int, Any]]:
    """What is kept in one other file of each run, by variant and seed."""
    found: dict[str, dict[int, Any]] = {}
    for variant in study.variants:
        for seed in study.trained(variant):
            if (file := study.run(variant, seed).path / name).exists():
                found.setdefault(variant.name, {})[seed] = json.loads(file.read_text())
    return found


def minutes(folder: Path) -> float:
    """Of training, by the clock: a run has one log, or one for each of its parts."""
    logs = [file.read_text().splitlines() for file in folder.rglob("log.jsonl")]
    return sum(json.loads(lines[-1])["seconds"] for lines in logs if lines) / 60


def write_page(study: Study, page: Path = PAGE) -> None:
    """Put the tables between the page's marks, and the picture beside it."""
    main, by_beam = said(study), {beam: said(study, beam) for beam in study.beams}
    trained = {variant.name: study.trained(variant) for variant in study.variants}
    took = {
        v.name: statistics.mean(minutes(study.run(v, seed).path) for seed in trained[v.name])
        for v in study.variants if trained[v.name]
    }  # fmt: skip
    speed = {
        name: statistics.mean(one["milliseconds"] for one in of_seed.values())
        for name, of_seed in measured(study, "speed.json").items()
    }
    made = {
        "answer": [tables.answer(main, len(study.seeds))],
        "picture": [f"![CIDEr-D by variant]({page.stem}.png)" if main else "No captions yet."],
        "quality": tables.quality(main, took, speed),
        "against": tables.against(main),
        "beams": tables.beams(by_beam),
        "retrieval": tables.retrieval(
            [measured(study, f"retrieval-{study.retrieval_photos}x{captions}.json") for captions in (1, 5)]
        ),
        "standing": tables.standing(trained, {v.name: v.about for v in study.variants}, study.seeds),
    }
    write_atomically(page, tables.filled(page.read_text(encoding="utf-8"), made).encode())
    if main:
        tables.draw(main, page.with_suffix(".png"))


def known(variant: Variant) -> bool:
    """Whether this version of carousel can train it."""
    return variant.task in TASKS and variant.settings.keys() <= task_named(variant.task).config.model_fields.keys()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=[v.name for v in VARIANTS], choices=[v.name for v in VARIANTS])
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--beams", type=int, nargs="*", default=[1, 3, 5, 20], help="beside each model's own")
    parser.add_argument("--retrieval-photos", type=int, default=1000, help="time grows with the square; 1000")
    parser.add_argument("--retrieval-captions", type=int, default=1, help="of each photo; 1")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    ranked = {"retrieval_photos": given.retrieval_photos, "retrieval_captions": given.retrieval_captions}
    study = Study(given.data, given.out, given.seeds, beams=given.beams, **ranked)
    with LiveProgress() as live:
        for seed in study.seeds:
            for variant in VARIANTS:
                if variant.name not in given.variants:
                    continue
                if not known(variant):
                    live.tell(f"{variant.name}: not known to this version; left out")
                    continue
                if variant.after and not (study.out / f"{variant.after}-{seed}/report.html").exists():
                    live.tell(
                        f"{variant.name}, seed {seed}: begins with {variant.after}, which is not trained; left out"
                    )
                    continue
                for part in (part for part in given.parts if part != "page"):
                    if part == "train" or seed in study.trained(variant):
                        live.tell(f"{variant.name}, seed {seed}: {part}")
                        STEPS[part](study, variant, seed, live)
            if "page" in given.parts:
                write_page(study, given.page)


if __name__ == "__main__":
    main()
