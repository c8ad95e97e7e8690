"""Captioners of both schools on the same photos: docs/captioning-study.md is made by this.

    python benchmarks/captioning_study.py DATA OUT [--seeds 0 1 2] [--variants pre par ...] [--parts train caption ...]

DATA is a folder with `captions.jsonl.gz` and `images/`. Each training has a run folder in OUT, `VARIANT-SEED`. What is
measured of it goes to a folder of that name in RESULTS, by default benchmarks/captioning_study: small files, that stay
with the project. Stopped at any moment, the same command goes on; with more seeds or variants it grows, and a model is
trained only where something of it is still to be measured, or another begins with it. `--parts page` writes the page
and its picture from the results and DATA. Training takes about 20 minutes of a core for each variant and seed,
retrieval by likelihood among 1,000 photos and a caption of each about 10, with all five captions about 40 (where
bfloat16 is not fast, twice as long).
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
from functools import cached_property
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
from carousel.errors import ConfigError, DataError
from carousel.metrics import caption_statistics, distinct_captions, sentence_hashes, vocabulary_used
from carousel.tasks.captioning import evaluate
from carousel.tasks.task import TASKS, task_named
from carousel.tasks.verbs import load, train
from carousel.training import RunFolder, autocast, write_atomically
from carousel.training.progress import LiveProgress
from carousel.training.settings import read_settings
from carousel.vision.photo import read_photo

PAGE = Path(__file__).parents[1] / "docs/captioning-study.md"
RESULTS = Path(__file__).parent / "captioning_study"
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


LOOKS = {"image_at": "par", "decoder": "adaptive"}
CRITICAL = {"loss": "self-critical", "learning_rate": 2e-4, "epochs": 4, "patience": 1}
CRITICAL |= {"dropout": 0.5, "feature_dropout": 0.4}
UPPER_BLOCKS = {"finetune_from": 9, "learning_rate": 5e-4, "encoder_learning_rate": 2e-4, "epochs": 1}
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
        "par-adaptive",
        "`par` goes on with attention and a sentinel",
        {**LOOKS, "learning_rate": 1e-3, "epochs": 3, "dropout": 0.5},
        after="par",
    ),
    Variant(
        "par-tuned",
        "and the encoder's upper blocks learn",
        {**LOOKS, **UPPER_BLOCKS, "dropout": 0.5, "feature_dropout": 0.3},
        after="par-adaptive",
    ),
    Variant(
        "par-critical", "`par-adaptive` goes on with its own sentences", {**LOOKS, **CRITICAL}, after="par-adaptive"
    ),
    Variant("pre-critical", "`pre` goes on with its own sentences", CRITICAL, after="pre"),
    Variant("compose", "concepts, candidates, ranking, as trained", PARTS_OF_IT, task="compose"),
    Variant("similarity", "the similarity model, for retrieval alone", SMALL, task="similarity"),
)


@dataclass(frozen=True)
class Study:
    """The data, where everything is kept, and how much is measured."""

    data: Path
    out: Path
    results: Path
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

    def result(self, variant: Variant, seed: int, name: str) -> Path:
        """Where something that was measured is."""
        return self.results / f"{variant.name}-{seed}" / name

    def trained(self, variant: Variant) -> list[int]:
        """The seeds that have been trained, here or elsewhere."""
        return [seed for seed in self.seeds if self.result(variant, seed, "training.json").exists()]

    @cached_property
    def test(self) -> dict[str, tuple[str, ...]]:
        """The captions of each test photo."""
        return {photo.file: tuple(photo.captions) for photo in self._photos.part("test")}

    @cached_property
    def training_hashes(self) -> frozenset[int]:
        """Of every caption that is trained on."""
        return sentence_hashes(text for photo in self._photos.part("train") for text in photo.captions)

    @cached_property
    def _photos(self) -> Any:
        captions, images = self.source
        return read_captions(captions, photos=images)


# --- what is done for one variant and seed ----------------------------------------------------------------------------


def train_one(study: Study, variant: Variant, seed: int, live: LiveProgress) -> None:
    """Train, unless that has been done."""

    def measure() -> dict[str, float]:
        model_of(study, variant, seed, live)
        logs = [file.read_text().splitlines() for file in study.run(variant, seed).path.rglob("log.jsonl")]
        return {"minutes": sum(json.loads(lines[-1])["seconds"] for lines in logs if lines) / 60}  # by the clock

    kept(study.result(variant, seed, "training.json"), measure)


def model_of(study: Study, variant: Variant, seed: int, live: LiveProgress) -> Path:
    """The model: what is there, or trained now, or gone on with; the one it begins with likewise.

    Raises `ConfigError` where the folder has another's.
    """
    folder, wanted = study.run(variant, seed), study.config(variant, seed)
    if folder.config.exists():
        check(folder.config, wanted.model_dump())
    if folder.report.exists():  # it is what training writes last
        return folder.model
    base = next((other for other in VARIANTS if other.name == variant.after), None)
    start = model_of(study, base, seed, live) if base else None
    resume = any(folder.path.rglob(folder.checkpoint.name))
    if not resume:
        shutil.rmtree(folder.path, ignore_errors=True)  # it had not come to anything
    live.tell(f"{variant.name}, seed {seed}: training")
    train(
        *study.source, task=variant.task, run=folder.path, config=wanted, resume=resume, start_from=start, progress=live
    )
    return folder.model


def check(file: Path, wanted: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where a run was not begun with the settings wanted; it may be older than some of them."""
    begun = tomllib.loads(file.read_text(encoding="utf-8"))
    if odd := [name for name, value in begun.items() if wanted.get(name) != value]:
        name = odd[0]
        raise ConfigError(f"{file}: {name} (got {begun[name]}); {wanted.get(name)}; another OUT, or remove this run")


