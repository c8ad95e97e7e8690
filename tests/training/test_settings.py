"""Settings: where they come from, how they are shown, and how mistakes are told."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from carousel.errors import ConfigError
from carousel.tasks.task import TASKS, task_named
from carousel.training import TrainingConfig
from carousel.training.settings import commented, describe_settings, read_settings


def test_values_rule_over_words_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("epochs = 2\nseed = 3\npatience = 4\n")
    found = read_settings(TrainingConfig, tmp_path / "c.toml", ["epochs=5", "seed=6"], {"seed": 7})
    assert (found.epochs, found.seed, found.patience) == (5, 7, 4)


@pytest.mark.parametrize("name", TASKS)
def test_every_setting_of_every_task_says_what_it_is_and_is_read_again(name: str) -> None:
    kind = task_named(name).config
    assert [field for field, info in kind.model_fields.items() if not info.description] == []
    assert kind(**tomllib.loads(commented(kind()))) == kind()
    assert all(field in describe_settings(kind) for field in kind.model_fields)


def test_all_mistakes_are_told_at_once_with_their_places(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("epoch = 2\n")
    with pytest.raises(ConfigError) as error:
        read_settings(TrainingConfig, tmp_path / "c.toml", ["patience=0"])
    assert str(error.value).splitlines() == [
        "patience: not allowed (got 0); greater than or equal to 1; carousel train --settings lists them",
        f"{tmp_path / 'c.toml'}: epoch: no such setting (got 2); did you mean epochs?",
    ]
