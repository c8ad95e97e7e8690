"""CoNLL columns: which files are such, what is read of them, and what is said of those that are wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from carousel.data.conll import sentences
from carousel.data.tables import open_table
from carousel.data.tagged import TagColumns, TaggedTexts
from carousel.errors import ConfigError, DataError

NER = "-DOCSTART- -X- O\n\nU.N. NNP B-ORG\nofficial NN O\nEkeus NNP B-PER\n\n\nheads VBZ O\nBaghdad NNP B-LOC\n"
UNIVERSAL = (
    "# sent_id = 1\n# text = del perro\n1-2\tdel\t_\t_\t_\t_\t_\t_\t_\t_\n"
    "1\tde\tde\tADP\tE\t_\t3\tcase\t_\t_\n2\tel\tel\tDET\tD\t_\t3\tdet\t_\t_\n"
    "3\tperro\tperro\tNOUN\tN\t_\t0\troot\t_\t_\n3.1\tx\tx\tVERB\tV\t_\t_\t_\t_\t_\n\n"
    "# text = corre\n1\tcorre\tcorrer\tVERB\tV\t_\t0\troot\t_\t_\n"
)


def written(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    return path


def read(path: Path, **columns: str) -> TaggedTexts:
    table = open_table(path)
    found = TagColumns.of(table, **columns)
    assert found is not None
    return TaggedTexts.read(table, found)


@pytest.mark.parametrize("name", ["a.conll", "a.txt", "a", "a.tsv", "a.txt.gz"])
@pytest.mark.parametrize(
    "change", [str, lambda text: text.replace(" ", "\t"), lambda text: "\ufeff" + text.replace("\n", "\r\n")]
)
def test_columns_are_found_whatever_the_name(name: str, change: object, tmp_path: Path) -> None:
    path = written(tmp_path, name, change(NER))  # type: ignore[operator]
    data = read(path)
    assert (data.table.kind, data.table.columns) == ("conll", ("tokens", "column2", "tags"))
    assert [row.place for row in data.table.rows()] == [f"{path}:3", f"{path}:8"]
    assert data.words(0) == ["U.N.", "official", "Ekeus"] and data.right(1) == ["O", "B-LOC"]
    assert data.scheme == "bio" and data.notes == ()
    assert read(path, tags="column2").right(0) == ["NNP", "NN", "NNP"]


def test_universal_dependencies(tmp_path: Path) -> None:
    data = read(written(tmp_path, "es.conllu", UNIVERSAL))
    assert [data.words(row) for row in range(2)] == [["de", "el", "perro"], ["corre"]]
    assert data.right(0) == ["ADP", "DET", "NOUN"] and data.scheme is None
    assert read(tmp_path / "es.conllu", tags="deprel").right(1) == ["root"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("poem.txt", "the rose\nis red\n\nthe sky\nis blue\n\nthe end\nis near\n"),
        ("text.txt", "a line of words\nanother line\n\nthe last\n"),
        ("pairs.tsv", "a text\tgood\n\nb text\tbad\n\nc text\tgood\n"),
        ("words.txt", "one\ntwo\n\nthree\nfour\n"),
    ],
)
def test_other_files_are_none(name: str, content: str, tmp_path: Path) -> None:
    assert open_table(written(tmp_path, name, content)).kind != "conll"


def test_files_by_split(tmp_path: Path) -> None:
    for name in ("eng.train", "eng.testa", "eng.testb"):
        written(tmp_path, name, NER)
    data = read(tmp_path)
    assert sorted(set(map(str, data.splits))) == ["test", "train", "val"] and len(data.rows("val")) == 2


def test_lists_in_json_lines(tmp_path: Path) -> None:
    path = written(
        tmp_path, "a.jsonl", '{"id": 1, "tokens": ["a", "b"], "ner_tags": [0, 1]}\n{"id": 2, "tokens": []}\n'
    )
    data = read(path)
    assert data.columns == TagColumns("tokens", "ner_tags") and data.right(0) == ["0", "1"] and len(data.tokens) == 1


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.conll", "a X\nb\n", "a.conll:2: wrong number of columns (got 1); 2, as in the first line, between blanks"),
        ("a.jsonl", '{"tokens": ["a"], "tags": ["X"]}\n{"tokens": ["a", "b"], "tags": ["X"]}\n',
         "a.jsonl:2: not a tag for each token (got 1 for 2); one; mend it"),
        ("a.jsonl", '{"tokens": ["a"], "tags": ["X"]}\n{"tokens": "a b", "tags": ["X"]}\n',
         "a.jsonl:2: tokens is not a list of words (got a b); one string for each token; mend it"),
        ("a.conll", "a X\nb X\n", "a.conll: 1 tags in 'tags' (got X ...); 2 to 1000; name the column of tags"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(name: str, content: str, line: str, tmp_path: Path) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(DataError) as told:
        TaggedTexts.read(open_table(path), TagColumns("tokens", "tags"))
    assert str(told.value).removeprefix(f"{tmp_path}/").startswith(line)


def test_a_column_that_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tags: no such column in .*a.conll \(got 'tag'\); tokens, .* 'tags'\?"):
        read(written(tmp_path, "a.conll", NER), tags="tag")


def test_tags_that_break_their_scheme_are_told(tmp_path: Path) -> None:
    lines = "".join("x B-A\ny I-A\nz O\nw B-A\n\n" for _ in range(9))
    data = read(written(tmp_path, "a.conll", lines + "x O\ny I-A\n"))
    place = f"{tmp_path / 'a.conll'}:46"
    assert data.notes == (
        f"1 tags break BIO and are read as conlleval does, the first: I-A after O in the sentence at {place}",
    )


def test_a_stream_gives_sentences_as_they_end() -> None:
    lines = iter(["a X", "b Y", "", "c", "d"])
    stream = sentences(lines)
    assert next(stream) == ["a", "b"] and next(lines) == "c"
    assert list(stream) == [["d"]]
