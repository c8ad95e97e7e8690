"""The adding problem, in both of its variants."""

import pytest
import torch

from carousel.errors import ConfigError
from carousel.tasks.adding import Adding, adding, adding_1997
from carousel.training import generator


def test_le_2015_marks_two_anywhere() -> None:
    inputs, targets, lengths = adding(4000, 30, generator(0))
    numbers, marks = inputs.unbind(-1)
    assert lengths is None
    assert set(marks.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(marks.sum(0), torch.full((4000,), 2.0))
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    often = marks.mean(1) * 30 / 2  # each place as often as any other
    assert float((often - 1).abs().max()) < 0.25
    assert float((targets - 1).square().mean()) == pytest.approx(1 / 6, abs=0.01)


def test_1997_marks_one_of_ten_and_one_of_the_first_half() -> None:
    T = 30
    inputs, targets, lengths = adding_1997(4000, T, generator(0))
    assert lengths is not None
    assert sorted(lengths.unique().tolist()) == [30, 31, 32, 33]
    numbers, marks = inputs.unbind(-1)
    places = [(marks[:, b] == 1).nonzero()[:, 0].tolist() for b in range(4000)]
    assert all(len(two) == 2 and min(two) < 10 and max(two) < T // 2 for two in places)
    assert {place for two in places for place in two} == set(range(T // 2))
    first_marked = marks[0] == 1
    assert torch.equal(marks[0, ~first_marked], torch.full_like(marks[0, ~first_marked], -1.0))
    assert first_marked.any()
    assert not numbers[0, first_marked].any()  # its number counts as 0
    assert all(marks[length - 1, b] == -1 for b, length in enumerate(lengths.tolist()))
    assert not (inputs * (torch.arange(len(inputs))[:, None] >= lengths)[..., None]).any()
    sums = ((marks == 1) * numbers).sum(0)
    torch.testing.assert_close(targets, 0.5 + sums / 4)


def test_what_it_judges_by_is_always_the_same_and_never_trained_on() -> None:
    one, other = Adding(20), Adding(20)
    for split in ("val", "test"):
        assert all(map(torch.equal, *([held.inputs for held in p.held_out(split)] for p in (one, other))))
    assert torch.equal(one.batch(3, 5).inputs, other.batch(3, 5).inputs)
    batches = [one.batch(0, 0), one.batch(0, 1), one.batch(1, 0), *one.held_out("val"), *one.held_out("test")]
    assert len({float(batch.inputs.double().sum()) for batch in batches}) == len(batches)


def test_the_baseline_is_that_of_the_paper() -> None:
    assert Adding(20).baselines()["the mean"] == pytest.approx(1 / 6, abs=0.01)  # variance of two uniform numbers
    none = 1 / 10 + 9 / 10 / 9  # that the first element is marked, whose number is 0; T / 2 - 1 = 9
    assert Adding(20, "1997").baselines()["the mean"] == pytest.approx((2 - none) / 3 / 16, abs=0.002)


def test_wrong_options() -> None:
    with pytest.raises(ConfigError, match=r"length: too short \(got 19\)"):
        Adding(19)
    with pytest.raises(ConfigError, match=r"variant: unknown \(got '1998'\); le-2015, 1997"):
        Adding(variant="1998")  # type: ignore[arg-type]
