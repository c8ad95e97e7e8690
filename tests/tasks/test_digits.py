"""Sequential digits, from idx files made here."""

from pathlib import Path

import pytest
import torch
from mnist_files import write_mnist

from carousel.errors import DataError
from carousel.tasks import digits
from carousel.tasks.digits import Digits


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "VALIDATION", 8)


def test_a_pixel_is_the_mean_of_four_row_by_row(few: None, tmp_path: Path) -> None:
    made = write_mnist(tmp_path, train=20, test=6)
    problem = Digits(tmp_path)
    [test] = problem.held_out("test")
    assert test.inputs.shape == (196, 6, 1)
    images, labels = made["t10k"]
    wanted = images.float().reshape(6, 14, 2, 14, 2).mean((2, 4)) / 255
    torch.testing.assert_close(test.inputs[:, :, 0].t().reshape(6, 14, 14), wanted)
    assert torch.equal(test.targets, labels.long())
    whole = Digits(tmp_path, side=28).held_out("test")[0].inputs[:, :, 0]
    torch.testing.assert_close(whole.t().reshape(6, 28, 28), images.float() / 255)


def test_validation_is_kept_out_of_training(few: None, tmp_path: Path) -> None:
    labels = write_mnist(tmp_path, train=20, test=6)["train"][1].long()
    problem = Digits(tmp_path, batch_size=4)
    [validation] = problem.held_out("val")
    assert torch.equal(validation.targets, labels[12:])
    epoch = torch.cat([problem.batch(seed=0, step=step).inputs.sum(0)[:, 0] for step in range(3)])
    expected = problem.images.sum(0)
    torch.testing.assert_close(epoch.sort().values, expected.sort().values)  # each of the twelve once


def test_the_score_and_its_baseline(few: None, tmp_path: Path) -> None:
    write_mnist(tmp_path, train=20, test=6)
    problem = Digits(tmp_path)
    [test] = problem.held_out("test")
    right = torch.nn.functional.one_hot(test.targets, 10).float()
    assert problem.measure(right, test) == (600.0, 6)
    commonest = problem.labels.mode().values
    assert problem.baselines()["the commonest digit"] == pytest.approx(
        100 * float((test.targets == commonest).float().mean())
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no train-images-idx3-ubyte in it"):
        Digits(tmp_path)


@pytest.mark.data
def test_the_published_files(data_root: Path) -> None:
    problem = Digits(data_root / "mnist")
    assert problem.images.shape == (196, 58_000)
    assert sum(len(held.targets) for held in problem.held_out("test")) == 10_000
    assert problem.baselines()["the commonest digit"] == pytest.approx(11.35)  # 1,135 ones
