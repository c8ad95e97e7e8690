"""A gallery is its photos: what is added, changed or deleted is so in every file and at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from safetensors import safe_open

from carousel.captioning import gallery
from carousel.captioning.gallery import EMBEDDINGS, Gallery, add_photos, embedded, entities, remove
from carousel.errors import ConfigError, DataError, ModelFileError, PhotoError, UserError
from carousel.vision import faces

from .stand_in_faces import find_colours

PHOTOS = Path(__file__).parents[2] / "examples/photos"


def draw(path: Path, *colours: str, shade: int = 0) -> Path:
    """A grey photo with a square of every colour, from left to right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    photo = Image.new("RGB", (200, 100), (70, 70, 70))
    for i, colour in enumerate(colours):
        ImageDraw.Draw(photo).rectangle((10 + 60 * i, 20, 50 + 60 * i, 70), fill=colour)
    ImageDraw.Draw(photo).point((0, 0), fill=(shade, shade, shade))  # another file, the same faces
    photo.save(path)
    return path


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "find_faces", find_colours)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gallery of two people, one with two photos, and a landmark."""
    draw(tmp_path / "people/Ada_Lovelace/one.png", "red")
    draw(tmp_path / "people/Ada_Lovelace/two.png", "red", shade=9)
    draw(tmp_path / "people/Bo/one.png", "blue")
    (tmp_path / "landmarks/Big Ben").mkdir(parents=True)
    shutil.copy(PHOTOS / "temple.jpg", tmp_path / "landmarks/Big Ben")
    add_photos(tmp_path / "gallery", [tmp_path / "people", tmp_path / "landmarks"])
    return tmp_path / "gallery"


def keys(entity_folder: Path) -> int:
    """How many photos the embeddings are of."""
    with safe_open(entity_folder / EMBEDDINGS, framework="pt") as file:
        return len({name.split(".")[0] for name in file.keys()})  # noqa: SIM118


def test_photos_are_copied_and_looked_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [(e.kind, e.name, len(e.photos)) for e in entities(folder)] == [
        ("people", "Ada Lovelace", 2),
        ("people", "Bo", 1),
        ("landmarks", "Big Ben", 1),
    ]
    monkeypatch.setattr(gallery, "_embed", None)  # from here on nothing is computed
    found = Gallery.load(folder)
    assert {name: tuple(points.shape) for name, points in found.people.items()} == {
        "Ada Lovelace": (4, 128),
        "Bo": (2, 128),
    }
    assert found.landmarks["Big Ben"][0].pooled.shape == (1280,)


def test_what_is_added_twice_is_there_once(folder: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    add_photos(folder, [tmp_path / "people"])
    add_photos(folder, folder / "people")  # the gallery's own photos
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def test_two_photos_of_one_name_are_both_kept(folder: Path, tmp_path: Path) -> None:
    other = draw(tmp_path / "more/people/Bo/one.png", "blue", shade=99)
    (bo,) = add_photos(folder, other)
    assert bo.name == "Bo" and len(bo.photos) == 2 and keys(bo.folder) == 2


def test_embeddings_follow_the_photos(folder: Path) -> None:
    ada = folder / "people/Ada_Lovelace"
    (ada / "two.png").unlink()
    draw(ada / "three.png", "red", shade=20)
    draw(ada / "four.png", "red", shade=30)
    assert Gallery.load(folder).people["Ada Lovelace"].shape == (6, 128)
    (ada / "three.png").unlink()
    (ada / "four.png").unlink()
    Gallery.load(folder)
    assert keys(ada) == 1  # nothing is kept of a photo that is gone


def test_what_is_removed_leaves_nothing(folder: Path) -> None:
    assert [entity.name for entity in remove(folder, "Ada Lovelace")] == ["Ada Lovelace"]
    assert not (folder / "people/Ada_Lovelace").exists()
    assert list(Gallery.load(folder).people) == ["Bo"]
    assert not any(b"Lovelace" in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_nothing_is_kept_outside_the_gallery(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAROUSEL_CACHE", str(tmp_path / "cache"))
    (folder / "landmarks/Big Ben" / EMBEDDINGS).unlink()
    Gallery.load(folder)
    assert not (tmp_path / "cache").exists()


def test_a_name_can_be_given(tmp_path: Path) -> None:
    photo = draw(tmp_path / "holiday.png", "green")
    assert [e.name for e in add_photos(tmp_path / "gallery", photo, person="Cy de Vries")] == ["Cy de Vries"]
    assert [e.kind for e in add_photos(tmp_path / "gallery", photo, landmark="The Wall")] == ["landmarks"]


def test_damaged_embeddings_are_made_again(folder: Path) -> None:
    (folder / "people/Bo" / EMBEDDINGS).write_bytes(b"nonsense")
    assert Gallery.load(folder).people["Bo"].shape == (2, 128)
    assert keys(folder / "people/Bo") == 1


def test_a_gallery_made_with_another_encoder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gallery.KINDS, "people", "a newer network")
    with pytest.raises(ModelFileError) as raised:
        Gallery.load(folder)
    assert str(raised.value) == (
        f"{folder}/people/Ada_Lovelace/embeddings.safetensors: made with another encoder (got {faces.FINGERPRINT}); a "
        "newer network; delete this file, and it is made again from the photos"
    )
    (folder / "people/Ada_Lovelace" / EMBEDDINGS).unlink()
    assert len(embedded(entities(folder)[0])) == 2


SIZE = "exactly one upright face, of at least 53 pixels and 8% of the longer side; crop the photo or choose another"


@pytest.mark.parametrize(
    ("colours", "line"),
    [
        ((), f"no face was found (got 0); {SIZE}"),
        (("red", "blue", "green"), f"more than one face (got 3); {SIZE}"),
    ],
)
def test_a_photo_of_a_person_has_one_face(folder: Path, tmp_path: Path, colours: tuple[str, ...], line: str) -> None:
    good, bad = draw(tmp_path / "people/Di/a.png", "green"), draw(tmp_path / "people/Di/b.png", *colours)
    with pytest.raises(PhotoError) as raised:
        add_photos(folder, [good, bad])
    assert str(raised.value) == f"{bad}: {line}"
    assert not (folder / "people/Di").exists()  # not the good one either


def test_a_photo_that_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "people/Di/a.png"
    bad.parent.mkdir()
    bad.write_bytes(b"GIF89a")
    with pytest.raises(PhotoError, match=r"Di/a\.png: not a picture that can be read \(got a GIF\)"):
        add_photos(folder, bad)
    shutil.copy(bad, folder / "people/Bo/bad.png")
    with pytest.raises(PhotoError, match=r"Bo/bad\.png: not a picture that can be read"):
        Gallery.load(folder)


@pytest.mark.parametrize(
    ("error", "arguments", "line"),
    [
        (ConfigError, {}, "{photo}: it is not said whose photo this is (got the folder {place}); people/NAME/ or "
         "landmarks/NAME/; move it, or give --person NAME or --landmark NAME"),
        (ConfigError, {"person": "Ada", "landmark": "Big Ben"},
         "--person: has no meaning with --landmark (got both); one of the two; leave one out"),
        (ConfigError, {"person": "../Ada"},
         "the name: not one that a folder can have (got '../Ada'); letters and spaces; change it"),
        (ConfigError, {"landmark": " .. "},
         "the name: not one that a folder can have (got ' .. '); letters and spaces; change it"),
    ],
)  # fmt: skip
def test_whose_photo(tmp_path: Path, error: type[UserError], arguments: dict[str, str], line: str) -> None:
    photo = draw(tmp_path / "a.png", "red")
    with pytest.raises(error) as raised:
        add_photos(tmp_path / "gallery", photo, **arguments)
    assert str(raised.value) == line.format(photo=photo, place="/".join(tmp_path.parts[-2:]))
    assert not (tmp_path / "gallery").exists()


def test_no_gallery_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none: no such gallery \(got a path to nothing\); a folder with people/NAME/"):
        Gallery.load(tmp_path / "none")
    (tmp_path / "people/Ada").mkdir(parents=True)
    with pytest.raises(DataError, match=r"an empty gallery \(got no photos in people/NAME/ or landmarks/NAME/\)"):
        Gallery.load(tmp_path)
    with pytest.raises(DataError, match=r"nobody and nothing of this name \(got 'Ada'\); the gallery is empty"):
        remove(tmp_path, "Ada")
