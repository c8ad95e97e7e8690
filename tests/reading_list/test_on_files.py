"""Experiments that read files, and those of text, taken through a few steps on made-up data."""

import random
import re
from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest
import torch
from mnist_files import write_mnist
from piano_rolls import mat, rolls

from carousel.errors import ConfigError, DataError
from carousel.reading_list import Outcome, reproduce
from carousel.reading_list.chan_2016 import Hierarchy, Pixels
from carousel.reading_list.greff_2016 import VARIANTS, drawn, importance, remarks
from carousel.reading_list.jozefowicz_2015 import INDEX, SYMBOLS, Text, arithmetic, batch, sum_of_two, xml
from carousel.tasks import digits
from carousel.tasks.problem import Examples

DONE = Outcome(True, 100, 1.0, 9.0, [(100.0, 9.0)])


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the experiments read, small."""
    monkeypatch.setattr(digits, "VALIDATION", 8)
    monkeypatch.setattr("carousel.reading_list.chan_2016.BATCH", 8)
    write_mnist(tmp_path, train=24, test=6)
    cells = {"traindata": rolls(5, 9, 7, 6, 5, 8, 4, 6), "validdata": rolls(4, seed=1), "testdata": rolls(6, 3, seed=2)}
    for name in ("JSB_Chorales", "Nottingham"):
        (tmp_path / f"{name}.mat").write_bytes(mat(cells))
    return tmp_path


@pytest.mark.parametrize(
    ("experiment", "only"),
    [
        ("jsb-chorales", "lstm"),
        ("nottingham", "gru"),
        ("odyssey", "NFG"),
        ("pixel-pyramid", "permuted"),
    ],
)
def test_a_trial_goes_through_and_is_the_same_again(experiment: str, only: str, files: Path) -> None:
    first, second = (
        reproduce(experiment, only=only, seeds=1, sequences=24, data=files)[0].outcomes[only][0] for _ in "ab"
    )
    assert (first.score, first.curve, first.drawn) == (second.score, second.curve, second.drawn)
    assert first.sequences == 24 and first.drawn and first.curve[-1][0] == 24


@pytest.mark.parametrize("experiment", ["arithmetic", "xml"])
def test_text_goes_through_too(experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carousel.reading_list.jozefowicz_2015.HELD_OUT", 20)
    first, second = (reproduce(experiment, only="MUT1", seeds=1, sequences=64)[0].outcomes["MUT1"][0] for _ in "ab")
    assert first.curve == second.curve and 0 <= first.score < 1


def test_whether_it_is_solved_is_said_by_the_test_score(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for said, solved in ((8.45, True), (8.46, False)):
        monkeypatch.setattr("carousel.reading_list.experiment.score", lambda *_, said=said: said)
        [found] = reproduce("jsb-chorales", only="lstm", seeds=1, sequences=8, data=files)
        assert found.outcomes["lstm"][0].solved is solved
    for said, solved in ((95.0, True), (94.9, False)):
        monkeypatch.setattr("carousel.reading_list.experiment.score", lambda *_, said=said: said)
        [found] = reproduce("pixel-pyramid", only="permuted", seeds=1, sequences=8, data=files)
        assert found.outcomes["permuted"][0].solved is solved


def test_data_are_asked_for_where_they_are_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data: jsb-chorales needs a path \(got none\); the folder of JSB_Chorales"):
        reproduce("jsb-chorales", seeds=1)
    with pytest.raises(ConfigError, match=r"data: not for adding \(got .*\); it makes its own"):
        reproduce("adding", seeds=1, data=tmp_path)
    with pytest.raises(DataError, match=r"JSB_Chorales\.mat"):
        reproduce("jsb-chorales", seeds=1, sequences=8, data=tmp_path)


def test_one_disorder_for_all_images(files: Path) -> None:
    plain, permuted = Pixels(files, permuted=False), Pixels(files, permuted=True)
    assert not torch.equal(plain.images, permuted.images)
    order = [int((permuted.images == row).all(1).nonzero()[0, 0]) for row in plain.images]
    assert sorted(order) == list(range(196))
    for split, (pixels, _) in plain.held.items():
        assert torch.equal(permuted.held[split][0][order], pixels)  # type: ignore[index]


def test_the_hierarchy_reads_every_pixel() -> None:
    model = Hierarchy().eval()
    pixels = torch.rand(196, 2, 1, requires_grad=True)
    model(Examples(pixels, torch.zeros(2))).sum().backward()  # type: ignore[no-untyped-call]
    assert pixels.grad is not None and bool((pixels.grad != 0).all())


def said(text: Text, b: int) -> tuple[str, str]:
    """One text of a batch, and what of it is asked for."""
    whole = SYMBOLS[int(text.symbols[0, b])] + "".join(SYMBOLS[k] for k in text.following[:, b])
    asked = "".join(SYMBOLS[k] for k in text.following[:, b][text.asked[:, b]])
    return whole.rstrip(), asked


def test_sums_are_right_and_asked_for_from_the_sign_on() -> None:
    texts = arithmetic(3, 40, random.Random(0))
    for b in range(40):
        whole, asked = said(texts, b)
        question, answer = whole.split("=")
        plain = "".join(symbol for symbol in question if not symbol.isalpha())
        left, sign, right = re.fullmatch(r"(-?\d+)([+-])(-?\d+)", plain).groups()  # type: ignore[union-attr]
        assert int(left) + int(right) * (1 if sign == "+" else -1) == int(answer.removesuffix("."))
        assert asked == answer and answer.endswith(".")


def test_tags_are_closed_in_order_and_their_names_asked_for() -> None:
    texts = xml(40, random.Random(0))
    for b in range(40):
        whole, asked = said(texts, b)
        opened, closed = [], ""
        for tag in whole.split("<")[1:]:
            if tag.startswith("/"):
                assert opened.pop().startswith(tag[1:].removesuffix(">"))
                closed += tag[1:]
            else:
                opened.append(tag)
        assert asked == closed


def test_padding_is_not_asked_for() -> None:
    text = batch(["ab", "c"], [[1], []])
    assert text.symbols.shape == (1, 2) and text.following.tolist() == [[INDEX["b"], INDEX[" "]]]
    assert text.asked.tolist() == [[True, False]]
    assert sum_of_two(random.Random(1), 1) == sum_of_two(random.Random(1), 1)


def test_what_matters_is_found_by_the_importance() -> None:
    """Scores that say whether the rate is in the upper third; a variant's own level does not count."""
    trials = {(name, seed): drawn(name, seed) for name in VARIANTS for seed in range(12)}
    scores = {key: float(settings.learning_rate > 0.0144) + 5 * (key[0] == "V") for key, settings in trials.items()}
    found = importance(scores)
    assert found["learning_rate"] > 0.6
    assert all(abs(share) < 0.1 for name, share in found.items() if name != "learning_rate")


@pytest.mark.parametrize("trials", [1, 2, 3])
def test_of_too_few_trials_no_importance_is_said(trials: int) -> None:
    assert all(isnan(share) for share in importance({("V", seed): float(seed) for seed in range(trials)}).values())


def test_the_best_of_each_variant_is_told() -> None:
    told = remarks({"V": {0: DONE, 1: replace(DONE, score=8.5)}, "NP": {}})
    assert "| V | 8.500 | 8.500 | rate" in told and "| NP" not in told and "learning rate" in told
