"""Fixtures that any test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("house", deadline=None, max_examples=50)  # a busy machine is no failure
settings.load_profile("house")

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data sets: $CAROUSEL_DATA, or shared/data beside the repository; skips without it."""
    root = Path(os.environ.get("CAROUSEL_DATA", BESIDE))
    if not root.is_dir():
        pytest.skip(f"no data sets in {root}; set CAROUSEL_DATA to their folder")
    return root
