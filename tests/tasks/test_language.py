"""Language models, as a user meets them: text in, a model, its score against n-grams, more text, a page."""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import random
import re
import signal
from pathlib import Path

import pytest
import torch

import carousel
from carousel.cli import main
from carousel.data.corpus import before_all
from carousel.data.tables import open_table
from carousel.errors import Interrupted
from carousel.tasks.language_network import LanguageConfig, LanguageNetwork, read
from carousel.tasks.task import Source, task_for
from carousel.training import read_model_file
from carousel.training.progress import LiveProgress

SMALL = ("hidden_size=24", "layers=1", "embedding_size=16", "epochs=12", "tied=false", "learning_rate=0.03",
         "bptt=20", "batch_size=4", "dropout=0", "val_share=0.1", "test_share=0.1")  # fmt: skip
ANIMALS = ("cat", "dog", "hen", "pig")


def tale(lines: int, seed: int = 0) -> str:
    """Each line names one animal twice, which no pair of words can know."""
    draw = random.Random(seed)
    rows = []
    for _ in range(lines):
        animal = draw.choice(ANIMALS)
        rows.append(f"the {animal} or {animal} .")
    return "\n".join(rows) + "\n"


def settings(*more: str) -> list[str]:
    return [word for setting in (*SMALL, *more) for word in ("--set", setting)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tale.txt and a finished run."""
    folder = tmp_path_factory.mktemp("language")
    (folder / "tale.txt").write_text(tale(800), encoding="utf-8-sig")
    words = ["train", str(folder / "tale.txt"), "--run", str(folder / "run"), *settings("ngram=2")]
    assert main(words) == 0
    return folder


def test_the_page_shows_what_it_should(trained: Path) -> None:
    page = (trained / "run/report.html").read_text(encoding="utf-8")
    for part in ("What it writes", "What surprised it", "Where the surprise is", "interpolated Kneser-Ney", "<svg"):
        assert part in page, part


def test_the_plan_and_the_verdict_are_told(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained / "told"
    assert main(["train", str(trained / "tale.txt"), "--run", str(run), *settings("epochs=1", "ngram=2")]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(run / "model.safetensors"), str(run / "report.html")]
    for part in (
        "running text: task language (another: --task ",
        "3,840 words to train on, 480 for validation, 480 for the test",
        "vocabulary: 12 spaces; 0.0% of the validation's are unknown",
        "4 streams, 20 tokens a step, the state carried over",
        "480 words of the test split: perplexity ",
        "bits per character",
        "2-grams, interpolated Kneser-Ney: perplexity ",
    ):
        assert part in err, part


def test_it_learns_what_no_pair_knows(trained: Path) -> None:
    model = carousel.load(trained / "run")
    found = model.predict("the hen or hen .")
    assert found.tokens == ["the", "hen", "or", "hen", ".", "\n"]
    assert found.surprise[1] == pytest.approx(math.log(4), abs=0.3)  # one of four
    assert found.surprise[3] < 0.2  # that one again
    wrong = model.predict("the hen or pig .")
    assert wrong.surprise[3] > 2 and wrong.perplexity > found.perplexity
    assert str(found) == f"{found.perplexity:.2f}\tthe hen or hen ."


def test_evaluate_is_exact(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One stream, one token at a time, is what the score says; how it is cut into chunks changes nothing."""
    model = carousel.load(trained / "run")
    words = "".join((trained / "tale.txt").read_text(encoding="utf-8-sig").splitlines(True)[-80:])
    ids = torch.tensor(model.tokenizer.encode(words.replace("\n", " \n ").replace("\n", "<unk>")))
    ids[ids == 3] = before_all(model.tokenizer)
    state, last, total = None, before_all(model.tokenizer), 0.0
    with torch.no_grad():
        for token in ids.tolist():
            outputs, state = model.network(torch.tensor([[last]]), state)
            total -= float(model.network.logits(outputs)[0, 0].log_softmax(0)[token])
            last = token
    assert main(["evaluate", str(trained / "tale.txt"), "--model", str(trained / "run"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["perplexity"]["value"] == pytest.approx(math.exp(total / len(ids)), rel=1e-4)
    assert said["bits per character"]["value"] == pytest.approx(total / math.log(2) / len(words), rel=1e-4)
    for chunk in (1, 7, 1000):
        assert float(read(model.network, ids, last, chunk)[0].sum()) == pytest.approx(total, rel=1e-4)


def test_another_text_is_read_whole(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (trained / "other.txt").write_text(tale(30, seed=5))
    assert main(["evaluate", str(trained / "other.txt"), "--model", str(trained / "run")]) == 0
    assert capsys.readouterr().out.startswith("180 words of the test split\nperplexity ")


def test_predict_reads_lines(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("the pig or pig .\n\n"))
    assert main(["predict", str(trained / "run"), "-", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [token["token"] for token in found[0]["tokens"]][:2] == ["the", "pig"] and len(found) == 2
    assert found[0]["nats"] == pytest.approx(sum(token["surprise"] for token in found[0]["tokens"]), abs=1e-3)
    (trained / "wrong.txt").write_text("the pig or hen .")
    assert main(["predict", str(trained / "run"), str(trained / "wrong.txt"), "--explain"]) == 0
    assert re.fullmatch(r"\d+\.\d\d\tthe pig or hen\[[2-9]\.\d\] \.\n", capsys.readouterr().out)
    [found] = carousel.load(trained / "run").explain(["the pig or hen ."])
    assert "the pig or \x1b[30;48;5;" in found.coloured()


def test_generate_writes_what_it_learned(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", str(trained / "run"), "--prompt", "the hen or", "--temperature", "0", "--length", "4"]
    assert main(words) == 0
    assert capsys.readouterr().out == "the hen or hen .\nthe\n"
    text = carousel.generate(trained / "run", "the pig", length=200, temperature=0.3, seed=4)
    lines = text.splitlines()[:-1]
    assert len(lines) > 20 and sum(line in tale(800) for line in lines) > 0.8 * len(lines)
    model = carousel.load(trained / "run")
    assert "".join(model.stream("the pig", length=200, temperature=0.3, seed=4)) == text.removeprefix("the pig")
    drawn = {model.generate(length=30, seed=seed) for seed in range(5)}
    assert len(drawn) > 1
    assert len({model.generate(length=30, seed=seed, top_k=1) for seed in range(5)}) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompt", "the cow"], "prompt: not in the vocabulary (got 'cow'); the 12 words of the training text"),
        (["--temperature", "-1"], "temperature: out of range (got -1.0); 0 or more"),
        (["--top-p", "0"], "top_p: out of range (got 0.0); above 0, up to 1"),
        (["--top-k", "-2"], "top_k: out of range (got -2); 0 or more"),
    ],
)
def test_what_generate_refuses(trained: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(["generate", str(trained / "run"), *words]) == 2
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize(
    "more",
    [
        ["tokens=characters", "locked=true", "dropout=0.1", "weight_dropout=0.2", "word_dropout=0.05"],
        ["tokens=bytes", "cell=gru", "tied=false"],
        ["tokens=words", "softmax=adaptive", "cache=50"],
        ["tokens=bpe", "max_vocabulary=280", "average_after=1", "optimiser=sgd"],
    ],
)
def test_every_kind_of_token_and_option(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    if "tokens=bpe" in more:
        pytest.importorskip("tokenizers")
    with gzip.open(tmp_path / "tale.txt.gz", "wt", encoding="utf-8") as file:
        file.write(tale(150).replace("pig", "oïe"))
    run = tmp_path / "run"
    assert main(["train", str(tmp_path / "tale.txt.gz"), "--run", str(run), *settings("epochs=1", *more)]) == 0
    assert ("with a cache of 50" in capsys.readouterr().err) == ("cache=50" in more)
    model = carousel.load(run)
    assert model.generate("the oïe", length=20).startswith("the oïe")
    assert model.predict("the oïe").perplexity > 1


def test_python_equals_the_command_line_and_a_stopped_run_goes_on(trained: Path, tmp_path: Path) -> None:
    values = {name: json.loads(value) for name, value in (word.split("=") for word in SMALL)}
    values |= {"ngram": 2, "locked": True, "dropout": 0.1}
    carousel.train(trained / "tale.txt", run=tmp_path / "whole", **values)
    whole = read_model_file(tmp_path / "whole/last.ckpt.safetensors", "checkpoint")[0]

    class Stops(LiveProgress):
        def stepped(self, progress: object) -> None:
            if (progress.epoch, progress.step) == (2, 3):  # type: ignore[attr-defined]
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        carousel.train(trained / "tale.txt", run=tmp_path / "cut", progress=Stops(), **values)
    carousel.train(trained / "tale.txt", run=tmp_path / "cut", resume=True, **values)
    cut = read_model_file(tmp_path / "cut/last.ckpt.safetensors", "checkpoint")[0]
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)


def test_files_by_split_are_told_from_labels(tmp_path: Path) -> None:
    for name in ("train.txt", "valid.txt", "test.txt"):
        (tmp_path / name).write_text(tale(20))
    task, why = task_for(Source(tmp_path))
    assert task.name == "language" and "running text" in why


def test_what_is_no_text_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "some.csv").write_text("a,b\n1,2\n3,4\n")
    assert main(["train", str(tmp_path / "some.csv"), "--task", "language", "--run", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path}/some.csv: no running text (got a table); plain text, or a ")
    (tmp_path / "short.txt").write_text("one line\n")
    assert main(["train", str(tmp_path / "short.txt"), "--run", str(tmp_path / "run")]) == 2
    assert "nothing in 'val' (got 0 tokens); some text; add a file for it" in capsys.readouterr().err


def test_locked_masks_are_new_for_each_piece() -> None:
    """A stream does not end: without a new draw an epoch would be trained with one mask."""
    torch.manual_seed(0)
    network = LanguageNetwork(LanguageConfig(hidden_size=6, layers=2, locked=True, dropout=0.5), 9)
    _, first = network(torch.ones(3, 2, dtype=torch.long))
    _, second = network(torch.ones(3, 2, dtype=torch.long), first)
    assert not torch.equal(first[1].input_mask, second[1].input_mask)


def test_the_ptb_protocol(data_root: Path) -> None:
    """The counts that the sources report: 10,000 words with the end of a line; 82,430 tokens in the test."""
    from carousel.data.corpus import Corpus, tokenizer_for
    from carousel.tasks.kneser_ney import KneserNey

    corpus = Corpus.of(open_table(data_root / "ptb"), 0, 0)
    assert corpus.kind() == "spaces"
    tokenizer = tokenizer_for("spaces", corpus.lines("train"), lowercase=False, min_count=1, most=30_000)
    sizes = {split: len(corpus.stream(split, tokenizer).ids) for split in corpus.splits}
    assert (len(tokenizer) - 3, sizes) == (10_000, {"train": 929_589, "val": 73_760, "test": 82_430})
    surprise = KneserNey(corpus.stream("train", tokenizer).ids, len(tokenizer), 3).surprise(
        corpus.stream("test", tokenizer).ids
    )
    assert 140 < math.exp(surprise.mean()) < 155
