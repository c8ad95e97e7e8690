"""What a run leaves, and whose folder it may use."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from carousel.errors import ConfigError, ModelFileError
from carousel.training import RunFolder

SETTINGS = {"cell": "lstm", "dropout": 0.5, "small": 1e-05, "epochs": 3, "flips": True, "name": 'Ätna "1"\\\n'}


def test_settings_are_toml(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "first")
    run.begin(SETTINGS, resume=False)
    assert tomllib.loads(run.config.read_text()) == SETTINGS


def test_the_log_is_one_object_a_line(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_log([{"epoch": 1}, {"epoch": 2, "loss": 0.25}])
    assert [json.loads(line) for line in run.log.read_text().splitlines()] == [{"epoch": 1}, {"epoch": 2, "loss": 0.25}]


@pytest.mark.parametrize("kind", ["model", "checkpoint"])
def test_another_run_is_not_overwritten(tmp_path: Path, kind: str) -> None:
    run = RunFolder(tmp_path)
    getattr(run, kind).write_bytes(b"precious")
    with pytest.raises(
        ConfigError, match=r"holds a run already; a new folder, or --resume; choose another with --run$"
    ):
        run.begin(SETTINGS, resume=False)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"precious"]


def test_nothing_to_resume(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"run: nothing to resume \(got no last.ckpt.safetensors\); .*omit --resume$"):
        run.begin(SETTINGS, resume=True)
    assert not run.path.exists()


def test_resuming_keeps_the_settings_and_sweeps_what_a_kill_left(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(SETTINGS, resume=False)
    run.checkpoint.touch()
    (tmp_path / ".model.safetensors.abc.tmp").touch()
    (tmp_path / "notes.tmp").touch()
    run.begin({"cell": "gru"}, resume=True)
    assert tomllib.loads(run.config.read_text()) == SETTINGS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml", "last.ckpt.safetensors", "notes.tmp"]


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ModelFileError, match="cannot be written"):
            RunFolder(path).begin(SETTINGS, resume=False)
