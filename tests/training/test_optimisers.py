"""Optimisers by name, in runs that are stopped and resumed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from carousel.errors import ConfigError, Interrupted
from carousel.training.clipping import CLIPPINGS
from carousel.training.optimisers import OPTIMISERS, optimiser_named

from .toy import Silent, standing, train


@pytest.mark.parametrize(
    "options",
    [*({"optimiser": name} for name in OPTIMISERS), {"optimiser": "sgd", "optimiser_options": {"momentum": 0.9}}]
    + [{"clipping": name, "clip_norm": 0.01} for name in CLIPPINGS]
    + [{"optimiser": "sgd", "average_after": 1}],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_resumed_run_has_the_same_bits(tmp_path: Path, options: dict[str, object]) -> None:
    options = {"weight_decay": 0.0, "epochs": 5, **options}
    train(tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        train(tmp_path / "run", watcher=Silent(14, [signal.SIGINT]), **options)
    train(tmp_path / "run", resume=True, **options)
    (tensors, facts), (same, as_well) = standing(tmp_path / "whole"), standing(tmp_path / "run")
    assert facts == as_well and tensors.keys() == same.keys()
    assert all(torch.equal(tensors[name], same[name]) for name in tensors)
    assert not torch.equal(tensors["model.first.weight"], torch.zeros(4, 4))


def test_the_log_says_how_often_clipping_acted(tmp_path: Path) -> None:
    shares = {}
    for name in CLIPPINGS:
        for limit in (1e-6, 1e6):
            train(tmp_path / f"{name}{limit}", clipping=name, clip_norm=limit)
            shares[name, limit] = standing(tmp_path / f"{name}{limit}")[1]["at"]["history"][-1]["clipped"]
    assert all(shares[name, 1e6] == 0 and shares[name, 1e-6] > 0.5 for name in CLIPPINGS)


def test_unknown_names_and_options_are_told() -> None:
    weights = [torch.zeros(1, requires_grad=True)]
    with pytest.raises(ConfigError, match=r"optimiser: unknown \(got 'adamm'\); .*did you mean 'adam'\?"):
        optimiser_named("adamm", weights)
    with pytest.raises(ConfigError, match=r"option of sgd: unknown \(got 'betas'\)"):
        optimiser_named("sgd", weights, betas=(0.9, 0.99))
    for name in OPTIMISERS:
        assert type(optimiser_named(name, weights)).__name__.lower() == name
