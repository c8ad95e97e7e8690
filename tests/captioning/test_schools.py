"""The captioners that ship, side by side on the photos that ship."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from carousel.captioning import Decoding
from carousel.captioning.schools import SCHOOLS, Schools, load_captioner, weights_of
from carousel.cli import main
from carousel.vision.photo import find_photos, read_photo

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


@pytest.fixture(scope="module")
def every() -> Schools:
    return Schools.load()


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    return torch.stack([read_photo(file) for file in list(find_photos([str(PHOTOS)]))[:2]])


def test_each_says_what_it_says_alone(every: Schools, photos: torch.Tensor) -> None:
    found = every.caption(photos, Decoding(n=2))
    assert [caption.school for caption in found[1]] == ["attend", "attend", "nic", "nic", "compose", "compose"]
    for name in SCHOOLS:
        alone = load_captioner(weights_of(name)).caption(photos, Decoding(n=2))
        own = [[caption for caption in captions if caption.school == name] for captions in found]
        assert [[caption._replace(school=None) for caption in captions] for captions in own] == alone


def test_maps_of_those_that_look_at_places(every: Schools, photos: torch.Tensor) -> None:
    found = every.caption(photos)
    for captions, (looked, seen) in zip(found, every.maps(photos, found), strict=True):
        assert looked.what.startswith("attend: ") and looked.words == [word for word, _ in captions[0].words]
        assert seen.what.startswith("compose: ") and seen.shares == sorted(seen.shares or [], reverse=True)
        for maps in (looked, seen):
            assert maps.places.shape == (len(maps.words), 7, 7) and maps.shares is not None
            assert all(0 <= share <= 1 for share in maps.shares)


def test_all_schools_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, page = str(next(iter(find_photos([str(PHOTOS)])))), tmp_path / "page.html"
    assert main(["caption", photo, "--school", "all", "--report", str(page)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [photo, "  attend", "  nic", "  compose", str(page)]
    html = page.read_text()
    assert html.count('<p class="school">') == 3 and "compose: where concepts were seen" in html
    assert main(["caption", photo, "--school", "all", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [caption["school"] for caption in found["captions"]] == ["attend", "nic", "compose"]
