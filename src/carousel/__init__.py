"""Carousel: learn from sequences with recurrent networks.

    carousel.caption("dog.jpg")                     sentences about a photo
    carousel.train("reviews.csv").predict("Great!") a model of your own, from a file or a folder
    carousel.train("captions.jsonl", "photos")      a captioner of your own
    carousel.generate("runs/book-language", "Once") more text
    carousel.load("runs/reviews-classify")          a model again
    carousel.evaluate("captions.jsonl", "photos")   how good it is
    carousel.calibrate("m.safetensors", "captions.jsonl", "photos")     how sure it can be of a sentence
    carousel.Recurrent("gru", 64, 128)              any recurrence, in layers
    carousel.LSTM(64, 128), GRU, RNN                torch.nn's layers, argument for argument
    carousel.explain(model)                         what the compiler made of a recurrence
    carousel.compare("series.jsonl", ["lstm", "gru"])   which recurrence suits your sequences
    carousel.reproduce("embedded-reber")            a paper's experiment, beside what the paper says
    carousel.check_cell(MyCell)                     the tests of a recurrence of your own
    carousel.inspect("runs/captioner", "captions.jsonl")    what goes on inside a trained network

Names are loaded when first used, so that importing the package is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "calibrate": "carousel.tasks.calibration",
    "caption": "carousel.tasks.captioning",
    "train": "carousel.tasks.verbs",
    "evaluate": "carousel.tasks.verbs",
    "predict": "carousel.tasks.verbs",
    "generate": "carousel.tasks.verbs",
    "load": "carousel.tasks.verbs",
    "compare": "carousel.tasks.comparison",
    "inspect": "carousel.diagnostics.inspection",
    "reproduce": "carousel.reading_list",
    "Captioner": "carousel.captioning",
    "CaptioningConfig": "carousel.captioning",
    "Decoding": "carousel.captioning",
    "caption_photos": "carousel.captioning",
    "Cell": "carousel.cells",
    "Elman": "carousel.cells",
    "explain": "carousel.compiler.explain",
    "ProjectedLSTM": "carousel.cells",
    "ResetAfterGRU": "carousel.cells",
    "GRU": "carousel.nn",
    "LSTM": "carousel.nn",
    "RNN": "carousel.nn",
    "Recurrent": "carousel.nn",
    "BahdanauAttention": "carousel.nn",
    "LuongAttention": "carousel.nn",
    "Pyramid": "carousel.nn",
    "check_cell": "carousel.nn",
    "trajectory": "carousel.nn",
    "unroll": "carousel.nn",
}

if TYPE_CHECKING:
    from carousel.captioning import Captioner, CaptioningConfig, Decoding, caption_photos
    from carousel.cells import Cell, Elman, ProjectedLSTM, ResetAfterGRU
    from carousel.compiler.explain import explain
    from carousel.diagnostics.inspection import inspect
    from carousel.nn import (
        GRU,
        LSTM,
        RNN,
        BahdanauAttention,
        LuongAttention,
        Pyramid,
        Recurrent,
        check_cell,
        trajectory,
        unroll,
    )
    from carousel.reading_list import reproduce
    from carousel.tasks.calibration import calibrate
    from carousel.tasks.captioning import caption
    from carousel.tasks.comparison import compare
    from carousel.tasks.verbs import evaluate, generate, load, predict, train

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "BahdanauAttention",
    "Captioner",
    "CaptioningConfig",
    "Cell",
    "Decoding",
    "Elman",
    "LuongAttention",
    "ProjectedLSTM",
    "Pyramid",
    "Recurrent",
    "ResetAfterGRU",
    "__version__",
    "calibrate",
    "caption",
    "caption_photos",
    "check_cell",
    "compare",
    "evaluate",
    "explain",
    "generate",
    "inspect",
    "load",
    "predict",
    "reproduce",
    "train",
    "trajectory",
    "unroll",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'carousel' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
