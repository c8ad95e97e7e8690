"""Tagging, as a user meets it: CoNLL or JSON in, a tagger, its score against the baseline, predictions, a page."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import carousel
from carousel.cli import main
from carousel.data.ragged import Ragged
from carousel.data.schemes import may_follow
from carousel.data.vocabulary import Vocabulary
from carousel.metrics.spans import span_f1
from carousel.tasks.tagging_network import Forms, Lexicon, TagConfig, TaggingNetwork, decode

from .tagged_corpus import conll, corpus

SMALL = ("hidden_size=16", "embedding_size=12", "spelling=12", "epochs=8", "learning_rate=0.02", "dropout=0.1")


def settings(*more: str) -> list[str]:
    return [word for setting in (*SMALL, *more) for word in ("--set", setting)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with news.conll and a finished run; and what was told."""
    folder = tmp_path_factory.mktemp("tag")
    (folder / "news.conll").write_text(conll(corpus(250)))
    with pytest.MonkeyPatch.context() as patch:
        told = io.StringIO()
        patch.setattr("sys.stderr", told)
        assert main(["train", str(folder / "news.conll"), "--run", str(folder / "run"), *settings()]) == 0
    (folder / "told.txt").write_text(told.getvalue())
    return folder


def test_the_plan_and_the_verdict_are_told(trained: Path) -> None:
    told = (trained / "told.txt").read_text()
    for part in (
        "column 'tokens' has words, 'tags' a tag for each: task tag (another: --task ",
        "splits: a seeded tenth for validation and fifth for the test\n",
        "columns: 'tokens' has the words, 'tags' 7 tags: spans in BIO, learned as BIOES (others: --set words=COLUMN",
        "sentences: 175 to train on, 25 to validate on, 50 for the test",
        "; span F1 counts",
        "tokens are no word of it, and known by their letters",
        "network: lstm with a CRF, ",
        "the commonest tag of each word: span F1 in % ",
        "50 sentences of the test split: span F1 in % ",
        "better than the commonest tag of each word (+",
    ):
        assert part in told, part


def test_names_that_are_new_are_known_by_their_letters(trained: Path) -> None:
    model = carousel.load(trained / "run")
    data = [([word for word, _, _ in s], [tag for _, _, tag in s]) for s in corpus(60, seed=9)]
    said = model.predict([tokens for tokens, _ in data])
    assert span_f1([tags for _, tags in data], [one.tags for one in said]).value > 90
    assert model.predict("Stozuson works for Kirisoft .").spans == [(0, 1, "PER"), (3, 4, "ORG")]


def test_the_page_shows_what_it_should(trained: Path) -> None:
    page = (trained / "run/report.html").read_text(encoding="utf-8")
    for heading in ("What it finds", "Words it does not know", "What is taken for what", "The worst mistakes"):
        assert heading in page
    assert "commonest tag of each word" in page and "<th>precision</th>" in page.replace(' scope="col"', "")


