"""Score captioners on Flickr8k's test photos, over seeds and beam widths, and time one photo.

    python benchmarks/captioning.py DATA MODEL... [--beams 1 3 5 20] [--threads 2]
    python benchmarks/captioning.py DATA --threads 2            # all that ship, side by side: their time alone

DATA is a folder with `captions.jsonl.gz` and `images/`. Models that differ by the seed alone are averaged. Prints each
model's scores, their mean, and the median latency of the first model; benchmarks/captioning.md has the published
figures they are compared with.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from carousel import Captioner, Decoding, evaluate
from carousel.captioning.schools import Schools
from carousel.vision.photo import read_photo

SCORES = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "chair_s", "chair_i", "novel")


def score(data: Path, models: list[Captioner], beam: int) -> None:
    """One row a model and their mean, in percent; distinct captions and words used as counts."""
    rows = []
    for model in models:
        found = evaluate(data / "captions.jsonl.gz", data / "images", model=model, decoding=Decoding(beam=beam)).scores
        rows.append([100 * getattr(found, name).value for name in SCORES] + [found.distinct, found.vocabulary])
    for name, row in [
        *((str(i), row) for i, row in enumerate(rows)),
        ("mean", [statistics.mean(c) for c in zip(*rows, strict=True)]),
    ]:
        print(f"{beam:5} {name:>6} " + " ".join(f"{value:8.2f}" for value in row), flush=True)


def latency(model: Captioner | Schools, photos: list[Path], threads: int) -> None:
    """File to 5-best, one photo at a time, after ten to warm up: median and spread over the rest."""
    torch.set_num_threads(threads)
    times = []
    for photo in photos:
        began = time.perf_counter()
        model.caption(read_photo(photo)[None], Decoding(n=5))
        times.append(1000 * (time.perf_counter() - began))
    warm = sorted(times[10:])
    p50, p95 = statistics.median(warm), warm[int(0.95 * len(warm))]
    print(f"one photo, file to 5-best, {threads} thread(s): p50 {p50:.0f} ms, p95 {p95:.0f} ms, {len(warm)} photos")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, nargs="*")
    parser.add_argument("--beams", type=int, nargs="*", default=[1, 3, 5, 20])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    models = [Captioner.load(path) for path in arguments.models]
    if models:
        print(" beam   seed " + " ".join(f"{name:>8}" for name in (*SCORES, "distinct", "words")))
        for beam in arguments.beams:
            score(arguments.data, models, beam)
    photos = sorted((arguments.data / "images").iterdir())[:210]
    for threads in (1, arguments.threads):
        latency(models[0] if models else Schools.load(), photos, threads)


if __name__ == "__main__":
    main()
