"""`carousel inspect` of each task that reads sequences: what is handed over, and that the page holds the tokens."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from carousel.cli import main
from carousel.diagnostics import Diagnosis, diagnose
from carousel.diagnostics.inspection import inspect
from carousel.nn.encoder_decoder import Design, EncoderDecoder
from carousel.tasks.inspection import of_pairs
from carousel.tasks.language import LanguageModel
from carousel.tasks.language import load as load_language
from carousel.tasks.task import Source, task_named
from carousel.training.progress import LiveProgress

NOTES: list[list[int]] = [[60, 64, 67], [62, 65], [], [61]]
PAIRS = [("ein hund rennt", "a dog runs"), ("hallo", "hello there"), ("der hund schläft nun", "the dog is asleep now")]
TURNS = "1 hi\thello where to\n2 rome\tand when\n3 at noon\tgo rome noon\n\n1 hello\thello where to\n2 oslo\tand when\n"
DATA = {
    "tag": ("t.conll", "Ada N\nLovelace N\nwrote V\nit N\n\nYes X\n\nBob N\nruns V\n. X\n\n" * 10),
    "language": ("t.txt", "the cat or cat .\nthe dog or dog .\n" * 40),
    "music": ("t.jsonl", "".join(json.dumps({"keys": NOTES[k % 3:] + NOTES}) + "\n" for k in range(30))),
    "translate": ("t.jsonl", "".join(json.dumps({"de": de, "en": en}) + "\n" for de, en in PAIRS * 10)),
    "dialog": ("t.txt", (TURNS + "\n") * 10),
}  # fmt: skip
SMALL: dict[str, Any] = {"hidden_size": 6}
SETTINGS: dict[str, dict[str, Any]] = {
    "tag": {"embedding_size": 5, "spelling": 4},
    "language": {"embedding_size": 5, "bptt": 11, "tokens": "spaces"},
    "music": {},
    "translate": {"embedding_size": 5, "tokens": "words"},
    "dialog": {"embedding_size": 5, "min_count": 1},
}


def untrained(task: str, folder: Path, **settings: Any) -> tuple[Path, Path]:
    """A model file of that task with random weights, and its data."""
    name, content = DATA[task]
    (folder / name).write_text(content, encoding="utf-8")
    made = task_named(task)
    config = made.config(**SMALL | SETTINGS[task] | settings)
    file = folder / "model.safetensors"
    made.learner(Source(folder / name), config, file, LiveProgress()).save({})
    return file, folder / name


def looked_at(task: str, folder: Path, sequences: int, **settings: Any) -> tuple[Any, Diagnosis]:
    file, data = untrained(task, folder, **settings)
    look = task_named(task).inspection
    assert look is not None
    shown = look(file, data, images=folder, sequences=sequences)
    return shown, diagnose(shown.model, shown.batch, shown.loss)


def tokens_fit(tokens: dict[str, Any], found: Diagnosis) -> None:
    for layer in found.layers:
        assert [len(line) for line in tokens[layer.network]] == layer.lengths.tolist()


def test_a_tagger_reads_words_and_letters(tmp_path: Path) -> None:
    shown, found = looked_at("tag", tmp_path, 3)
    assert shown.tokens["recurrent"] == [["Ada", "Lovelace", "wrote", "it"], ["Yes"], ["Bob", "runs", "."]]
    assert list("Lovelace") in shown.tokens["spelling"]
    tokens_fit(shown.tokens, found)
    words = found.networks()["recurrent"].flow.flows
    assert [flow.last.tolist() for flow in words if flow.field == "h"] == [[1, 0, 1], [2, 0, 1]]  # forward, backward
    plain, found = looked_at("tag", tmp_path, 3, spelling=0)
    tokens_fit({"": plain.tokens}, found)


def test_a_language_model_reads_one_stream(tmp_path: Path) -> None:
    shown, found = looked_at("language", tmp_path, 4)
    assert shown.tokens[0][:5] == ["↵\n", "the", "cat", "or", "cat"] and shown.running == " "
    tokens_fit({"": shown.tokens}, found)
    model: LanguageModel = load_language(tmp_path / "model.safetensors")
    ids = shown.batch[0].t().flatten()  # as one stream from the start, without passages
    network = model.network
    with torch.no_grad():
        h = network.recurrent(network.embedding(ids[:, None]))[0][:, 0]
        logits = network.logits(network(ids[:, None])[0][10::11, 0])
    assert torch.allclose(torch.cat(list(found.layers[-1].states["h"].transpose(0, 1))), h, atol=1e-6)
    stream = ["\n", *["the", "cat", "or", "cat", ".", "\n", "the", "dog", "or", "dog", ".", "\n"] * 4]
    after = model.tokenizer.vocabulary.encode(stream[11:45:11])
    assert found.flow.loss == pytest.approx(float(-logits.log_softmax(1)[range(4), after].sum()), rel=1e-5)


def test_a_short_text_is_one_passage(tmp_path: Path) -> None:
    file, data = untrained("language", tmp_path, bptt=50, tokens="characters")
    data.write_text("a cat\n")
    look = task_named("language").inspection
    assert look is not None
    assert look(file, data, images=tmp_path, sequences=64).tokens == [["↵\n", *"a cat"]]


def test_music_is_read_frame_by_frame(tmp_path: Path) -> None:
    shown, found = looked_at("music", tmp_path, 2)
    assert shown.tokens[0] == ["(start)", "C4 E4 G4", "D4 F4", "-", "C#4", "C4 E4 G4", "D4 F4", "-"]
    tokens_fit({"": shown.tokens}, found)
    assert found.flow.flows[0].last.tolist() == [7, 6]


@pytest.mark.parametrize("feed", ["nothing", "context"])
def test_a_translator_shows_both_halves(tmp_path: Path, feed: str) -> None:
    pytest.importorskip("sacrebleu")
    shown, found = looked_at("translate", tmp_path, 3, feed=feed, attention="additive")
    assert shown.tokens["encoder"][0] == ["ein", "hund", "rennt", "<stop>"]
    assert shown.tokens["decoder"][2] == ["(start)", "the", "dog", "is", "asleep"]
    tokens_fit(shown.tokens, found)
    assert list(found.networks()) == (["encoder", "decoder"] if feed == "nothing" else ["encoder"])
    assert ("goes step by step, with its attention, and is not shown" in shown.about) == (feed != "nothing")


def test_a_partner_is_shown_at_its_last_answer(tmp_path: Path) -> None:
    shown, found = looked_at("dialog", tmp_path, 2)
    assert " ".join(shown.tokens["encoder"][0]).startswith("<user> hi <system> hello where to <user> rome <system>")
    assert shown.tokens["encoder"][0][-3:] == ["<user>", "at", "noon"]
    assert shown.tokens["decoder"] == [["(start)", "go", "rome"], ["(start)", "and"]]
    tokens_fit(shown.tokens, found)


def test_the_loss_of_pairs_is_that_of_each_last_token() -> None:
    network = EncoderDecoder(Design(hidden_size=4, embedding_size=3, copies=True), (9, 9), shared=True).eval()
    shown = of_pairs(network, [[4, 5, 6], [7]], [[5, 8], [6, 4, 7]], "", ([["a"] * 3, ["b"]], [["c"] * 2, ["d"] * 3]))
    expected = 0.0
    for source, target in (([4, 5, 6], [5, 8]), ([7], [6, 4, 7])):
        ids = torch.tensor(source)[:, None]
        memory, state = network.read(ids, torch.tensor([len(source)]))
        step = network.stepper(memory, ids.t())
        for word in [1, *target[:-1]]:
            logits, state = step(torch.tensor([word]), state)
        expected -= float(logits.detach().log_softmax(1)[0, target[-1]])
    assert diagnose(shown.model, shown.batch, shown.loss).flow.loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("task", "said", "tokens"),
    [
        ("language", "A language model, reading 22 words of t.txt in passages of 11", ["↵\n", "cat", "."]),
        ("dialog", "A partner in dialog, reading 2 dialogs of t.txt", ["<user>", "rome", "(start)"]),
    ],
)
def test_the_page_holds_the_tokens(task: str, said: str, tokens: list[str], tmp_path: Path) -> None:
    file, data = untrained(task, tmp_path)
    page = inspect(file, data, sequences=2, units=[5], out=tmp_path / "out").read_text(encoding="utf-8")
    assert said in page
    assert all(f">{html.escape(token)}</span>" in page for token in tokens)
    assert page.count('type="radio"') == page.count("<label ") and "<b>unit 5 of " in page
    headings = {"language": ["The tokens,"], "dialog": ["The tokens of the encoder,", "The tokens of the decoder,"]}
    assert all(heading in page for heading in headings[task])
    if task == "dialog":
        assert "</b> steps of the decoder" in page and "all 2</b> steps back gradients of the decoder reach" in page


@pytest.mark.parametrize(
    ("task", "name", "content", "said"),
    [
        ("tag", "o.csv", "a,b\n1,2\n", "no column 'tokens' (got a, b); that which the model was trained on; rename it"),
        ("language", "o.csv", "a,b\n1,2\n", "no lines of text (got a, b); plain text; choose it"),
        ("music", "o.txt", "C4 H9\n", "no note of a piano (got 'H9'); A0 to C8, such as C#4 or Eb4; mend it"),
        ("translate", "o.csv", "de,b\n1,2\n", "(got 'en'); de, b; did you mean"),
        (
            "translate",
            "o.csv",
            "de,en\n,2\n3,\n",
            "no pairs (got nothing to read in 'de' or 'en'); both; check the file",
        ),
        (
            "dialog",
            "o.txt",
            "1 hi\n",
            "no answer (got dialogs without any); lines NUMBER SAID<tab>ANSWER; check the file",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    task: str, name: str, content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if task == "translate":
        pytest.importorskip("sacrebleu")
    file, _ = untrained(task, tmp_path)
    (tmp_path / name).write_text(content)
    capsys.readouterr()
    assert main(["inspect", str(file), "--data", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
