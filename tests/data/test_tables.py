"""Files and folders as rows: every form, and every way in which one can be wrong."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from carousel.data import tables
from carousel.data.tables import Table, open_table
from carousel.errors import DataError

ROWS = [{"text": "Caf\u00e9, yes", "label": "a"}, {"text": 'He said "no"\nand left', "label": "b"}]
COMMA = 'text,label\n"Caf\u00e9, yes",a\n"He said ""no""\nand left",b\n'


def rows(table: Table) -> list[dict[str, str]]:
    return [{name: row.text(name) for name in table.columns} for row in table.rows()]


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", COMMA),
        ("a.csv", COMMA.replace("\n", "\r\n")),
        ("a.csv", "\ufeff" + COMMA),
        ("a.csv", COMMA.replace("\u00e9", "e\u0301")),  # the same letter in Unicode's normal form D
        ("a.csv", COMMA.replace(",", ";").replace("Caf\u00e9;", "Caf\u00e9,")),
        ("a.psv", COMMA.replace(",", "|").replace("Caf\u00e9|", "Caf\u00e9,")),
        ("a.tsv", COMMA.replace(",", "\t").replace("Caf\u00e9\t", "Caf\u00e9,")),
        ("a.csv", "\n" + COMMA.replace('",a', '",a\n\n')),
        ("a.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("a.data", "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)),
        ("a.csv.gz", gzip.compress(COMMA.encode())),
        ("anything.csv", gzip.compress(COMMA.encode("utf-8-sig"))),
    ],
)
def test_one_content_in_many_forms(name: str, content: str | bytes, tmp_path: Path) -> None:
    table = open_table(written(tmp_path / name, content))
    assert table.columns == ("text", "label")
    assert rows(table) == ROWS == rows(table)  # and once more


def test_quotes_are_letters_in_a_table_with_tabs(tmp_path: Path) -> None:
    file = written(tmp_path / "a.tsv", 'sentence\tlabel\n"unpaired\t1\nsays "well"\t0\n')
    assert rows(open_table(file)) == [
        {"sentence": '"unpaired', "label": "1"},
        {"sentence": 'says "well"', "label": "0"},
    ]


@pytest.mark.parametrize(
    "content", ["5,a fine film\n1,no good\n", "good,a fine film\nbad,no good\ngood,well\n", "x,\nx,fine\n"]
)
def test_a_table_without_a_header_loses_no_row(content: str, tmp_path: Path) -> None:
    table = open_table(written(tmp_path / "a.csv", content))
    assert table.columns == ("column1", "column2") and len(rows(table)) == content.count("\n")
    assert table.notes == (f"{tmp_path / 'a.csv'}: no header: columns are column1, column2",)


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert rows(open_table(tmp_path / "a.parquet")) == ROWS
    content = (tmp_path / "a.parquet").read_bytes()
    written(tmp_path / "b.parquet", content[:40])
    with pytest.raises(DataError, match=r"b\.parquet: damaged Parquet \(got .*\); a whole file; copy it again"):
        open_table(tmp_path / "b.parquet")


def test_parquet_without_its_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"Parquet wants another package \(got no pyarrow\).*carousel-rnn\[parquet\]"):
        open_table(written(tmp_path / "a.parquet", b"PAR1...."))


def test_plain_text_is_its_lines(tmp_path: Path) -> None:
    table = open_table(written(tmp_path / "a.txt", "one\r\n\r\n  two \n"))
    assert [(row.place, row.text("text")) for row in table.rows()] == [
        (f"{tmp_path / 'a.txt'}:1", "one"),
        (f"{tmp_path / 'a.txt'}:3", "  two "),
    ]


def test_folders_by_class_with_and_without_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("pos", "neg"):
            written(tmp_path / "a" / split / label / "1.txt", f"{split} {label}")
            written(tmp_path / "b" / label / f"{split}.txt", f"{split} {label}")
    found = [(row.split, row.text("text"), row.text("label")) for row in open_table(tmp_path / "a").rows()]
    assert found == [(s, f"{s} {label}", label) for s in ("test", "train") for label in ("neg", "pos")]
    assert {row.split for row in open_table(tmp_path / "b").rows()} == {None}


def test_files_by_split(tmp_path: Path) -> None:
    for name, text in (("x.train.csv", "a"), ("x.valid.csv.gz", "b"), ("x.test.csv", "c"), ("README.md", "no")):
        content = f"text,label\n{text},1\n{text}{text},2\n".encode()
        written(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)
    found = [(row.split, row.text("text")) for row in open_table(tmp_path).rows()]
    assert sorted(found) == [(s, t) for s, t in (("test", "c"), ("test", "cc"), ("train", "a"))] + [
        ("train", "aa"),
        ("val", "b"),
        ("val", "bb"),
    ]


def test_other_files_for_a_split(tmp_path: Path) -> None:
    files = [written(tmp_path / name, f"text,label\n{name},1\nx,2\n") for name in ("a.csv", "b.csv", "c.csv")]
    table = open_table(files[0], val=files[1], test=files[2])
    assert [(row.split, row.text("text")) for row in table.rows()][::2] == [
        ("train", "a.csv"),
        ("val", "b.csv"),
        ("test", "c.csv"),
    ]
    other = written(tmp_path / "d.csv", "words,label\nx,1\n")
    with pytest.raises(DataError, match=r"d\.csv: other columns \(got a table with words, label\); a table with text"):
        open_table(files[0], val=other)


def test_parallel_text(tmp_path: Path) -> None:
    for split in ("train", "val", "test_2016"):
        for language in ("de", "en"):
            written(tmp_path / f"{split}.{language}", f"{split} {language} 1\n\n{split} {language} 3\n")
    table = open_table(tmp_path)
    assert (table.kind, table.columns) == ("parallel", ("de", "en"))
    assert [row.values for row in table.rows() if row.split == "test"] == [
        {"de": "test_2016 de 1", "en": "test_2016 en 1"},
        {"de": "test_2016 de 3", "en": "test_2016 en 3"},
    ]
    written(tmp_path / "train.en", "one\n")
    with pytest.raises(DataError, match=r"train\.en: fewer lines than its other side \(got 1\); as many lines in"):
        list(table.rows())


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "a.csv", "text,label\n" + "a fine film,1\nbad,0\n" * 5000)
    table, read, plain = open_table(tmp_path / "a.csv"), list[int](), tables.delimited_rows

    def counted(*arguments: object) -> object:
        for row in plain(*arguments):  # type: ignore[arg-type]
            read.append(row[0])
            yield row

    monkeypatch.setattr(tables, "delimited_rows", counted)
    stream = table.rows()
    next(stream)
    assert read == [2]
    stream.close()


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        (
            "a.csv",
            "text,label\na,1\nb\n",
            "a.csv:3: wrong number of cells (got 1); 2, as in the first line; put quotes",
        ),
        ("a.csv", 'text,label\na,1\n"b,1\nc,2\n', "a.csv:3: not a table row (got unexpected end of"),
        ("a.csv", b"text,label\na,1\n\xe9,2\n", "a.csv:3: not UTF-8 (got byte 0xe9); text files must be UTF-8; save"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "a.jsonl:2: not JSON (got '{\"text\": '"),
        ("a.jsonl", '{"text": "a"}\n[1]\n', "a.jsonl:2: not an object (got '[1]'); one object a line; mend the line"),
        ("a.csv", "", "a.csv: the file is empty (got 0 bytes); some text is needed; check the path"),
        ("a.csv", "text,label\n", "a.csv: no rows (got a table without any); at least one; check the file"),
        ("a.csv", gzip.compress(COMMA.encode())[:-9], "a.csv: damaged gzip (got "),
    ],
)
def test_what_is_wrong_is_one_line(name: str, content: str | bytes, line: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        list(open_table(written(tmp_path / name, content)).rows())
    assert f"{tmp_path}/{line}" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda path: path / "no", "no: no such file"),
        (lambda path: path, "an empty folder (got no files); files or folders of them; check the path"),
        (lambda path: written(path / "c/pos/1.txt", "x").parents[1], "no folders by class (got 1 with files); two or"),
    ],
)
def test_what_is_wrong_with_a_path_is_one_line(make: Callable[[Path], Path], line: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        open_table(make(tmp_path))
    assert line in str(error.value)
