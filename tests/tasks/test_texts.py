"""Comparing recurrences on texts with labels."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from carousel.cli import main
from carousel.errors import DataError
from carousel.tasks.comparison import build, compare, hidden_size, problem_named
from carousel.tasks.problem import Examples
from carousel.tasks.texts import Texts

WORDS = ["the", "film", "was", "a", "story", "with", "some", "people"]


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    draw, path = random.Random(0), tmp_path / "reviews.csv"
    rows = [(draw.choices(WORDS, k=draw.randint(2, 9)), k % 2) for k in range(200)]
    lines = [f"{' '.join([*words, 'good' if label else 'bad'])},{'pos' if label else 'neg'}" for words, label in rows]
    path.write_text("\n".join(["text,label", *lines]))
    return path


def test_cells_are_compared_on_texts(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["compare", str(reviews), "--cells", "lstm,gru", "--steps", "40", "--seeds", "1", "--rate", "0.01"]) == 0
    )
    out = capsys.readouterr().out
    assert "140 train, 20 val, 40 test; 14 words of 64 weights each" in out.replace("\n", " ")
    assert "TF-IDF + logistic regression" in out and "the commonest label" in out
    found = compare(reviews, ["lstm", "gru"], steps=40, seeds=1, learning_rates=[0.01])
    assert found.baselines["the commonest label"] == 50
    assert all(run.test > 90 for run in found.runs)


def test_networks_have_as_many_parameters_words_included(reviews: Path) -> None:
    problem = problem_named(reviews)
    assert isinstance(problem, Texts)
    for cell in ("lstm", "gru"):
        network = build(cell, hidden_size(cell, problem, problem.parameters), problem)
        count = sum(weight.numel() for weight in network.parameters())
        assert abs(count - problem.parameters) < 0.03 * problem.parameters
        assert network.embedding is not None and network.embedding.weight.shape == (14, 64)


def test_padding_changes_nothing(reviews: Path) -> None:
    network = build("gru", 5, problem_named(reviews))
    ids = torch.tensor([[5, 6], [7, 8], [9, 3]])
    together = network(Examples(ids, torch.zeros(2), torch.tensor([3, 2])))
    alone = network(Examples(ids[:2, 1:], torch.zeros(1), torch.tensor([2])))
    torch.testing.assert_close(together[1:], alone)


def test_a_file_without_texts_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(
        DataError, match=r"a\.csv: no texts with one label each \(got a, b\); a column of both; name them"
    ):
        problem_named(path)
    path.write_text("text,tags\na b,x|y\nc d,y\n")
    with pytest.raises(DataError, match=r"a\.csv: no texts with one label each \(got several in 'tags'\)"):
        problem_named(path)
