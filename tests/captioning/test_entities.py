"""Who is named, and who is not: thresholds, doubt, several faces; landmarks with the real encoder."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from carousel.captioning import Caption, PhotoCaptions
from carousel.captioning.entities import CLEAR, NEAR, PARTS, Entities, Sighting, entities_in
from carousel.captioning.gallery import Gallery
from carousel.captioning.photo_captions import with_entities
from carousel.cli import main
from carousel.vision import faces, landmarks
from carousel.vision.faces import Face
from carousel.vision.landmarks import look
from carousel.vision.photo import read_upright

from .stand_in_faces import find_colours
from .test_gallery import draw

PHOTOS = Path(__file__).parents[2] / "examples/photos"


def point(x: float, y: float = 0.0) -> Tensor:
    return torch.tensor([x, y, *[0.0] * 126])


def seen(
    monkeypatch: pytest.MonkeyPatch, people: dict[str, Tensor], *points: Tensor, score: float = 1.0
) -> list[str | None]:
    """The names of faces with these points."""
    found = [Face((i / 9, 0.0, (i + 1) / 9, 1.0), score, p[None]) for i, p in enumerate(points)]
    monkeypatch.setattr(faces, "find_faces", lambda photo, least: found)
    return [face.name for face in entities_in(PHOTOS / "cat.jpg", Gallery(people, {})).faces]


def test_a_near_face_is_named_and_a_far_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    ada = {"Ada": torch.stack([point(0.0), point(5.0)])}  # the nearest of her photos counts
    assert seen(monkeypatch, ada, point(NEAR - 0.01)) == ["Ada"]
    assert seen(monkeypatch, ada, point(5 + NEAR - 0.01)) == ["Ada"]
    assert seen(monkeypatch, ada, point(NEAR + 0.01)) == [None]
    assert seen(monkeypatch, ada) == []


def test_between_two_people_nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"Ada": point(0.0)[None], "Bo": point(0.4)[None]}
    assert seen(monkeypatch, both, point(0.2)) == [None]
    assert seen(monkeypatch, both, point(0.2 - CLEAR / 2 + 0.005)) == [None]
    assert seen(monkeypatch, both, point(0.2 - CLEAR / 2 - 0.005)) == ["Ada"]


def test_nobody_is_in_a_photo_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"Ada": point(0.0)[None], "Bo": point(9.0)[None]}
    assert seen(monkeypatch, both, point(0.1), point(9.1), point(0.01), point(4.0)) == [None, "Bo", "Ada", None]


def test_what_may_be_a_face_counts_only_with_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    ada = {"Ada": point(0.0)[None]}
    assert seen(monkeypatch, ada, point(0.1), point(4.0), score=faces.FOUND - 0.1) == ["Ada"]
    assert seen(monkeypatch, ada, point(0.1), point(4.0), score=faces.FOUND) == ["Ada", None]


def test_photos_to_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "find_faces", find_colours)
    draw(tmp_path / "people/Ada/a.png", "red")
    draw(tmp_path / "people/Bo/a.png", "blue")
    found = entities_in(draw(tmp_path / "party.png", "blue", "green", "red"), Gallery.load(tmp_path))
    assert [face.name for face in found.faces] == ["Bo", None, "Ada"]
    assert found.faces[0].box == pytest.approx((0.05, 0.2, 0.255, 0.71), abs=0.01)
    caption = Caption("three people sit", -1.0, True, [("three", 0.5), ("people", 0.5), ("sit", 0.5)])
    named = found.name(caption)
    assert named.text == "Bo, Ada and a person sit" and named.words == caption.words


def test_a_photo_that_could_not_be_read_stays_so() -> None:
    broken = PhotoCaptions("a.jpg", [], "a.jpg: damaged")
    assert with_entities(broken, Gallery({}, {})) is broken


def test_json_has_boxes_names_and_distances() -> None:
    found = Entities([Sighting((0.1, 0.2, 0.3, 0.4), None, 0.712345)], [Sighting((0, 0, 1, 1), "Big Ben", 44)])
    assert found.as_json() == {
        "faces": [{"box": [0.1, 0.2, 0.3, 0.4], "name": None, "distance": 0.7123}],
        "landmarks": [{"box": [0, 0, 1, 1], "name": "Big Ben", "parts": 44}],
    }


@pytest.fixture(scope="module")
def temple() -> Gallery:
    view = look(read_upright(PHOTOS / "temple.jpg", landmarks.SIDE))
    return Gallery({}, {"Temple": [view._replace(grid=view.grid.half())]})


ALTERED = {
    "cropped": lambda photo: photo.crop((120, 60, 600, 400)),
    "blurred": lambda photo: photo.filter(ImageFilter.GaussianBlur(3)),
    "dark": lambda photo: ImageEnhance.Brightness(photo).enhance(0.35),
    "turned": lambda photo: photo.rotate(8, Image.Resampling.BICUBIC).crop((60, 40, 580, 390)),
    "smaller": lambda photo: photo.resize((300, 200)),
}


@pytest.mark.parametrize("how", ALTERED)
def test_a_landmark_is_known_again(how: str, temple: Gallery) -> None:
    file = io.BytesIO()
    ALTERED[how](Image.open(PHOTOS / "temple.jpg")).save(file, "PNG")
    (place,) = entities_in(file.getvalue(), temple).landmarks
    assert place.name == "Temple" and place.score >= PARTS


def test_where_a_landmark_lies_in_a_photo(temple: Gallery) -> None:
    file = io.BytesIO()
    photo = Image.open(PHOTOS / "coffee.jpg").resize((640, 427))
    photo.paste(Image.open(PHOTOS / "temple.jpg").resize((480, 320)), (140, 90))
    photo.save(file, "PNG")
    (place,) = entities_in(file.getvalue(), temple).landmarks
    assert place.box == pytest.approx((140 / 640, 90 / 427, 620 / 640, 410 / 427), abs=0.1)


@pytest.mark.parametrize("name", ["cat", "coffee", "dogs", "moose", "mountains", "photographer", "stream"])
def test_other_photos_are_no_landmark(name: str, temple: Gallery) -> None:
    assert entities_in(PHOTOS / f"{name}.jpg", temple).landmarks == []


def test_a_mirrored_landmark_is_another(temple: Gallery) -> None:
    file = io.BytesIO()
    Image.open(PHOTOS / "temple.jpg").transpose(Image.Transpose.ROTATE_180).save(file, "PNG")
    assert entities_in(file.getvalue(), temple).landmarks == []


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(faces, "find_faces", find_colours)
    photo, folder = draw(tmp_path / "people/Ada_Lovelace/a.png", "red"), str(tmp_path / "gallery")
    assert main(["gallery", "add", str(photo), "--gallery", folder]) == 0
    assert main(["gallery", "list", "--gallery", folder]) == 0
    assert capsys.readouterr().out == "people/Ada Lovelace: 1 photo\n" * 2
    page = tmp_path / "page.html"
    assert main(["caption", str(photo), "--gallery", folder, "--json", "--report", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "Ada Lovelace" in found["captions"][0]["text"] and "Ada Lovelace" in page.read_text(encoding="utf-8")
    (face,) = found["entities"]["faces"]
    assert face["name"] == "Ada Lovelace" and face["distance"] == pytest.approx(0, abs=0.02)
    assert main(["caption", str(photo), "--gallery", folder]) == 0
    assert "Ada Lovelace" in capsys.readouterr().out
    assert main(["gallery", "remove", "Ada Lovelace", "--gallery", folder]) == 0
    assert capsys.readouterr().out == "removed people/Ada Lovelace: 1 photo\n"
    assert main(["caption", str(photo), "--gallery", folder]) == 2
    assert "an empty gallery" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["add"], "carousel gallery add: does not go with this (got nothing); photos or names; see --help\n"),
        (["list", "Ada"], "carousel gallery list: does not go with this (got Ada); nothing more; see --help\n"),
        (["remove", "Ada", "--gallery", "nowhere"], "nowhere: no such gallery (got a path to nothing); a folder with "
         "people/NAME/ or landmarks/NAME/; make it with carousel gallery add\n"),
    ],
)  # fmt: skip
def test_a_wrong_use_is_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gallery", *words]) == 2
    assert capsys.readouterr().err == line
