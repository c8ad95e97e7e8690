"""The loop: what a step does, when it stops, and that an interrupted run ends with the bits of one left alone."""

from __future__ import annotations

import json
import math
import multiprocessing
import random
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.errors import ConfigError, Interrupted, ModelFileError, TrainingDiverged
from carousel.training import RunFolder, derived_seed, epoch_order, fit, loop, read_model_file
from carousel.training.schedule import one_cycle

from .toy import BATCH, EXAMPLES, PRELOADED, Network, Silent, Toy, plan, standing, train, without_seconds

STEPS = 3 * Toy.steps


def assert_same_run(one: Path, other: Path) -> None:
    """The two folders hold the same bits, but for the seconds."""
    (tensors, facts), (same, as_well) = standing(one), standing(other)
    assert facts == as_well
    assert tensors.keys() == same.keys() and all(torch.equal(tensors[name], same[name]) for name in tensors)
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert (one / "config.toml").read_bytes() == (other / "config.toml").read_bytes()
    logs = [
        [without_seconds(json.loads(line)) for line in (run / "log.jsonl").read_text().splitlines()]
        for run in (one, other)
    ]
    assert logs[0] == logs[1] and len(logs[0]) == facts["at"]["epoch"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder)
    return folder


# --- what training is -------------------------------------------------------------------------------------------------


def test_it_is_the_loop_of_the_docstring(whole: Path) -> None:
    toy = Toy(RunFolder(whole))
    model, average = toy.model, {}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    average = {name: p.detach().clone() for name, p in trained.items()}
    optimiser = torch.optim.AdamW(toy.parameter_groups(), weight_decay=0.01)
    losses, done = [], 0
    for epoch in range(3):
        model.train()
        total = 0.0
        for step in range(Toy.steps):
            for group, rate in zip(optimiser.param_groups, (0.05, 0.025), strict=True):
                group["lr"] = rate * one_cycle(done / STEPS)
            torch.manual_seed(derived_seed(0, "step", epoch, step))
            x = toy.x[epoch_order(EXAMPLES, 0, epoch)[step * BATCH : (step + 1) * BATCH]]
            loss = F.mse_loss(model(x), x.flip(1))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained.values(), 0.5)
            optimiser.step()
            done, total = done + 1, total + loss.item()
            decay = min(0.9, (1 + done) / (10 + done))
            for name, parameter in trained.items():
                average[name] = decay * average[name] + (1 - decay) * parameter.detach()
        losses.append(total / Toy.steps)
    tensors, facts = standing(whole)
    assert [record["loss"] for record in facts["at"]["history"]] == pytest.approx(losses)
    for name, parameter in trained.items():
        torch.testing.assert_close(tensors[f"model.{name}"], parameter.detach())
        torch.testing.assert_close(tensors[f"average.{name}"], average[name])


def test_the_model_that_is_kept_is_the_averaged_one(whole: Path) -> None:
    tensors, facts = standing(whole)
    model, _ = read_model_file(whole / "model.safetensors", "toy")
    assert facts["at"]["best_epoch"] == 3  # the last, so that model and checkpoint are of one moment
    assert torch.equal(model["first.weight"], tensors["average.first.weight"])
    assert not torch.equal(model["first.weight"], tensors["model.first.weight"])


