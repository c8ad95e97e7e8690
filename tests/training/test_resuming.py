"""A run with a carried state, dropout and shuffling ends with the same bits however often it is killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from carousel.errors import Interrupted, TrainingDiverged
from carousel.training import RunFolder, fit, loop

from .toy import PRELOADED, Silent, plan, standing
from .toy_stream import Babble

KILLS, EPOCHS = 20, 20


def train(folder: Path, *, resume: bool = False, watcher: Silent | None = None, **options: Any) -> None:
    run = RunFolder(folder)
    fit(Babble(run), plan(**options), run, watcher or Silent(), resume=resume)


def same_bits(one: Path, other: Path) -> None:
    (tensors, facts), (same, as_well) = standing(one), standing(other)
    assert facts == as_well and tensors.keys() == same.keys()
    assert all(torch.equal(tensors[name], same[name]) for name in tensors)
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def run_saving_always(folder: Path, resume: bool) -> None:
    torch.set_num_threads(1)  # the same bits need the same number
    os.nice(10)  # who is to kill it must not be late where the machine is busy
    loop.SAVE_EVERY = 0.0
    train(folder, resume=resume, epochs=EPOCHS)


def test_killed_twenty_times_at_random_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each child is killed a random while after it wrote its first checkpoint, whatever it is then doing."""
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(tmp_path / "whole", epochs=EPOCHS)
    torch.set_num_threads(threads)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    draw, run, moments = random.Random(0), RunFolder(tmp_path / "killed"), list[tuple[int, int]]()

    def version() -> int:
        return run.checkpoint.stat().st_mtime_ns if run.checkpoint.exists() else 0

    for _ in range(KILLS):
        child = context.Process(target=run_saving_always, args=(run.path, version() > 0))
        seen = version()
        child.start()
        for _ in range(draw.randrange(1, 4)):
            while child.is_alive() and version() == seen:
                time.sleep(0.001)
            seen = version()
        time.sleep(draw.uniform(0.0, 0.05))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL, "done too early: train for more epochs"
        at = standing(run.path)[1]["at"]
        moments.append((at["epoch"], at["step"]))
    last = context.Process(target=run_saving_always, args=(run.path, True))
    last.start()
    last.join()
    assert last.exitcode == 0
    assert moments == sorted(moments) and len(set(moments)) > KILLS / 2
    same_bits(tmp_path / "whole", run.path)


@pytest.mark.parametrize("at", [1, 2, 5, 9, 12])
def test_stopped_in_the_middle_of_sequences(tmp_path: Path, at: int) -> None:
    train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "run", watcher=Silent(at, [signal.SIGINT]))
    assert any(name.startswith("carried.") for name in standing(tmp_path / "run")[0])
    train(tmp_path / "run", resume=True)
    same_bits(tmp_path / "whole", tmp_path / "run")


def test_a_state_that_is_not_carried_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "run", watcher=Silent(5, [signal.SIGINT]))
    monkeypatch.setattr(Babble, "carry", lambda self, tensors: self.bptt.reset())
    train(tmp_path / "run", resume=True)
    with pytest.raises(AssertionError):
        same_bits(tmp_path / "whole", tmp_path / "run")


def test_a_loss_that_is_not_finite_names_its_batch(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(
        TrainingDiverged, match=r"epoch 2, step 3; first bad gradient: none\) on piece 2 of \["
    ) as caught:
        fit(Babble(run, poison=True), plan(), run, Silent())
    assert "\n" not in str(caught.value) and caught.value.exit_code == 1
    assert standing(run.path)[1]["at"]["epoch"] == 1
