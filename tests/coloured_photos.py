"""A few coloured pictures with captions that name the colour: a data set to train a captioner on in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from carousel.captioning import Captioner, CaptioningConfig, PhotoEncoder
from carousel.captioning.pictures import load_pictures, training_set
from carousel.captioning.training import CaptioningTask
from carousel.tasks.captioning import train
from carousel.training.progress import LiveProgress

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (30, 40, 220), "yellow": (240, 230, 40)}
SPLITS = ("train", "train", "val", "test")
CONFIG: dict[str, Any] = {
    "min_count": 1,
    "hidden_size": 32,
    "embedding_size": 32,
    "dropout": 0.0,
    "feature_dropout": 0.0,
    "label_smoothing": 0.0,
    "learning_rate": 0.05,
    "averaging": 0.5,
    "epochs": 20,
    "patience": 20,
    "batch_photos": 4,
    "max_length": 6,
    "mixed_precision": "off",
}


class Data:
    def __init__(self, folder: Path) -> None:
        self.folder, self.photos, self.captions = folder, folder / "photos", folder / "captions.jsonl"
        self.photos.mkdir()
        lines = []
        for colour, rgb in COLOURS.items():
            for i, split in enumerate(SPLITS):
                file = f"{colour}{i}.png"
                Image.new("RGB", (40, 30), tuple(max(0, value - 8 * i) for value in rgb)).save(self.photos / file)
                captions = [f"A {colour} picture.", f"a {colour} picture"]
                lines.append(json.dumps({"file": file, "captions": captions, "split": split}))
        self.captions.write_text("\n".join(lines))

    def train(
        self, run: str, *, resume: bool = False, progress: LiveProgress | None = None, **options: Any
    ) -> Captioner:
        start_from = options.pop("start_from", None)
        config = CaptioningConfig(**{**CONFIG, **options})
        return train(
            self.captions,
            self.photos,
            run=self.folder / run,
            resume=resume,
            start_from=start_from,
            config=config,
            progress=progress,
        )

    def task(self, **options: Any) -> CaptioningTask:
        config = CaptioningConfig(**{**CONFIG, **options})
        encoder = PhotoEncoder(config.finetune_from)
        with LiveProgress() as live:
            found = training_set(self.captions, self.photos, lists=None, seed=0, tell=live.tell)
            seen, held = (
                load_pictures(found.part(split), self.photos, encoder, mirror=config.flips, live=live)
                for split in ("train", "val")
            )
        return CaptioningTask(config, encoder, seen, held, self.folder / "unused")
