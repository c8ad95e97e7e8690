"""What is inferred of columns, labels and splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from carousel.data.bucketing import Buckets
from carousel.data.labelled import LabelledTexts, Roles
from carousel.data.ragged import Ragged
from carousel.data.splits import complete_splits
from carousel.data.tables import open_table
from carousel.data.tokenizers import Kind, Tokenizer
from carousel.errors import ConfigError, DataError


def table(path: Path, content: str):  # type: ignore[no-untyped-def]
    path.write_text(content, encoding="utf-8")
    return open_table(path)


@pytest.mark.parametrize(
    ("header", "rows", "roles"),
    [
        ("id,review,stars", ["{k},a b c d,{s}"], ("review", "stars", None)),
        ("kind,what was said", ["{w},a b c {k}"], ("what was said", "kind", None)),
        ("title,text,label,split", ["the longest of all titles here,a b,{s},train"], ("text", "label", "split")),
        ("sentence,label,set", ["a b c,{s},{k}"], ("sentence", "label", None)),  # a set that is no split
        ("number,other", ["{k},{s}"], None),
    ],
)
def test_columns_are_inferred(header: str, rows: list[str], roles: tuple[str, ...] | None, tmp_path: Path) -> None:
    lines = [rows[0].format(k=k, s=k % 5, w="xyz"[k % 3]) for k in range(60)]
    found = Roles.of(table(tmp_path / "a.csv", "\n".join([header, *lines])))
    assert (found and (found.text, found.label, found.split)) == roles


def test_named_columns_rule(tmp_path: Path) -> None:
    some = table(tmp_path / "a.csv", "text,label,mood,note\n" + "a b,1,good,c d e\nc d,2,bad,e f g\n" * 9)
    assert Roles.of(some, label="mood", text="note") == Roles("note", "mood")
    with pytest.raises(ConfigError, match=r"label: no such column in .* \(got 'mod'\); text, .*; did you mean 'mood'"):
        Roles.of(some, label="mod")


def test_several_labels_by_list_and_by_separator(tmp_path: Path) -> None:
    some = table(tmp_path / "a.csv", "text,tags\na b,x|y\nc d,y\ne f,\n")
    data = LabelledTexts.read(some, Roles.of(some))  # type: ignore[arg-type]
    assert data.labels == ("x", "y") and [data.targets[k].tolist() for k in range(3)] == [[0, 1], [1], []]
    some = table(tmp_path / "a.jsonl", '{"text": "a b", "labels": ["x"]}\n{"text": "c d", "labels": ["y", "x"]}\n')
    data = LabelledTexts.read(some, Roles.of(some)).with_splits(0)  # type: ignore[arg-type]
    tokenizer = Tokenizer.train("words", data.texts())
    assert data.examples("train", tokenizer).targets.tolist() == [[1, 0], [1, 1]]


def test_labels_are_in_order_and_empty_rows_are_left_out(tmp_path: Path) -> None:
    some = table(tmp_path / "a.csv", "text,label\nb c,10\n,9\nd e,9\nf g,\nh i,2\n")
    data = LabelledTexts.read(some, Roles("text", "label"))
    assert data.labels == ("2", "9", "10") and [int(data.targets[k][0]) for k in range(3)] == [2, 1, 0]
    assert data.notes == (f"2 rows without text or label are left out, the first: {tmp_path / 'a.csv'}:3",)
    assert list(data.texts()) == ["b c", "d e", "h i"] and data.texts_of([2, 4]) == {2: "d e", 4: "h i"}


def test_splits_are_seeded_stratified_and_disjoint() -> None:
    labels = [0] * 900 + [1] * 100
    splits, _ = complete_splits([None] * 1000, labels, seed=1)
    counts = Counter(zip(splits, labels, strict=True))
    assert counts["val", 1] == 10 and counts["test", 1] == 20 and counts["train", 0] == 630
    assert splits == complete_splits([None] * 1000, labels, seed=1)[0] != complete_splits([None] * 1000, labels, 2)[0]


def test_only_what_is_missing_is_drawn_and_only_from_training_rows() -> None:
    given = ["train"] * 100 + ["test"] * 50
    splits, said = complete_splits(given, [0, 1] * 75, seed=0)  # type: ignore[arg-type]
    assert Counter(splits) == {"train": 90, "val": 10, "test": 50} and splits[100:] == ["test"] * 50
    assert said == "splits: a seeded tenth for validation of the training rows, by label"
    assert complete_splits(given, [0] * 150, seed=0)[1] == said.removesuffix(", by label")  # type: ignore[arg-type]


def test_an_unknown_split_is_one_line(tmp_path: Path) -> None:
    some = table(tmp_path / "a.csv", "text,label,split\na b,1,train\nc d,2,tset\n")
    with pytest.raises(DataError, match=r"a\.csv:3: an unknown split \(got 'tset'\); train, .*; rename it"):
        LabelledTexts.read(some, Roles("text", "label", "split"))


def test_batches_are_a_function_of_seed_epoch_and_step() -> None:
    buckets = Buckets(torch.arange(1, 101) % 37, size=8)
    epoch = [buckets.rows(0, 3, step) for step in range(len(buckets))]
    again = Buckets(torch.arange(1, 101) % 37, size=8)
    assert epoch == [again.rows(0, 3, step) for step in range(len(buckets))]
    assert sorted(row for batch in epoch for row in batch) == list(range(100))
    assert epoch != [buckets.rows(0, 4, step) for step in range(len(buckets))]
    assert epoch != [buckets.rows(1, 3, step) for step in range(len(buckets))]
    assert buckets.padding() < buckets.padding(sort=False) / 3


def test_a_batch_is_padded_and_cut() -> None:
    batch = Ragged([[1, 2, 3, 4], [5], []]).batch([2, 0, 1], longest=3)
    assert batch.ids.tolist() == [[0, 1, 5], [0, 2, 0], [0, 3, 0]] and batch.lengths.tolist() == [1, 3, 1]


TEXTS = ["The dog's \u00fcber-fine, it's 3.5 stars!", "the cat <unk> sat.", "\u4f60\u597d \U0001f600"]


@pytest.mark.parametrize("kind", ["words", "spaces", "characters", "bytes", "bpe"])
def test_a_tokenizer_is_the_same_after_its_facts(kind: Kind) -> None:
    if kind == "bpe":
        pytest.importorskip("tokenizers")
    tokenizer = Tokenizer.train(kind, TEXTS, most=400)
    again = Tokenizer.from_facts(tokenizer.facts())
    for text in [*TEXTS, "unseen: \u00df", ""]:
        assert tokenizer.encode(text) == again.encode(text)
        if kind in ("bytes", "bpe") and "<unk>" not in text:
            assert tokenizer.decode(tokenizer.encode(text)) == text  # nothing is unknown
    if kind == "characters":
        assert tokenizer.decode(tokenizer.encode(TEXTS[0])) == TEXTS[0]


def test_bpe_without_its_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"bpe: wants another package \(got no tokenizers\).*carousel-rnn\[subwords\]"):
        Tokenizer.train("bpe", TEXTS)
