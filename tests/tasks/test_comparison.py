"""Which cell when: the same problem for several networks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from carousel.cells import CELLS
from carousel.errors import ConfigError, DataError
from carousel.nn import Recurrent
from carousel.tasks.adding import Adding
from carousel.tasks.comparison import COLUMNS, Comparison, Run, build, compare, hidden_size, problem_named
from carousel.tasks.problem import Examples, SequenceModel, drawn

TINY: dict[str, Any] = {"length": 20, "steps": 3, "parameters": 300}


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_comes_near_the_number_of_parameters(cell: str) -> None:
    problem = Adding()
    size = hidden_size(cell, problem, 20_000)
    count = sum(weight.numel() for weight in build(cell, size, problem).parameters())
    assert abs(count - 20_000) < 0.03 * 20_000
    for other in (size - 1, size + 1):  # or a neighbour would do
        around = sum(weight.numel() for weight in build(cell, other, problem).parameters())
        assert abs(around - 20_000) >= abs(count - 20_000)


def test_sizes_that_a_cell_refuses_are_passed_over() -> None:
    problem = Adding()
    size = hidden_size("slstm heads=7", problem, 5_000)
    assert size % 7 == 0
    wider, narrower = (
        sum(weight.numel() for weight in build("slstm heads=7", size + step, problem).parameters()) for step in (7, -7)
    )
    assert narrower < 5_000 < wider


def test_no_size_is_found_for_what_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="did you mean 'forget_bias'"):
        hidden_size("lstm forget_bia=3", Adding(), 500)
    with pytest.raises(ConfigError, match="did you mean 'gru'"):
        compare("adding", ["grue"], **TINY)
    with pytest.raises(ConfigError, match=r"cells: reads the future \(got 'gru bidirectional'\)"):
        compare("adding", ["gru bidirectional"], **TINY)
    with pytest.raises(ConfigError, match="cells: none"):
        compare("adding", [], **TINY)


def test_the_last_output_of_each_sequence_is_read() -> None:
    torch.manual_seed(0)
    model = SequenceModel(Recurrent("gru", 3, 4), 2)
    inputs = torch.randn(5, 2, 3)
    together = model(Examples(inputs, torch.zeros(2), torch.tensor([5, 2])))
    alone = torch.cat([model(Examples(inputs[:n, b : b + 1], torch.zeros(1))) for b, n in ((0, 5), (1, 2))])
    torch.testing.assert_close(together, alone)


def test_what_is_read_out_is_dropped_in_training_only() -> None:
    model, examples = (
        SequenceModel(Recurrent("gru", 3, 4), 2, dropout=1.0),
        Examples(torch.ones(5, 2, 3), torch.zeros(2)),
    )
    assert torch.equal(model(examples), model.readout.bias.expand(2, 2))
    assert not torch.equal(model.eval()(examples), model.readout.bias.expand(2, 2))


def test_an_epoch_draws_each_example_once() -> None:
    epochs = [[k for step in range(3) for k in drawn(7, 2, 0, 3 * epoch + step)] for epoch in (0, 1)]
    assert all(len(set(epoch)) == 6 for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert sorted(drawn(3, 10, 0, 5)) == [0, 1, 2]


def test_a_comparison_repeats() -> None:
    again = [compare("adding", ["gru", "lstm"], seeds=2, **TINY) for _ in range(2)]
    first, second = ([(run.network, run.seed, run.test) for run in found.runs] for found in again)
    assert first == second
    assert first[0][2] != first[2][2]  # two seeds of the GRU
    assert again[0].rows[0].test <= again[0].rows[1].test
    assert all(run.validation <= run.curve[0].score for run in again[0].runs)


def test_a_comparison_goes_on_where_it_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = compare("adding", ["gru"], seeds=1, out=tmp_path, **TINY)
    assert "squared error" in capsys.readouterr().err
    wider = compare("adding", ["gru", "elman"], seeds=2, out=tmp_path, **TINY)
    assert "1 of 4 runs are in" in capsys.readouterr().err
    assert wider.runs[0] == first.runs[0]
    assert len(wider.runs) == 4
    assert Comparison.read(tmp_path / "compare.json") == wider
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compare.json", "compare.md", "compare.png"]
    with pytest.raises(ConfigError, match=r"holds another comparison \(parameters: got 400, then 300\)"):
        compare("adding", ["gru"], out=tmp_path, **{**TINY, "parameters": 400})


def test_what_is_no_comparison_is_not_written_over(tmp_path: Path) -> None:
    for content in ("no", "{}", '{"settings": {}, "baselines": {}, "runs": [{"network": "gru"}]}'):
        (tmp_path / "compare.json").write_text(content)
        with pytest.raises(DataError, match=r"compare\.json: not a comparison"):
            compare("adding", ["gru"], out=tmp_path, **TINY)
        assert (tmp_path / "compare.json").read_text() == content


def run(network: str, rate: float, validation: float, test: float, *, seed: int = 0, diverged: bool = False) -> Run:
    return Run(network, rate, seed, 8, 300, validation, test, 10, 0.5, diverged, [])


@pytest.mark.parametrize("higher_is_better", [False, True])
def test_the_rate_is_chosen_on_validation_data_and_the_best_comes_first(higher_is_better: bool) -> None:
    settings = {"higher_is_better": higher_is_better}
    runs = [
        run("gru", 0.1, 1.0, 5.0),
        run("gru", 0.2, 2.0, 1.0),
        run("lstm", 0.1, 1.0, 4.0),
        run("lstm", 0.2, 2.0, 2.0),
    ]
    found = [(row.network, row.test) for row in Comparison(settings, {}, runs).rows]
    assert found == ([("lstm", 2.0), ("gru", 1.0)] if higher_is_better else [("lstm", 4.0), ("gru", 5.0)])


def test_the_table() -> None:
    settings = {"higher_is_better": False, "problem": "p", "seconds": 60.0, "steps": None, "threads": 1}
    settings |= {"parameters": 300, "batch_size": 32}
    runs = [run("gru", 0.1, 1.0, 2.0), run("gru", 0.1, 1.0, 4.0, seed=1, diverged=True)]
    found = Comparison(settings, {"the mean": 0.25}, runs)
    gru, mean = found.lines()
    assert dict(zip(COLUMNS, gru, strict=True)) == {
        **{"network": "gru", "hidden": "8", "parameters": "300", "test": "3", "spread": "2 to 4", "rate": "0.1"},
        **{"steps": "10", "ms a step": "50", "diverged": "1 of 2"},
    }
    assert mean == ("the mean", "", "", "0.25", "", "", "", "", "")
    text = found.markdown()
    assert "| gru | 8 | 300 | 3 | 2 to 4 | 0.1 | 10 | 50 | 1 of 2 |" in text
    assert "1 min 0 s of processor time for each run on 1 thread; about 300 parameters; 2 seeds, mean and" in text
    assert "learning rate 0.1; batches of 32" in text
    assert json.loads(found.json())["runs"][1]["diverged"] is True


@pytest.mark.parametrize(
    ("task", "options", "said"),
    [
        ("digits", {}, "data: digits needs a path (got none); the folder of MNIST's four idx files"),
        ("chorales", {}, "data: chorales needs a path"),
        ("adding", {"data": "x"}, "data: not for adding (got x)"),
        ("chorales", {"data": "x", "length": 30}, "length: not for chorales (got 30)"),
        ("adhding", {}, "task: unknown (got 'adhding'); adding, copy, digits, chorales, or a file"),
    ],
)
def test_problems_that_are_none(task: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        problem_named(task, **options)
    assert str(error.value).startswith(said)


def test_optimiser_and_clipping_are_settings(tmp_path: Path) -> None:
    tests = []
    for options in ({}, {"optimiser": "sgd"}, {"clip_norm": 1e-6, "optimiser": "sgd"}):
        found = compare("adding", ["gru"], seeds=1, **TINY, **options)  # type: ignore[arg-type]
        tests.append(found.runs[0].test)
    assert len(set(tests)) == 3
    assert "Sgd, one cycle, gradients clipped to norm 1e-06." in found.conditions
    with pytest.raises(ConfigError, match=r"optimiser: unknown \(got 'sgt'\); .*did you mean 'sgd'\?"):
        compare("adding", ["gru"], optimiser="sgt", **TINY)


def test_a_comparison_from_before_there_was_a_choice_goes_on(tmp_path: Path) -> None:
    compare("adding", ["gru"], seeds=1, out=tmp_path, **TINY)
    before = json.loads((tmp_path / "compare.json").read_text())
    del before["settings"]["optimiser"], before["settings"]["clip_norm"]
    (tmp_path / "compare.json").write_text(json.dumps(before))
    assert len(compare("adding", ["gru"], seeds=2, out=tmp_path, **TINY).runs) == 2
    with pytest.raises(ConfigError, match=r"holds another comparison \(optimiser: got 'sgd', then 'adam'\)"):
        compare("adding", ["gru"], seeds=2, out=tmp_path, optimiser="sgd", **TINY)
