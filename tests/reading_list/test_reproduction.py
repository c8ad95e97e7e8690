"""Experiments: trials that end when they should, tables, figures, and folders that go on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from carousel.errors import ConfigError, DataError
from carousel.reading_list import EXPERIMENTS, PAPERS, Condition, Experiment, Outcome, Reproduction, reproduce
from carousel.reading_list.experiment import Network, hold, learn, network
from carousel.reading_list.gers_2001 import reach
from carousel.reading_list.hochreiter_1997 import Batch, off_the_mean, squared_error, wrong_classes
from carousel.reading_list.reproduction import _solved

SOLVED = Outcome(True, 100, 1.0, 0.0, [(50.0, 0.5), (100.0, 0.0)])


def test_every_experiment_says_what_it_is() -> None:
    assert len(EXPERIMENTS) == sum(len(module.EXPERIMENTS) for module in PAPERS.values())
    for experiment in EXPERIMENTS.values():
        names = [condition.name for condition in experiment.conditions]
        assert len(names) == len(set(names)) > 0
        assert "Solved:" in experiment.about or "solved:" in experiment.about
    assert EXPERIMENTS["embedded-reber"].conditions[0].trials == 30


@pytest.mark.parametrize(
    ("experiment", "only"),
    [
        ("long-lag", "p = 100"),
        ("distracted-lag", "q = p = 100"),
        ("two-sequence", "N = 3"),
        ("adding", "T = 100"),
        ("multiplication", "T = 100"),
        ("temporal-order", "three symbols (6b)"),
        ("continual-reber", "no forget gates"),
        ("counting", "a^n b^n c^n, peepholes"),
        ("spike-delays", "F = 10, peepholes"),
        ("timed-spikes", "F = 10, no peepholes"),
        ("periodic-functions", "cosine, F = 10, peepholes"),
    ],
)
def test_a_trial_goes_through_and_is_the_same_again(
    experiment: str, only: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carousel.reading_list.hochreiter_1997.HELD_OUT", 20)
    monkeypatch.setattr("carousel.reading_list.gers_2000.STEPS", 500)
    monkeypatch.setattr("carousel.reading_list.gers_2001.ASKED", 12)
    monkeypatch.setattr("carousel.reading_list.gers_2002.ASKED", 12)
    first, second = (reproduce(experiment, only=only, seeds=1, sequences=64)[0].outcomes[only][0] for _ in "ab")
    assert (first.score, first.curve, first.drawn) == (second.score, second.curve, second.drawn)
    assert not first.solved and first.curve


def test_training_stops_when_the_criterion_is_met() -> None:
    model, asked = network(0, "lstm", 1, 2, 1), []

    def test() -> tuple[bool, float]:
        asked.append(1)
        return len(asked) == 2, float(len(asked))

    inputs = torch.ones(3, 4, 1)
    outcome = learn(
        model, lambda step: model(inputs).square().mean(), test, batch=4, limit=100, every=3, learning_rate=0.1
    )
    assert (outcome.solved, outcome.sequences, outcome.score) == (True, 24, 2.0)
    assert outcome.curve == [(12.0, 1.0), (24.0, 2.0)]


def test_weights_follow_from_the_seed() -> None:
    same, again, other = (network(seed, "lstm", 2, 3, 1).readout.weight for seed in (0, 0, 1))
    assert torch.equal(same, again) and not torch.equal(same, other)


def test_the_readout_is_of_each_sequences_end_and_of_its_input() -> None:
    model, inputs = Network("lstm", 2, 3, 1, shortcut=True), torch.randn(5, 2, 2)
    everywhere, ends = model(inputs), model(inputs, torch.tensor([4, 2]))
    assert torch.allclose(ends, torch.stack([everywhere[4, 0], everywhere[2, 1]]))
    outputs, _ = model.recurrent(inputs)
    assert torch.allclose(everywhere, model.readout(torch.cat([outputs, inputs], dim=-1)))


def test_gates_that_hold() -> None:
    cell = hold(Network("lstm-noaf", 2, 3, 1), -3.0, 5.0).recurrent.cells[0]
    assert cell.input.b.tolist() == [-3.0] * 3 and cell.forget.b.tolist() == [5.0] * 3  # type: ignore[union-attr]


def test_criteria() -> None:
    numbers = Batch(torch.zeros(1), torch.tensor([0.2, 0.8]), torch.zeros(1))
    assert squared_error(numbers.targets + 0.03, numbers)[0] and not squared_error(numbers.targets + 0.04, numbers)[0]
    assert off_the_mean(numbers.targets + 0.014, numbers)[0]
    assert not off_the_mean(numbers.targets + 0.016, numbers)[0]
    assert not off_the_mean(numbers.targets + torch.tensor([0.0, 0.11]), numbers)[0]
    classes = Batch(torch.zeros(1), torch.tensor([0, 1]), torch.zeros(1))
    sure = 10 * F.one_hot(classes.targets, 3).float()
    assert wrong_classes(0, 0.3, sure, classes) == (True, 0.0)
    assert wrong_classes(0, 0.3, sure.flip(0), classes) == (False, 1.0)
    assert wrong_classes(2, 0.3, sure.flip(0), classes)[0]


def test_the_reach_of_counting_ends_before_the_first_error() -> None:
    class Always(Network):
        def forward(self, inputs: torch.Tensor, ends: torch.Tensor | None = None) -> torch.Tensor:
            """Right for n up to 7: says what it would if it counted so far."""
            from carousel.reading_list.gers_2001 import counted

            legal = counted(2, range(1, inputs.shape[1] + 1))[1].clone()
            legal[:, 7:] = 0
            return legal - 0.5

    assert reach(Always("lstm", 3, 2, 3), 2) == 7
    assert reach(Always("lstm", 3, 2, 3), 2, most=5) == 5


def made(outcomes: dict[int, Outcome]) -> Reproduction:
    condition = Condition("one", "the paper's", lambda seed, limit: SOLVED)
    return Reproduction(Experiment("toy", "A paper", "Solved: at once.", "error", [condition]), {"one": outcomes})


def test_the_table_counts_what_was_solved() -> None:
    missed = replace(SOLVED, solved=False, sequences=900, seconds=3.0, score=0.5)
    [line] = made({0: SOLVED, 1: missed, 2: replace(SOLVED, sequences=200)}).lines()
    assert line == ("one", "the paper's", "2 of 3", "150", "0", "1.67")
    assert (
        "| one | the paper's | 2 of 3 |" in made({0: SOLVED, 1: missed, 2: replace(SOLVED, sequences=200)}).markdown()
    )


def test_the_figure_is_a_staircase() -> None:
    missed = replace(SOLVED, solved=False, sequences=900)
    stairs = _solved([replace(SOLVED, sequences=200), SOLVED, SOLVED, missed])
    assert stairs == [(0, 0), (99.5, 0), (100, 0.5), (199.5, 0.5), (200, 0.75), (901, 0.75)]


def test_finished_trials_are_kept(tmp_path: Path) -> None:
    [first] = reproduce("embedded-reber", seeds=1, sequences=40, out=tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".json", ".png"}
    assert (tmp_path / "embedded-reber.png").read_bytes().startswith(b"\x89PNG")
    [second] = reproduce("embedded-reber", seeds=2, sequences=40, out=tmp_path)
    assert second.outcomes["lstm"][0].seconds == pytest.approx(first.outcomes["lstm"][0].seconds, rel=1e-3)
    assert sorted(second.outcomes["lstm"]) == [0, 1]
    with pytest.raises(ConfigError, match="another limit"):
        reproduce("embedded-reber", seeds=1, sequences=80, out=tmp_path)
    (tmp_path / "embedded-reber.json").write_text('{"limit": 40}')
    with pytest.raises(DataError, match="not a reproduction"):
        reproduce("embedded-reber", seeds=1, sequences=40, out=tmp_path)


def test_conditions_are_chosen_by_name_or_by_part() -> None:
    [exact] = reproduce("long-lag", only="p = 100", seeds=1, sequences=4)
    assert list(exact.outcomes) == ["p = 100"]
    with pytest.raises(ConfigError, match="no such condition"):
        reproduce("long-lag", only="p = 7")