def caption_one(study: Study, variant: Variant, seed: int, live: LiveProgress) -> None:
    """What the model says of the test photos with each beam."""
    if variant.task == "similarity":
        return
    own = study.beam(variant)
    for beam in sorted({*study.beams, own}, key=lambda beam: (beam != own, beam)):

        def say(beam: int = beam) -> dict[str, str]:
            model = load(model_of(study, variant, seed, live))
            found = evaluate(*study.source, model=model, decoding=Decoding(beam=beam), progress=live)
            return dict(sorted(found.captions.items()))

        kept(study.result(variant, seed, f"beam-{beam}.json"), say)


def time_one(study: Study, variant: Variant, seed: int, live: LiveProgress) -> None:
    """From a file to its best caption, one photo at a time on one thread: the median, after some to warm up."""
    if variant.task == "similarity":
        return
    captions, images = study.source

    def measure() -> dict[str, Any]:
        model = load(model_of(study, variant, seed, live))
        photos = read_captions(captions, photos=images).part("test")[: WARM_UP + study.timed]
        threads, times = torch.get_num_threads(), []
        torch.set_num_threads(1)
        for photo in photos:
            began = time.perf_counter()
            model.caption(read_photo(images / photo.file)[None], Decoding())
            times.append(1000 * (time.perf_counter() - began))
        torch.set_num_threads(threads)
        return {"milliseconds": statistics.median(times[WARM_UP:] or times)}

    kept(study.result(variant, seed, "speed.json"), measure)


def retrieve_one(study: Study, variant: Variant, seed: int, live: LiveProgress) -> None:
    """Retrieval both ways among the first test photos and the first captions of each."""
    if variant.task == "compose":
        return  # it has no probability of a sentence that it did not make

    def measure() -> dict[str, Any]:
        model = load(model_of(study, variant, seed, live))
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

    name = f"retrieval-{study.retrieval_photos}x{study.retrieval_captions}.json"
    kept(study.result(variant, seed, name), measure)


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
        made = json.dumps(make(), indent=0, ensure_ascii=False)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, f"{made}\n".encode())


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
            if (file := study.result(variant, seed, f"beam-{width}.json")).exists():
                found.setdefault(variant.name, {})[seed] = scored(study, json.loads(file.read_text()))
    return found


def scored(study: Study, captions: Mapping[str, str]) -> tables.Said:
    """Captions of the test photos with the statistics of them."""
    if captions.keys() != study.test.keys():
        raise DataError(f"{study.source[0]}: test photos (got {len(study.test)}); the {len(captions)} of the results")
    texts, truths = list(captions.values()), [study.test[file] for file in captions]
    numbers = caption_statistics(texts, truths, training_hashes=study.training_hashes)
    return tables.Said(list(captions), numbers, distinct_captions(texts), vocabulary_used(texts))


def measured(study: Study, name: str) -> dict[str, dict[int, Any]]:
    """What is kept in one other file of each run, by variant and seed."""
    found: dict[str, dict[int, Any]] = {}
    for variant in study.variants:
        for seed in study.trained(variant):
            if (file := study.result(variant, seed, name)).exists():
                found.setdefault(variant.name, {})[seed] = json.loads(file.read_text())
    return found


def means(study: Study, name: str, key: str) -> dict[str, float]:
    """Of a number that was measured, over the seeds of each variant."""
    return {
        variant: statistics.mean(one[key] for one in of_seed.values())
        for variant, of_seed in measured(study, name).items()
    }


def write_page(study: Study, page: Path = PAGE) -> None:
    """Put the tables between the page's marks, and the picture beside it."""
    main, by_beam = said(study), {beam: said(study, beam) for beam in study.beams}
    standing = {variant.name: study.trained(variant) for variant in study.variants}
    took, speed = means(study, "training.json", "minutes"), means(study, "speed.json", "milliseconds")
    made = {
        "answer": [tables.answer(main, len(study.seeds))],
        "picture": [f"![CIDEr-D by variant]({page.stem}.png)" if main else "No captions yet."],
        "quality": tables.quality(main, took, speed),
        "against": tables.against(main),
        "beams": tables.beams(by_beam),
        "retrieval": tables.retrieval(
            [measured(study, f"retrieval-{study.retrieval_photos}x{captions}.json") for captions in (1, 5)]
        ),
        "standing": tables.standing(standing, {v.name: v.about for v in study.variants}, study.seeds),
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
    parser.add_argument("--results", type=Path, default=RESULTS, help="what is measured; benchmarks/captioning_study")
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
    study = Study(given.data, given.out, given.results, given.seeds, beams=given.beams, **ranked)
    with LiveProgress() as live:
        for seed in study.seeds:
            for variant in VARIANTS:
                if variant.name not in given.variants:
                    continue
                if not known(variant):
                    live.tell(f"{variant.name}: not known to this version; left out")
                    continue
                for part in (part for part in given.parts if part != "page"):
                    live.tell(f"{variant.name}, seed {seed}: {part}")
                    STEPS[part](study, variant, seed, live)
            if "page" in given.parts:
                write_page(study, given.page)


if __name__ == "__main__":
    main()
