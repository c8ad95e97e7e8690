"""Experiments: trials that end when they should, tables, figures, and folders that go on."""

import math
import struct
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from carousel.cells import LSTM, LSTM1997, Cell
from carousel.errors import ConfigError, DataError
from carousel.nn import Recurrent
from carousel.reading_list import (
    EXPERIMENTS,
    PAPERS,
    Condition,
    Experiment,
    Outcome,
    Reproduction,
    chang_2019,
    pascanu_2013,
    reproduce,
)
from carousel.reading_list.experiment import Network, hold, learn, network
from carousel.reading_list.gers_2000 import CutLSTM, CutLSTM1997
from carousel.reading_list.gers_2001 import reach
from carousel.reading_list.hochreiter_1997 import Batch, off_the_mean, squared_error, wrong_classes
from carousel.reading_list.reproduction import _solved
from carousel.training import Watched, omega

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
        ("continual-reber", "forget gates, cut"),
        ("continual-reber", "no forget gates, whole"),
        ("counting", "a^n b^n c^n, peepholes"),
        ("spike-delays", "F = 10, peepholes"),
        ("timed-spikes", "F = 10, no peepholes"),
        ("periodic-functions", "cosine, F = 10, peepholes"),
        ("order-sigmoid", "MSGD, T = 50"),
        ("order-basic-tanh", "MSGD-CR, T = 50"),
        ("order-smart-tanh", "MSGD-C, T = 50"),
        ("order-any-length", "basic tanh, MSGD-CR"),
        ("irnn-adding", "IRNN, T = 150"),
        ("dilated-copy", "tanh, dilated"),
        ("selective-copying", "2 layers"),
    ],
)
def test_a_trial_goes_through_and_is_the_same_again(
    experiment: str, only: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carousel.reading_list.hochreiter_1997.HELD_OUT", 20)
    monkeypatch.setattr("carousel.reading_list.gers_2000.STEPS", 500)
    monkeypatch.setattr("carousel.reading_list.gers_2001.ASKED", 12)
    monkeypatch.setattr("carousel.reading_list.gers_2002.ASKED", 12)
    monkeypatch.setattr("carousel.reading_list.pascanu_2013.SCREENED", 20)
    monkeypatch.setattr("carousel.reading_list.pascanu_2013.JUDGED", 20)
    monkeypatch.setattr("carousel.reading_list.pascanu_2013.FARTHER", (50, 250))
    monkeypatch.setattr("carousel.reading_list.le_2015.HELD_OUT", 20)
    first, second = (reproduce(experiment, only=only, seeds=1, sequences=64)[0].outcomes[only][0] for _ in "ab")
    assert (first.score, first.curve, first.drawn) == (second.score, second.curve, second.drawn)
    assert not first.solved and first.curve


@pytest.mark.parametrize("only", ["LSTM, plain", "antisymmetric, gated, permuted"])
def test_digits_are_read_from_where_they_are(only: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carousel.tasks.digits.VALIDATION", 8)
    drawn = torch.Generator().manual_seed(0)
    for part, count in (("train", 80), ("t10k", 12)):
        images = torch.randint(256, (count, 28, 28), dtype=torch.uint8, generator=drawn).numpy()
        labels = torch.randint(10, (count,), dtype=torch.uint8, generator=drawn).numpy()
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
            (tmp_path / f"{part}-{kind}-ubyte").write_bytes(head + values.tobytes())
    first, second = (
        reproduce("pixel-digits", only=only, seeds=1, sequences=128, data=tmp_path)[0].outcomes[only][0] for _ in "ab"
    )
    assert (first.score, first.curve) == (second.score, second.curve)
    assert first.sequences == 128 and first.score * 12 == pytest.approx(round(first.score * 12))


def test_one_order_of_pixels_for_all_and_every_pixel_once() -> None:
    plain, permuted = chang_2019.order_of(False), chang_2019.order_of(True)
    assert plain.tolist() == list(range(196)) == sorted(permuted.tolist())
    assert torch.equal(permuted, chang_2019.order_of(True)) and not torch.equal(plain, permuted)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("pixel-digits", None, r"data: pixel-digits needs a path \(got none\); the folder of MNIST's four idx files"),
        ("adding", "there", r"data: not for adding \(got there\); it makes its own; leave it out"),
    ],
)
def test_data_is_given_where_it_is_read(name: str, data: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        reproduce(name, seeds=1, sequences=1, data=data)


def test_scan_and_loop_are_timed_in_turn_with_a_gru(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carousel.reading_list.feng_2024.TIMED", (4, 32, 64))
    monkeypatch.setattr("carousel.reading_list.feng_2024.REPEATS", 2)
    outcome = reproduce("parallel-training", only="minGRU, compiled loop", seeds=1)[0].outcomes[
        "minGRU, compiled loop"
    ][0]
    assert [x for x, _ in outcome.drawn] == [4, 32, 64] and outcome.score == outcome.curve[-1][1] > 0
    assert outcome.solved == (outcome.score > 1)


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


def test_training_stops_when_a_gradient_is_not_finite() -> None:
    model, weights = network(0, "lstm", 1, 2, 1), []

    def test() -> tuple[bool, float]:
        weights.append(model.readout.weight.clone())
        return False, 0.0

    def loss(step: int) -> torch.Tensor:
        return model(torch.ones(3, 4, 1)).square().mean() * (float("nan") if step == 4 else 1.0)

    outcome = learn(model, loss, test, batch=4, limit=100, every=4, learning_rate=0.1)
    assert (outcome.solved, outcome.sequences) == (False, 20)
    assert torch.equal(*weights) and bool(weights[0].isfinite().all())


def test_the_rate_falls_along_a_line_and_as_it_is_told() -> None:
    model, seen = torch.nn.Linear(1, 1, bias=False), [0.0]
    with torch.no_grad():
        model.weight.zero_()

    def test() -> tuple[bool, float]:
        seen.append(model.weight.item())
        return False, 0.0

    learn(
        model,
        lambda step: -model.weight.sum(),
        test,
        batch=1,
        limit=3,
        every=1,
        learning_rate=0.6,
        decay=True,
        slower=lambda: 0.5 ** len(seen),
        optimiser=torch.optim.SGD,
    )
    assert [after - before for before, after in pairwise(seen)] == pytest.approx([0.3, 0.1, 0.025])


def test_success_is_counted_length_by_length() -> None:
    one, other = (
        Outcome(False, 1, 1.0, 0.0, [], [(float(length), wrong) for length in pascanu_2013.FARTHER])
        for wrong in (0.009, 0.01)
    )
    other.drawn[0] = (50.0, 0.0)
    *_, row = pascanu_2013.by_length({"plain": {0: one, 1: other}}).splitlines()
    assert row.split(" | ")[:3] == ["| plain", "2 of 2", "1 of 2"] and row.count("1 of 2") == 9


def test_lengths_grow_while_few_are_wrong_of_late_and_keep_their_ratio() -> None:
    lengths, drawn = pascanu_2013.Growing(), torch.Generator().manual_seed(0)
    assert {lengths.draw(drawn) for _ in range(1000)} == set(range(10, 41))
    for _ in range(100):
        lengths.told(0.05)
    assert lengths.longest == 40
    for _ in range(2000):
        lengths.told(0.0)
    assert lengths.slower() == pytest.approx(0.16**3)
    assert {lengths.draw(drawn) for _ in range(5000)} == set(range(62, 251))


def test_a_penalty_joins_the_gradient_before_it_is_clipped() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    options = {"batch": 1, "limit": 1, "every": 1, "learning_rate": 0.1, "optimiser": torch.optim.SGD}
    learn(
        model,
        lambda step: model.weight.sum() * 0.3,
        lambda: (False, 0.0),
        penalty=lambda: model.weight.sum() * 4.0,
        clip=math.inf,
        **options,
    )
    assert model.weight.item() == pytest.approx(1 - 0.1 * 4.3)
    learn(
        model,
        lambda step: model.weight.sum() * 0.3,
        lambda: (False, 0.0),
        penalty=lambda: model.weight.sum(),
        **options,
    )
    assert model.weight.item() == pytest.approx(1 - 0.1 * 4.3 - 0.1)


@pytest.mark.parametrize(("cut", "whole"), [(CutLSTM, LSTM), (CutLSTM1997, LSTM1997)])
def test_a_cut_gradient_stays_in_the_memory(cut: type[Cell], whole: type[Cell]) -> None:
    torch.manual_seed(0)
    ours, theirs = cut(1, 2), whole(1, 2)
    theirs.load_state_dict(ours.state_dict())
    inputs, c = torch.randn(2, 3, 1), torch.randn(3, 2)
    found = []
    for cell in (ours, theirs):
        h = torch.zeros(3, 2, requires_grad=True)
        memory = c.clone().requires_grad_()
        after = cell.step(inputs[1], cell.step(inputs[0], cell.State(h, memory)))  # type: ignore[attr-defined]
        found.append((after.h, *torch.autograd.grad(after.h.sum(), (h, memory), allow_unused=True)))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] is None and bool(found[1][1].any())
    assert bool(found[0][2].all()) and not torch.allclose(found[0][2], found[1][2])


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


def test_the_figure_may_be_of_success_over_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    missed, drawn = replace(SOLVED, solved=False), dict[str, object]()
    conditions = [
        Condition(f"{name}, {x}", "", lambda seed, limit: SOLVED, point=(name, x)) for name in "ab" for x in (50, 100)
    ]
    experiment = Experiment("toy", "A paper", "Solved: at once.", "error", conditions, draw=("length", "share"))
    outcomes = {"a, 50": {0: SOLVED, 1: missed}, "a, 100": {0: missed}, "b, 100": {0: SOLVED}}
    monkeypatch.setattr("carousel.reading_list.reproduction.curves_png", lambda curves, **_: drawn.update(curves))
    Reproduction(experiment, outcomes).png()
    assert drawn == {"a": [[(50, 0.5), (100, 0.0)]], "b": [[(100, 1.0)]]}


def test_the_first_weights_are_the_papers() -> None:
    sigmoid, basic, smart = (pascanu_2013.made(name, 0) for name in ("sigmoid", "basic tanh", "smart tanh"))
    assert [round(one.U.std().item(), 2) for one in (sigmoid, basic)] == [0.01, 0.10]
    assert [round(one.enter.weight.std().item(), 2) for one in (sigmoid, basic, smart)] == [0.01, 0.10, 0.01]
    assert bool(((smart.U != 0).sum(1) == 15).all())
    assert torch.linalg.eigvals(smart.U).abs().max().item() == pytest.approx(0.95, abs=1e-4)
    cell, nothing = sigmoid.recurrent.cells[0], torch.zeros(1, 50)
    assert torch.equal(cell.step(nothing, cell.State(nothing)).h, torch.full((1, 50), 0.5))


def test_plain_descent_takes_the_long_step_that_clipping_shortens_and_omega_turns() -> None:
    steps = {}
    for method in pascanu_2013.METHODS:
        model = pascanu_2013.made("basic tanh", 0)
        with torch.no_grad():
            model.readout.weight *= 50
        before = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        batch = pascanu_2013.temporal_order(30, 20, torch.Generator().manual_seed(0))
        pascanu_2013.train(model, method, lambda step, batch=batch: batch, lambda: (False, 1.0), limit=20)
        steps[method] = torch.nn.utils.parameters_to_vector(model.parameters()).detach() - before
    plain, clipped, with_omega = (steps[method] / pascanu_2013.RATE for method in pascanu_2013.METHODS)
    assert plain.norm() > 2
    torch.testing.assert_close(clipped, plain / plain.norm(), rtol=1e-3, atol=1e-4)
    assert with_omega.norm().item() == pytest.approx(1, rel=1e-3)
    assert torch.cosine_similarity(with_omega, clipped, dim=0) < 0.9999


def test_where_no_gradient_is_left_omega_has_none_either() -> None:
    model = pascanu_2013.made("sigmoid", 0)
    outputs = model(torch.zeros(200, 3, 6))
    model.retain()
    outputs.sum().backward()
    assert bool((model.entered.grad[0] == 0).all())
    model.omega().backward()
    assert bool(model.U.grad.isfinite().all()) and bool((model.U.grad != 0).any())


@pytest.mark.parametrize("linear", [False, True])
def test_the_authors_omega_is_ours_of_any_cell(linear: bool) -> None:
    """In value; in gradient too where the units are linear, so that there is no φ' for their program to hold fixed."""
    inputs, orders = pascanu_2013.temporal_order(30, 5, torch.Generator().manual_seed(0))
    model = pascanu_2013.made("basic tanh", 0)
    if linear:
        model.recurrent.cells[0].activation = lambda a: 1.0 * a
    watched = Recurrent([Watched(model.recurrent.cells[0])])
    F.cross_entropy(model.readout(watched(model.enter(inputs))[0][-1]), orders).backward()
    model.zero_grad()
    wanted = omega(watched, squared=True, per_step=True)
    wanted.backward()
    [gradient] = [parameter.grad.clone() for parameter in watched.parameters()]
    outputs = model(inputs)
    model.retain()
    F.cross_entropy(outputs, orders).backward()
    model.zero_grad()
    found = model.omega()
    found.backward()
    torch.testing.assert_close(found, wanted)
    assert linear == torch.allclose(model.U.grad, gradient, rtol=1e-3, atol=1e-6)


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
