"""The page of captions: everything is on it, nothing leaves it, and nothing in a name or a caption becomes markup."""

import math
import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from carousel.errors import ConfigError
from carousel.reports import PhotoResult, write_caption_report
from carousel.reports.captions import Heat

VOID = {"meta", "img", "br"}


class Caption(NamedTuple):
    text: str
    logprob: float
    novel: bool
    words: list[tuple[str, float]]


class Page(HTMLParser):
    """A page's elements and text; an element that is not closed in order fails the test."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def of_class(self, name: str) -> list[dict[str, str]]:
        return [attributes for _, attributes in self.elements if name in attributes.get("class", "").split()]


def caption(text: str, *probabilities: float, novel: bool = True) -> Caption:
    return Caption(text, sum(map(math.log, probabilities)), novel, list(zip(text.split(), probabilities, strict=True)))


DOG = PhotoResult(
    "photos/dog.jpg",
    [caption("a dog runs", 0.5, 0.9, 0.4), caption("a dog", 0.5, 0.1, novel=False)],
    Image.new("RGB", (960, 640), "green"),
)
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>.jpg'


def written(tmp_path: Path, *photos: PhotoResult) -> Page:
    path = write_caption_report(tmp_path / "page.html", photos, title="Captions", model_line="Show and Tell")
    return Page(path.read_text(encoding="utf-8"))


def test_shows_every_sentence_with_its_probabilities(tmp_path: Path) -> None:
    page = written(tmp_path, DOG)
    assert [word["title"] for word in page.of_class("word")] == [
        "a: 50%",
        "dog: 90%",
        "runs: 40%",
        "a: 50%",
        "dog: 10%",
    ]
    assert [word["style"] for word in page.of_class("word")][:2] == ["--p:0.500", "--p:0.900"]
    assert "18%" in page.text
    assert "5.0%" in page.text
    assert [share["style"] for share in page.of_class("share")] == ["--p:1.000", "--p:0.278"]
    assert [attributes["title"] for attributes in page.of_class("odds")] == [
        "log-probability -1.71",
        "log-probability -3.00",
    ]


def test_marks_new_sentences_and_guesses(tmp_path: Path) -> None:
    page = written(tmp_path, DOG)
    assert [badge["class"] for badge in page.of_class("badge")] == ["badge new", "badge"]
    assert page.text.index("new sentence") < page.text.index("in training set")
    assert [word["title"] for word in page.of_class("guess")] == ["dog: 10%"]


class Judged(NamedTuple):
    text: str
    logprob: float
    novel: bool
    words: list[tuple[str, float]]
    confidence: float
    grade: str
    unsure_of: str | None


def test_says_how_sure_a_sentence_is_and_shows_what_a_hedge_replaces(tmp_path: Path) -> None:
    words = [("a", 0.9), ("dog", 0.5)]
    sure = Judged("a dog", -1.0, True, words, 0.83, "without errors", None)
    hedged = Judged("I am not sure, but I see a dog", -1.0, True, words, 0.21, "unrelated", "a dog")
    photos = [PhotoResult(f"{i}.jpg", [said]) for i, said in enumerate((sure, hedged))]
    html = write_caption_report(tmp_path / "page.html", photos, title="t", model_line="m").read_text()
    page = Page(html)
    assert "83% sure: without errors" in page.text and "21% sure" in page.text and "21% sure:" not in page.text
    assert hedged.text in page.text and len(page.of_class("unsure")) == 1


class Spoken(NamedTuple):
    text: str
    logprob: float
    novel: bool
    words: list[tuple[str, float]]
    school: str


def test_schools_stand_side_by_side_each_with_its_best_first(tmp_path: Path) -> None:
    said = [
        Spoken(f"{w} {school}", -k, True, [(w, 0.5)], school) for school in "xy" for k, w in ((2.0, "p"), (1.0, "q"))
    ]
    page = written(tmp_path, PhotoResult("a.jpg", said))
    assert [len(page.of_class(name)) for name in ("school", "best", "share")] == [2, 2, 4]
    assert [share["style"] for share in page.of_class("share")] == ["--p:0.368", "--p:1.000"] * 2


def test_shows_where_words_were_seen_and_whom_the_gallery_knows(tmp_path: Path) -> None:
    photo, maps = np.full((70, 70, 3), 255, np.uint8), np.eye(2, dtype=np.float32)[:, :, None] * np.ones(2, np.float32)
    heat = Heat("where it was", photo, ["dog", EVIL], maps, [0.25, 0.5])
    page = written(tmp_path, PhotoResult("a.jpg", DOG.captions, heat=[heat], named=["Ann", "the tower"]))
    tiles = [image for image in page.attributes("img") if image["alt"].startswith("where")]
    assert [image["width"] for image in tiles] == ["112", "112"] and EVIL in tiles[1]["alt"]
    light = [np.asarray(Image.open(BytesIO(b64decode(tile["src"].split(",")[1]))))[:, :, 0] for tile in tiles]
    assert light[0][:30].mean() > 230 > 100 > light[0][-30:].mean() and light[1][-30:].mean() > 230
    assert "dog 25%" in page.text and "of the gallery: Ann, the tower" in page.text
    assert "nobody and nothing" in written(tmp_path, PhotoResult("a.jpg", DOG.captions, named=[])).text


def test_photos_are_embedded_small_with_a_description(tmp_path: Path) -> None:
    (image,) = written(tmp_path, DOG).attributes("img")
    assert image["src"].startswith("data:image/jpeg;base64,")
    assert (image["width"], image["height"], image["alt"]) == ("480", "320", "a dog runs")


def test_nothing_is_fetched_and_nothing_runs(tmp_path: Path) -> None:
    page = written(tmp_path, DOG)
    names = {tag for tag, _ in page.elements}
    assert not names & {"script", "link", "iframe", "object", "embed"}
    addresses = [value for _, found in page.elements for name, value in found.items() if name in {"src", "href"}]
    assert all(address.startswith("data:") for address in addresses)
    assert not re.search(r"url\(|@import|https?://", (tmp_path / "page.html").read_text(encoding="utf-8"))
    policy = [meta["content"] for meta in page.attributes("meta") if "http-equiv" in meta]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


@pytest.mark.parametrize(
    "photo",
    [
        PhotoResult(EVIL, error=f"{EVIL}: not a picture"),
        PhotoResult(EVIL, [Caption(EVIL, -1.0, True, [(EVIL, 0.4)])], DOG.image),
    ],
)
def test_markup_in_names_and_words_is_only_text(photo: PhotoResult, tmp_path: Path) -> None:
    page = written(tmp_path, photo)
    assert not page.attributes("script")
    assert all("onerror" not in image for image in page.attributes("img"))
    assert EVIL.split("/")[-1] in page.text


def test_unreadable_photos_say_why_among_the_others(tmp_path: Path) -> None:
    page = written(tmp_path, DOG, PhotoResult("cat.jpg", error="cat.jpg: not a picture (got 0 bytes)"), DOG)
    assert page.text.index("a dog runs") < page.text.index("not a picture (got 0 bytes)")
    assert re.sub(r"\s+", " ", page.text).count("1 file without a caption") == 1
    assert len(page.attributes("img")) == 2


def test_a_photo_without_a_picture_still_has_its_sentences(tmp_path: Path) -> None:
    page = written(tmp_path, PhotoResult("dog.jpg", DOG.captions, b"damaged"))
    assert "no preview" in page.text
    assert len(page.of_class("word")) == 5


def test_a_page_of_nothing_says_so(tmp_path: Path) -> None:
    assert "No photo was given." in written(tmp_path).text


def test_file_bytes_and_pictures_are_the_same(tmp_path: Path) -> None:
    picture = Image.new("RGB", (100, 50), "red")
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    (first,) = written(tmp_path, PhotoResult("a.png", DOG.captions, picture)).attributes("img")
    (second,) = written(tmp_path, PhotoResult("a.png", DOG.captions, buffer.getvalue())).attributes("img")
    assert first == second


def test_the_folder_is_made_and_an_old_page_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    for title in ("first", "second"):
        write_caption_report(path, [], title=title, model_line="")
    assert "<h1>second</h1>" in path.read_text(encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


def test_an_old_page_survives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_caption_report(tmp_path / "page.html", [], title="old", model_line="")

    def full(self: Path, *args: object, **kwargs: object) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConfigError, match=r"page\.html: the page cannot be written \(got No space left on device\)"):
        write_caption_report(path, [], title="new", model_line="")
    assert "<h1>old</h1>" in path.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_a_folder_cannot_be_a_page(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the page cannot be written"):
        write_caption_report(tmp_path, [], title="", model_line="")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="the page cannot be written"):
        write_caption_report(tmp_path / "file" / "page.html", [], title="", model_line="")
