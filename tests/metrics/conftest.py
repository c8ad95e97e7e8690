"""Captions whose scores others have published or computed with the official code."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import NamedTuple

import pytest

ARCHITECTURES = ("init", "pre", "par", "merge")


class Scored(NamedTuple):
    """Captions with what they should score."""

    candidates: list[str]
    references: list[list[str]]
    scores: dict[str, float]


@pytest.fixture(scope="session", params=["coco_fakecap_subset126.json", "flickr8k_test_human0_vs_rest.json.gz"])
def oracle(request: pytest.FixtureRequest, data_root: Path) -> Scored:
    """Tokenised captions with the scores of pycocoevalcap 1.2."""
    path = data_root / "coco_captions" / f"oracle_{request.param}"
    raw = path.read_bytes()
    record = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    images = list(record["tokenized_refs"])
    candidates = [record["tokenized_hyp"][image][0] for image in images]
    return Scored(candidates, [record["tokenized_refs"][image] for image in images], record["scores"])


@pytest.fixture(scope="session")
def flickr8k(data_root: Path) -> dict[str, dict[str, list[str]]]:
    """Split -> file -> five captions."""
    splits: dict[str, dict[str, list[str]]] = {}
    with gzip.open(data_root / "flickr8k" / "captions.jsonl.gz", "rt", encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            splits.setdefault(record["split"], {})[record["file"]] = record["captions"]
    return splits


@pytest.fixture(scope="session", params=ARCHITECTURES)
def published(request: pytest.FixtureRequest, data_root: Path, flickr8k: dict[str, dict[str, list[str]]]) -> Scored:
    """1,000 generated captions of the Flickr8k test images, raw, with the scores that their authors published."""
    folder = data_root / "metrics"
    candidates = (folder / f"where_image_{request.param}_1.txt").read_text().splitlines()
    references = [flickr8k["test"][file] for file in (folder / "where_image_files.txt").read_text().split()]
    with (folder / "where_image_scores.txt").open() as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    wanted = ("flickr8k", request.param, "1")
    row = next(row for row in rows if (row["dataset_name"], row["architecture"], row["run"]) == wanted)
    names = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr", "vocab_used", "num_existing_caps")
    return Scored(candidates, references, {name: float(row[name]) for name in names})
