"""Fixtures that any test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
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


@pytest.fixture(scope="session", autouse=True)
def compiled_code_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile into a new folder, unless one is given: the user's cache is left alone, and no old code is tested."""
    with pytest.MonkeyPatch.context() as patch:
        if "CAROUSEL_CACHE_DIR" not in os.environ:
            patch.setenv("CAROUSEL_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        yield