def test_lines_in_lines_out(trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Tapa Mernorson met Baluova in Paluburg.\n\n"))
    assert main(["predict", str(trained / "run"), "-"]) == 0
    assert capsys.readouterr().out == "[PER Tapa Mernorson] met [PER Baluova] in [LOC Paluburg] .\n\n"


def test_columns_in_columns_out(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "Baluova X\nworks X\nfor X\nKirisoft X\n. X\n\nno\none\nknows\nwhy\n.\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["predict", str(trained / "run"), "-", "--conll"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Baluova\tB-PER\nworks\tO\nfor\tO\nKirisoft\tB-ORG\n.\tO\n\nno\tO\n") and out.endswith(
        ".\tO\n\n"
    )
    (trained / "new.conll").write_text("Baluova X\nworks X\nfor X\nKirisoft X\n. X\n")
    assert main(["predict", str(trained / "run"), str(trained / "new.conll"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["spans"][1] == {"start": 3, "stop": 4, "kind": "ORG", "text": "Kirisoft"}
    assert len(found["tags"]) == len(found["probabilities"]) == 5


def test_evaluate_scores_what_was_not_trained_on(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained / "news.conll"), "--model", str(trained / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["span F1 in %"]["value"] > 90
    other = trained / "other.jsonl"
    rows = [
        {"tokens": [w for w, _, _ in s], "tags": [t.replace("ORG", "FIRM") for _, _, t in s]} for s in corpus(40, 5)
    ]
    other.write_text("\n".join(map(json.dumps, rows)))
    assert main(["evaluate", str(other), "--model", str(trained / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["span F1 in %"]["value"] < 80  # kinds that it does not know are misses


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_what_is_said_keeps_to_the_scheme(scheme: str) -> None:
    tags = carousel.tasks.tag.inventory(["A", "C"], scheme)  # type: ignore[attr-defined]
    network = TaggingNetwork(TagConfig(scheme=scheme), 9, 9, tags)  # type: ignore[arg-type]
    lengths = torch.tensor([7, 1, 4])
    torch.manual_seed(0)
    broken = 0
    for _ in range(20):
        e = 3 * torch.randn(7, 3, len(tags))
        for rules in (network.rules, None):
            path = network.crf.decode(e, lengths, rules)
            said = [[tags[k] for k in path[:T, b].tolist()] for b, T in enumerate(lengths.tolist())]
            kept = all(may_follow(*pair, scheme) for one in said for pair in pairwise([None, *one, None]))  # type: ignore[arg-type]
            assert kept or rules is None
            broken += not kept
    assert broken > 0  # without the rules it does not


def test_a_tagger_that_knows_nothing_keeps_to_the_scheme() -> None:
    tags = ["O", "B-A", "I-A", "E-A", "S-A"]
    network = TaggingNetwork(TagConfig(hidden_size=5), 9, 9, tags)
    torch.nn.init.constant_(network.readout.bias[2], 9.0)  # I-A everywhere
    forms = Forms(torch.tensor([0, 4, 5]), Ragged([[], [4], [5]]))
    for found in decode(network, Ragged([[1, 2, 1], [2], [1, 1]]), forms).tags:
        said = [None, *(tags[k] for k in found), None]
        assert all(may_follow(*pair, "bioes") for pair in pairwise(said)), said


def test_neighbours_and_padding_change_nothing() -> None:
    network = TaggingNetwork(TagConfig(hidden_size=5, embedding_size=4, spelling=3), 20, 9, ["X", "Y"]).eval()
    forms = Forms(torch.tensor([0, *range(4, 14)]), Ragged([[], *([4 + k % 5] * (1 + k % 4) for k in range(10))]))
    short, long = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6, 7, 8, 9])
    both = torch.full((9, 2), 10)
    both[:3, 0], both[:6, 1] = short, long
    together = network(both, torch.tensor([3, 6]), forms)
    assert torch.allclose(together[:3, :1], network(short[:, None], torch.tensor([3]), forms), atol=1e-6)
    assert torch.allclose(together[:6, 1:], network(long[:, None], torch.tensor([6]), forms), atol=1e-6)
    assert not torch.allclose(together[0, 0], together[0, 1], atol=1e-3)


def test_parts_of_speech_in_a_plain_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pos.txt").write_text(conll([(w, p) for w, p, _ in s] for s in corpus(150)))  # type: ignore[arg-type]
    run = tmp_path / "run"
    assert main(["train", str(tmp_path / "pos.txt"), "--run", str(run), *settings("epochs=6", "crf=false")]) == 0
    err = capsys.readouterr().err
    assert "8 tags: a tag each" in err and "token accuracy counts" in err and "span F1" not in err
    assert str(carousel.predict(run, "no one knows why .")) == "no/DET one/NOUN knows/VERB why/ADV ./PUNCT"
    assert not carousel.load(run).network.crf.then.any()


def test_a_run_goes_on_from_another_model(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(trained / "run/model.safetensors")
    data = ["train", str(trained / "news.conll"), "--from", model]
    assert main([*data, "--run", str(trained / "more"), *settings("epochs=1", "learning_rate=0.0001")]) == 0
    assert carousel.load(trained / "more").facts["validation"]["score"] > 90
    assert main([*data, "--run", str(trained / "no"), *settings("hidden_size=17")]) == 2
    assert "start_from: a model of another shape (got" in capsys.readouterr().err
    (trained / "loc.conll").write_text("a B-LOC\nb O\n\n" * 9 + "c B-GPE\n\n" * 9)
    assert main(["train", str(trained / "loc.conll"), "--from", model, "--run", str(trained / "no"), *settings()]) == 2
    assert "start_from: a model that does not know a tag (got 'S-GPE'); O, B-LOC" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "arguments", "line"),
    [
        (
            "a.csv",
            "text,label\na b,x\n",
            ("--task", "tag"),
            "a.csv: no words with a tag for each (got text, label); CoNLL",
        ),
        (
            "a.conll",
            "a X\nb\n",
            (),
            "a.conll:2: wrong number of columns (got 1); 2, as in the first line, between blanks",
        ),
        ("a.conll", "a X\nb Y\n", (), "a.conll: nothing in 'val' (got 1 sentences of other splits); one that has some"),
        (
            "a.conll",
            "a X\nb Y\n",
            ("--set", "spelling=-1"),
            "spelling: not allowed (got -1); greater than or equal to 0",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    name: str, content: str, arguments: tuple[str, ...], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(content)
    assert main(["train", str(tmp_path / name), "--run", str(tmp_path / "run"), *arguments]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert line in told and "; " in told
    assert not (tmp_path / "run").exists()


def test_a_model_file_that_does_not_fit_together(trained: Path) -> None:
    from carousel.errors import ModelFileError
    from carousel.training import read_model_file, write_model_file

    tensors, facts = read_model_file(trained / "run/model.safetensors", "tag")
    write_model_file(trained / "bad.safetensors", tensors, {"task": "tag", **facts, "tags": ["O"]})
    with pytest.raises(ModelFileError, match=r"bad\.safetensors: its parts do not fit together"):
        carousel.load(trained / "bad.safetensors")


def test_a_lexicon_reads_case_and_letters() -> None:
    lexicon = Lexicon(Vocabulary.build([["us"]], 1), Vocabulary.build([["u", "U", "s"]], 1), lowercase=True)
    forms = lexicon.read(["US", "us", "it"])
    assert forms.words.tolist() == [4, 4, 3] and forms.letters[0].tolist() != forms.letters[1].tolist()
