"""All the shapes that captions come in, and what is said of each mistake in them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from carousel.data.captions import CaptionedPhoto, CaptionSet, read_captions
from carousel.errors import ConfigError, DataError

Write = Callable[..., Path]

PHOTOS = [
    CaptionedPhoto("a.jpg", ["A dog , running .", "Two dogs ."], "train"),
    CaptionedPhoto("b.jpg", ['A "big" cat .'], "val"),
    CaptionedPhoto("c.jpg", ["A bird ."], "test"),
]
UNSPLIT = [CaptionedPhoto(photo.file, photo.captions) for photo in PHOTOS]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(content: str | bytes, name: str = "captions") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to_file


def json_lines(*entries: object) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


PLURAL = json_lines(
    {"file": "a.jpg", "captions": ["A dog , running .", "Two dogs ."], "split": "train"},
    {"file": "b.jpg", "captions": ['A "big" cat .'], "split": "dev"},
    {"file": "c.jpg", "captions": ["A bird ."], "split": "test", "width": 640},
)
SINGULAR = json_lines(
    {"image": "a.jpg", "caption": "A dog , running .", "split": "training"},
    {"filename": "b.jpg", "caption": 'A "big" cat .', "split": "validation"},
    {"image": "a.jpg", "caption": "Two dogs .", "split": "restval"},
    {"file_name": "c.jpg", "text": "A bird .", "split": "TEST"},
)
COMMAS = (
    'image,caption,split\na.jpg,"A dog , running .",train\na.jpg,Two dogs .,train\n'
    'b.jpg,"A ""big"" cat .",valid\nc.jpg,A bird .,test\n'
)
TABS = 'split\tcaption\tfile name\ntrain\tA dog , running .\ta.jpg\nval\tA "big" cat .\tb.jpg\n'
TABS += "train\tTwo dogs .\ta.jpg\ntest\tA bird .\tc.jpg\n"
WIDE = 'file;caption_1;caption_2;set\na.jpg;A dog , running .;Two dogs .;train\nb.jpg;"A ""big"" cat .";;val\n'
WIDE += "c.jpg;;A bird .;test\n"
KARPATHY = json.dumps(
    {
        "dataset": "own",
        "images": [
            {
                "filename": photo.file,
                "split": split,
                "sentences": [{"raw": text, "tokens": []} for text in photo.captions],
            }
            for photo, split in zip(PHOTOS, ["restval", "val", "test"], strict=True)
        ],
    }
)


@pytest.mark.parametrize("content", [PLURAL, SINGULAR, COMMAS, TABS, WIDE, KARPATHY])
def test_formats_with_splits(write: Write, content: str) -> None:
    assert read_captions(write(content)) == CaptionSet(PHOTOS, [])


@pytest.mark.parametrize("content", [PLURAL, COMMAS, TABS, KARPATHY])
def test_byte_order_marks_line_ends_and_gzip(write: Write, content: str) -> None:
    windows = b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode()
    assert read_captions(write(windows)).photos == PHOTOS
    assert read_captions(write(gzip.compress(windows))).photos == PHOTOS


def test_a_table_with_the_line_ends_of_old(write: Write) -> None:
    assert read_captions(write(COMMAS.replace("\n", "\r"))).photos == PHOTOS


def test_a_token_file(write: Write) -> None:
    content = 'a.jpg#0\tA dog , running .\nb.jpg#0\tA "big" cat .\na.jpg#1\tTwo dogs .\n\nc.jpg#4\tA bird .\n'
    assert read_captions(write(content)).photos == UNSPLIT


def test_coco(write: Write) -> None:
    content = {
        "info": {},
        "images": [
            {"id": 9, "file_name": "a.jpg"},
            {"id": 7, "file_name": "b.jpg"},
            {"id": 8, "file_name": "none.jpg"},
        ],
        "annotations": [
            {"image_id": 7, "id": 1, "caption": "A cat .\n"},
            {"image_id": 9, "id": 2, "caption": "A dog ."},
            {"image_id": 7, "id": 3, "caption": "Cats ."},
        ],
    }
    for text in (json.dumps(content), json.dumps(content, indent=2)):
        assert read_captions(write(text)).photos == [
            CaptionedPhoto("b.jpg", ["A cat .", "Cats ."]),
            CaptionedPhoto("a.jpg", ["A dog ."]),
        ]


def test_a_json_list(write: Write) -> None:
    entries = [json.loads(line) for line in PLURAL.splitlines()]
    assert read_captions(write(json.dumps(entries, indent=1))).photos == PHOTOS


def test_karpathys_folders(write: Write) -> None:
    image = {"filepath": "val2014", "filename": "a.jpg", "sentences": [{"raw": "A dog ."}]}
    assert read_captions(write(json.dumps({"images": [image]}))).photos == [
        CaptionedPhoto("val2014/a.jpg", ["A dog ."])
    ]


def test_line_breaks_within_captions(write: Write) -> None:
    assert read_captions(write('file,caption\na.jpg,"A dog\nruns ."\n')).photos[0].captions == ["A dog runs ."]
    assert read_captions(write('{"file": "a.jpg", "caption": "A\u2028dog"}\n')).photos[0].captions == ["A dog"]


def said(path: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read_captions(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(f"{path.parent}/", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "captions: the file is empty (got 0 bytes); some text is needed; check the path"),
        ("\n \n", "captions: the file is empty (got 3 bytes); some text is needed; check the path"),
        (
            b"file,caption\na.jpg,A dog\nb.jpg,A caf\xe9\n",
            "captions:3: not UTF-8 (got byte 0xe9); text files must be UTF-8; save it as UTF-8",
        ),
        (
            PLURAL + '{"file": "d.jpg", "captions": ["A',
            "captions:4: not JSON: Unterminated string starting at (got '\"A' at column 32); JSON Lines is one "
            '{"file": ..., "captions": [...]} a line; mend the line',
        ),
        (
            "{file: 1}\n" + PLURAL,
            "captions:1: not JSON: Expecting property name enclosed in double quotes (got 'file: 1}' at column 2); "
            'JSON Lines is one {"file": ..., "captions": [...]} a line; mend the line',
        ),
        (
            '{"images": [\n  {"filename": "a.jpg",}\n]}',
            "captions:2: not JSON: ",  # the reason has other words in other versions of Python
        ),
        (
            PLURAL + '["d.jpg"]\n',
            "captions:4: not a JSON object (got ['d.jpg']); "
            '{"file": ..., "captions": [...]} is needed; mend the entry',
        ),
        (
            json_lines({"file": "a.jpg", "words": "A dog"}),
            "captions:1: no 'captions' (got 'file', 'words'); 'captions', 'caption', 'text', 'sentences', 'sentence', "
            "'comment' or 'description' is needed; add it",
        ),
        (
            json_lines({"file": 7, "caption": "A dog"}),
            "captions:1: file name is no text (got 7); a string is needed; put it in quotes",
        ),
        (
            json_lines({"file": "a.jpg", "captions": [1]}),
            "captions:1: caption is no text (got 1); a string is needed; put it in quotes",
        ),
        (
            json_lines({"file": "", "caption": "A dog"}),
            "captions:1: no file name (got ''); the name of a photo is needed; mend it",
        ),
        (
            json_lines({"file": "a\n.jpg", "caption": "A dog"}),
            "captions:1: no file name (got 'a\\n.jpg'); the name of a photo is needed; mend it",
        ),
        (
            "x" * 200_000,
            "captions:1: not a header (got field larger than field limit (131072)); names of columns are needed; "
            "check the file",
        ),
        (
            json_lines({"file": "a.jpg", "captions": ["A dog", " . "]}),
            "captions:1: an empty caption of a.jpg (got ' . '); at least one word is needed; "
            "add one or remove the caption",
        ),
        (
            json_lines({"file": "a.jpg", "captions": []}),
            "captions:1: an empty caption of a.jpg (got ''); at least one word is needed; "
            "add one or remove the caption",
        ),
        (
            PLURAL + json_lines({"file": "a.jpg", "captions": ["Again"]}),
            "captions:4: a photo twice (got a.jpg, also at 1); one entry a photo is allowed; join the two",
        ),
        (
            json_lines({"file": "a.jpg", "caption": "A dog", "split": "holdout"}),
            "captions:1: an unknown split (got 'holdout'); train, training, restval, val, valid, validation, dev, "
            "test, testing are allowed; rename or remove it",
        ),
        (
            "file,caption,split\na.jpg,A dog,train\na.jpg,Dogs,test\n",
            "captions:3: a photo in two splits (got a.jpg in 'test', at 2 in 'train'); one split a photo is allowed; "
            "choose one",
        ),
        (
            "photo;words\na.jpg;A dog\n",
            "captions:1: no column 'captions' (got 'photo', 'words'); 'captions', 'caption', 'text', 'sentences', "
            "'sentence', 'comment' or 'description' is needed; rename a column or add a header line",
        ),
        ("a.jpg,A dog\n", "captions:1: no column 'file' (got 'a.jpg', 'a_dog'); 'file', 'image', "),
        (
            "file,caption\na.jpg,A dog, running\n",
            "captions:2: wrong number of cells (got 3); the header has 2; "
            "put quotes around cells that contain the delimiter",
        ),
        (
            'file,caption\na.jpg,"A\ndog"\nb.jpg,\n',
            "captions:4: an empty caption of b.jpg (got ''); at least one word is needed; "
            "add one or remove the caption",
        ),
        (
            'file,caption\na.jpg,A dog\nb.jpg,"A cat\nc.jpg,A bird\n',
            "captions:3: not a table row (got unexpected end of data); quotes must pair and stand around whole cells; "
            "mend the line",
        ),
        ("file,caption\n", "captions: no captions (got 0 photos); at least one is needed; check the file"),
        (
            "a.jpg#0\tA dog\nb.jpg A cat\n",
            "captions:2: not a token line (got 'b.jpg A cat'); 'name.jpg#0', a tab and a caption are needed; "
            "mend the line",
        ),
        (
            "a.jpg#0\tA dog\na.jpg#0\tDogs\n",
            "captions:2: a caption twice (got a.jpg#0, also on line 1); each number once a photo is allowed; "
            "remove one",
        ),
        (
            '{"images": [], "annotations": [{"image_id": 3, "caption": "A dog"}]}',
            "captions:annotations[0]: a caption of no photo (got image_id 3); ids of 'images' are allowed; "
            "add the image or remove the caption",
        ),
        ('{"images": 3}', "captions:1: 'images' is no list (got 3); a list is needed; mend the file"),
        (
            '{"images": [{"filename": "a.jpg"}]}',
            "captions:images[0]: no 'sentences' (got 'filename'); 'sentences' is needed; add it",
        ),
        ("[" * 100_000, "captions:1: JSON nested too deep to read; check the file"),
        (gzip.compress(b"file,caption\n" * 99)[:40], "captions: damaged gzip (got "),
    ],
)
def test_mistakes(write: Write, content: str | bytes, message: str) -> None:
    assert said(write(content)).startswith(message)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    assert (
        said(tmp_path / "none") == "none: no such file (got a path to nothing); a text file is needed; check the path"
    )
    (tmp_path / "folder").mkdir()
    assert said(tmp_path / "folder") == (
        "folder: not a file (got a folder); a text file is needed; name a file inside it"
    )


def test_lists_rule(write: Write) -> None:
    path = write(PLURAL)
    lists = {"train": write("c.jpg\n", "train.txt"), "test": write("\r\na.jpg\r\n", "test.txt")}
    found = read_captions(path, lists=lists)
    assert [(photo.file, photo.split) for photo in found.photos] == [("a.jpg", "test"), ("c.jpg", "train")]
    assert found.notes == [f"{path}: 1 of 3 photos are in no list and left out"]
    assert found.part("train") == [CaptionedPhoto("c.jpg", ["A bird ."], "train")] and found.part("val") == []


def test_mistakes_in_lists(write: Write, tmp_path: Path) -> None:
    path = write(PLURAL)
    assert said(path, lists={"val": write("a.jpg\nd.jpg\n", "val.txt")}) == (
        "val.txt:2: a photo without captions (got d.jpg); photos in captions are allowed; "
        "remove the line or add captions"
    )
    lists = {"train": write("a.jpg\nb.jpg\n", "train.txt"), "test": write("b.jpg\n", "test.txt")}
    assert said(path, lists=lists) == (
        "test.txt:1: a photo listed twice (got b.jpg, also at train.txt:2); once is allowed; remove one of the lines"
    )
    assert said(path, lists={"train": tmp_path / "none.txt"}).startswith("none.txt: no such file")


def numbered(count: int, start: int = 0) -> str:
    return "file,caption\n" + "".join(f"{i}.jpg,A dog\n" for i in range(start, count))


def test_fractions(write: Write) -> None:
    found = read_captions(write(numbered(100)), fractions={"val": 0.1, "test": 0.25}, seed=1)
    assert [len(found.part(split)) for split in ("train", "val", "test")] == [65, 10, 25]
    again = read_captions(write(numbered(100)), fractions={"val": 0.1, "test": 0.25}, seed=1)
    other = read_captions(write(numbered(100)), fractions={"val": 0.1, "test": 0.25}, seed=2)
    assert again == found and other.part("test") != found.part("test")
    more = read_captions(write(numbered(101)), fractions={"val": 0.1, "test": 0.25}, seed=1)
    moved = sum(old.split != new.split for old, new in zip(found.photos, more.photos, strict=False))
    assert moved <= 2


def test_fractions_leave_given_splits_alone(write: Write) -> None:
    content = PLURAL + json_lines({"file": "d.jpg", "caption": "A fish"}, {"file": "e.jpg", "caption": "A cow"})
    found = read_captions(write(content), fractions={"val": 0.5}).photos
    assert found[:3] == PHOTOS
    assert sorted(str(photo.split) for photo in found[3:]) == ["train", "val"]


@pytest.mark.parametrize("fractions", [{"val": 1.0}, {"val": -0.1}, {"val": 0.5, "test": 0.5}, {"train": 0.5}])
def test_wrong_fractions(write: Write, fractions: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"wrong shares .* 'val' and 'test' from 0 up, together below 1"):
        read_captions(write(PLURAL), fractions=fractions)  # type: ignore[arg-type]


def test_few_photos_may_be_absent(write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(98):
        (folder / f"{i}.jpg").touch()
    found = read_captions(write(numbered(100)), photos=folder)
    assert len(found.photos) == 98
    assert found.notes == [f"{tmp_path}/captions: 2 of 100 photos are not in {folder} and left out: 98.jpg, 99.jpg"]
    assert read_captions(write(numbered(98)), photos=folder).notes == []


def test_many_absent_photos_are_a_mistake(write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    assert said(write(numbered(5)), photos=folder) == (
        "captions: 5 of 5 photos are not in photos (got none of 0.jpg, 1.jpg, 2.jpg, ...); at most 2% may be absent; "
        "check the folder or remove their captions"
    )
    assert said(write(numbered(5)), photos=tmp_path / "none") == (
        "none: no such folder of photos (got 'none'); a folder is needed; check the path"
    )


@pytest.mark.data
def test_flickr8k(data_root: Path) -> None:
    folder = data_root / "flickr8k"
    found = read_captions(folder / "captions.jsonl.gz", photos=folder / "images")
    assert found.notes == []
    assert [len(found.part(split)) for split in ("train", "val", "test")] == [6000, 1000, 1000]
    assert all(len(photo.captions) == 5 for photo in found.photos)
    lists = {"train": "train", "val": "dev", "test": "test"}
    listed = read_captions(
        folder / "captions.jsonl.gz",
        lists={split: folder / "splits" / f"Flickr_8k.{name}Images.txt" for split, name in lists.items()},  # type: ignore[misc]
    )
    assert listed == found