def test_training_is_in_training_mode_whatever_the_model_was_in(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    toy = Toy(run)
    toy.model.eval()
    fit(toy, plan(), run, Silent())
    assert toy.modes == {True}


def test_the_same_seed_gives_the_same_bits_and_another_does_not(whole: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)
    train(tmp_path / "again")
    assert_same_run(whole, tmp_path / "again")
    train(tmp_path / "other", seed=1)
    assert not torch.equal(
        standing(whole)[0]["model.first.weight"], standing(tmp_path / "other")[0]["model.first.weight"]
    )


def test_the_callers_random_numbers_are_not_disturbed(tmp_path: Path) -> None:
    before, of_python = torch.get_rng_state(), random.getstate()
    train(tmp_path / "run")
    with pytest.raises(Interrupted):
        train(tmp_path / "other", watcher=Silent(2, [signal.SIGINT]))
    assert torch.equal(torch.get_rng_state(), before) and random.getstate() == of_python


def test_progress_counts_up_and_records_say_which_was_best(tmp_path: Path) -> None:
    run, watcher = RunFolder(tmp_path / "run"), Silent()
    toy = Toy(run, objectives=[1.0, 3.0, 3.0])
    history = fit(toy, plan(), run, watcher)
    assert [(p.epoch, p.step) for p in watcher.progress] == [(e, s) for e in (1, 2, 3) for s in (1, 2, 3, 4)]
    assert all((p.steps, p.epochs) == (4, 3) and p.rate > 0 for p in watcher.progress)
    assert watcher.progress[-1].left == 0 < watcher.progress[0].left
    assert [best for _, best in watcher.records] == [True, True, False]
    assert [record for record, _ in watcher.records] == history
    assert history == [json.loads(line) for line in run.log.read_text().splitlines()]
    assert [set(record) for record in history] == [{"epoch", "loss", "clipped", "error", "objective", "seconds"}] * 3
    assert all(0 < record["clipped"] <= 1 for record in history)  # the norm is cut at .5
    assert [scores["objective"] for scores in toy.saved] == [1.0, 3.0]


# --- when it stops ----------------------------------------------------------------------------------------------------


def test_it_stops_when_patience_ends_and_resuming_adds_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    toy = Toy(run, objectives=[1, 2, 1.5, 2.0, 9])
    assert len(fit(toy, plan(epochs=9, patience=2), run, Silent())) == 4
    assert [scores["objective"] for scores in toy.saved] == [1, 2]
    before = run.checkpoint.read_bytes()
    again = Toy(run, objectives=[9])
    assert len(fit(again, plan(epochs=9, patience=2), run, Silent(), resume=True)) == 4
    assert not again.modes and not again.saved and run.checkpoint.read_bytes() == before


def spoil(value: float) -> object:
    def poison(epoch: int, step: int, mean: Tensor, bias: nn.Parameter) -> Tensor:
        return mean * value if (epoch, step) == (1, 2) else mean

    return poison


def spoil_gradient(epoch: int, step: int, mean: Tensor, bias: nn.Parameter) -> Tensor:
    return mean + (bias - bias.detach()).sum().sqrt() if (epoch, step) == (1, 2) else mean


@pytest.mark.parametrize(
    ("poison", "what"),
    [
        (spoil(math.nan), r"the loss is not finite \(got nan in epoch 2, step 3; first bad gradient: none\)"),
        (spoil(math.inf), r"the loss is not finite \(got inf in epoch 2, step 3; first bad gradient: none\)"),
        (spoil_gradient, r"the gradient is not finite \(got inf in epoch 2, step 3; first bad gradient: first.bias\)"),
    ],
)
def test_a_value_that_is_not_finite_stops_before_the_update(tmp_path: Path, poison: object, what: str) -> None:
    run, watcher, weights = RunFolder(tmp_path / "run"), Silent(), []
    toy = Toy(run, poison=poison)
    watcher.stepped = lambda progress: weights.append(toy.model.first.weight.detach().clone())
    with pytest.raises(TrainingDiverged, match=what):
        fit(toy, plan(), run, watcher)
    assert len(weights) == 6 and torch.equal(toy.model.first.weight, weights[-1])
    tensors, facts = standing(run.path)  # of the end of epoch 1
    assert (facts["at"]["epoch"], facts["at"]["step"]) == (1, 0)
    assert torch.equal(tensors["model.first.weight"], weights[3])
    toy = Toy(run)
    assert len(fit(toy, plan(), run, Silent(), resume=True)) == 3  # once mended, it goes on from there


def test_an_absurd_learning_rate_is_told(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(TrainingDiverged, match=r"try a smaller learning_rate or clip_norm$"):
        fit(Toy(run, rate=1e38), plan(epochs=5, averaging=0.0), run, Silent())
    assert standing(run.path)[1]["at"]["epoch"] == 0  # "the last checkpoint stands": there is one from the beginning


# --- interrupted and resumed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", range(1, STEPS + 1))
def test_stopped_by_a_signal_and_resumed(whole: Path, tmp_path: Path, at: int, number: signal.Signals) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    watcher = Silent(at, [number])
    with pytest.raises(Interrupted, match=r"the same command with --resume goes on$"):
        train(tmp_path / "run", watcher=watcher)
    assert len(watcher.progress) == at  # the step was finished, no other begun
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    train(tmp_path / "run", resume=True)
    assert_same_run(whole, tmp_path / "run")


def test_stopped_again_and_again(whole: Path, tmp_path: Path) -> None:
    for i in range(6):
        with pytest.raises(Interrupted):
            train(tmp_path / "run", resume=i > 0, watcher=Silent(2, [signal.SIGINT]))
    train(tmp_path / "run", resume=True)
    assert_same_run(whole, tmp_path / "run")


def test_stopped_while_validating(whole: Path, tmp_path: Path) -> None:
    class Validating(Toy):
        def validate(self) -> dict[str, float]:
            signal.raise_signal(signal.SIGTERM)
            return super().validate()

    run = RunFolder(tmp_path / "run")
    with pytest.raises(Interrupted, match="stopped in epoch 2 after step 0"):
        fit(Validating(run), plan(), run, Silent())
    train(run.path, resume=True)
    assert_same_run(whole, run.path)


def test_a_second_signal_acts_at_once(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let their background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run", watcher=Silent(3, [signal.SIGINT, signal.SIGINT]))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_it_runs_outside_the_main_thread(whole: Path, tmp_path: Path) -> None:
    thread = threading.Thread(target=train, args=(tmp_path / "run",))
    thread.start()
    thread.join()
    assert_same_run(whole, tmp_path / "run")


def test_a_finished_run_stays_as_it_is(whole: Path, tmp_path: Path) -> None:
    train(tmp_path / "run")
    train(tmp_path / "run", resume=True)
    assert_same_run(whole, tmp_path / "run")


def run_saving_always(folder: Path, resume: bool) -> None:
    torch.set_num_threads(1)  # the same bits need the same number
    loop.SAVE_EVERY = 0.0
    train(folder, resume=resume, epochs=8)


def test_killed_at_random_moments_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    began, threads = time.monotonic(), torch.get_num_threads()
    torch.set_num_threads(1)
    train(tmp_path / "whole", epochs=8)
    torch.set_num_threads(threads)
    takes = time.monotonic() - began
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    draw, run, kills = random.Random(0), RunFolder(tmp_path / "killed"), 0
    for _ in range(100):
        child = context.Process(target=run_saving_always, args=(run.path, run.checkpoint.exists()))
        child.start()
        child.join(draw.uniform(0.0, 0.5) * takes + 0.05 if kills < 8 else None)
        child.kill()
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        kills += 1
    assert kills >= 1
    assert_same_run(tmp_path / "whole", run.path)
    assert not list(run.path.glob(".*.tmp"))


def test_killed_between_the_first_model_and_its_checkpoint(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    run = RunFolder(tmp_path / "run")

    def save(self: Toy, scores: object, plain=Toy.save) -> None:  # type: ignore[no-untyped-def]
        plain(self, scores)
        raise Killed

    monkeypatch.setattr(Toy, "save", save)
    with pytest.raises(Killed):
        train(run.path)
    assert run.model.exists()
    monkeypatch.undo()
    train(run.path, resume=True)
    assert_same_run(whole, run.path)


# --- what may not be resumed ------------------------------------------------------------------------------------------


def test_changed_settings_are_refused_and_change_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(folder, watcher=Silent(2, [signal.SIGINT]))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for settings, message in (
        ({"epochs": 3, "rate": 0.1}, r"run: rate is not what the run began with \(got 0.1, then 0.05\)"),
        ({"epochs": 4, "rate": 0.05}, r"epochs is not what the run began with \(got 4, then 3\)"),
        ({"epochs": 3}, r"rate is not what the run began with \(got None, then 0.05\)"),
        ({"epochs": 3, "rate": 0.05, "added": 1}, r"added is not what the run began with \(got 1, then None\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(folder, resume=True, settings=settings)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "run", epochs=1)
    run = RunFolder(tmp_path / "run")
    toy = Toy(run)
    toy.model = Network()
    toy.model.first = nn.Linear(4, 2)
    with pytest.raises(ModelFileError, match=r"last.ckpt.safetensors: does not fit .*first.weight"):
        fit(toy, plan(epochs=1), run, Silent(), resume=True)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "run", epochs=1)
    checkpoint = RunFolder(tmp_path / "run").checkpoint
    data = bytearray(checkpoint.read_bytes())
    data[-1] ^= 1
    checkpoint.write_bytes(data)
    with pytest.raises(ModelFileError, match="damaged"):
        train(tmp_path / "run", epochs=1, resume=True)
