"""A classifier that begins as a language model of unlabelled text."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

import carousel
from carousel.cli import main
from carousel.tasks import classify, language
from carousel.tasks.task import Source
from carousel.tasks.text_classifier import ClassifyConfig
from carousel.tasks.transfer import from_above, thaw

GOOD, BAD = [[f"{kind}{k}" for k in range(6)] for kind in ("fine", "dull")]


def review(draw: random.Random, good: bool) -> str:
    """Each word of praise comes with others: what is like what can be seen without a label."""
    words = GOOD if good else BAD
    return " ".join(["the", "film", "was", *draw.choices(words, k=4)])


@pytest.fixture(scope="module", params=[1, 2], ids=["one-layer", "two-layers"])
def begun(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder with a language model of unlabelled reviews in lm/, and few.csv, of sixteen with labels."""
    folder, draw = tmp_path_factory.mktemp("transfer"), random.Random(0)
    (folder / "unlabelled.txt").write_text("\n".join(review(draw, k % 2 == 0) for k in range(800)))
    settings = {"tokens": "words", "lowercase": "true", "hidden_size": 16, "embedding_size": 8, "epochs": 6, "ngram": 2,
                "layers": request.param, "bptt": 20, "batch_size": 8, "learning_rate": 0.03, "dropout": 0,
                "averaging": 0.9, "schedule": "constant"}  # fmt: skip
    arguments = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    assert main(["train", str(folder / "unlabelled.txt"), "--run", str(folder / "lm"), *arguments]) == 0
    splits = ["train"] * 16 + ["val"] * 8 + ["test"] * 40
    rows = [(review(draw, k % 2 == 0), ("good", "bad")[k % 2], split) for k, split in enumerate(splits)]
    (folder / "few.csv").write_text("\n".join(["text,label,split", *map(",".join, rows)]))
    return folder


def learner(folder: Path, **settings: Any) -> classify.Classification:
    source, file = Source(folder / "few.csv"), folder / "m.safetensors"
    return classify.learner(source, ClassifyConfig(**settings), file, None, folder / "lm/model.safetensors")  # type: ignore[arg-type]


def test_it_begins_with_what_the_language_model_knows(begun: Path) -> None:
    found, known = learner(begun), language.load(begun / "lm/model.safetensors")
    layers = known.config.layers
    assert found.tokenizer.facts() == known.tokenizer.facts()
    assert (found.config.hidden_size, found.config.embedding_size, found.config.layers) == (16, 8, layers)
    assert torch.equal(found.model.embedding.weight, known.network.embedding.weight)
    ids = torch.tensor(known.tokenizer.encode("the film was fine1"))[:, None]
    found.model.eval()
    outputs, _ = found.model.recurrent(found.model.embedding(ids), lengths=torch.tensor([len(ids)]))
    assert found.model.recurrent.bidirectional == (layers == 1)  # backward beside it, where that reads words alone
    read, _ = known.network.recurrent(known.network.embedding(ids))
    assert torch.allclose(outputs[..., :16], read, atol=1e-6)


def test_lower_layers_learn_later_and_slower(begun: Path) -> None:
    found = learner(begun, learning_rate=0.1, slower=2.0)
    groups, layers = found.parameter_groups(), from_above(found.model)
    assert [group["lr"] for group in groups] == [0.1 / 2**depth for depth in range(len(layers))]
    assert len(layers) == 2 + found.config.layers
    assert {id(p) for layer in layers for p in layer} == {id(p) for p in found.model.parameters()}
    for epoch in range(4):
        found.model.zero_grad()
        found.loss(epoch, 0).mean.backward()  # type: ignore[no-untyped-call]
        learns = [all(p.grad is not None and bool(p.grad.any()) for p in layer) for layer in layers]
        assert learns == [depth <= epoch for depth in range(len(layers))]
    thaw(layers, 0)
    assert not found.model.embedding.weight.requires_grad and found.model.readout.weight.requires_grad


@pytest.mark.parametrize("begun", [1], indirect=True)
def test_few_labels_are_enough_then(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "train",
        str(begun / "few.csv"),
        "--run",
        str(begun / "run"),
        "--from",
        str(begun / "lm/model.safetensors"),
    ]
    settings = ("epochs=20", "patience=20", "batch_size=4", "learning_rate=0.03", "dropout=0.1", "averaging=0.5")
    assert main([*words, *(word for setting in settings for word in ("--set", setting))]) == 0
    assert "begun as the language model; a layer more of it learns in each epoch" in capsys.readouterr().err
    model = carousel.load(begun / "run")
    held = [line.split(",") for line in (begun / "few.csv").read_text().splitlines()[25:]]
    hits = [found.labels == (label,) for found, (_, label, _) in zip(
        model.predict([text for text, _, _ in held]), held, strict=True)]  # fmt: skip
    assert sum(hits) >= 38  # of 40
