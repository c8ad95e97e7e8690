"""What "auto" makes of recurrences: they stay compiled, and multiply bfloat16 numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from carousel.compiler import objects
from carousel.nn import Recurrent
from carousel.training import Loss, Plan, RunFolder, autocast, fit, precision, recurrences_compiled

from .toy import Silent


class Learns:
    """A recurrence between two linear maps; `dtypes` are those of the last step's products and of the recurrence."""

    objective, steps = "objective", 2

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.ModuleDict({"first": nn.Linear(3, 4), "recurrent": Recurrent("lstm", 4, 5)})
        self.dtypes: tuple[torch.dtype, torch.dtype] | None = None

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters()), "lr": 0.1}]

    def loss(self, epoch: int, step: int) -> Loss:
        first = self.model["first"](torch.randn(6, 2, 3))
        outputs: Tensor = self.model["recurrent"](first, lengths=torch.tensor([6, 4]))[0]
        self.dtypes = first.dtype, outputs.dtype
        mean = outputs.float().square().mean()
        return Loss(mean, mean.item(), 1)

    def validate(self) -> dict[str, float]:
        return {"objective": 0.0}

    def save(self, scores: Any) -> None: ...


@pytest.mark.parametrize(
    ("mode", "pays", "product", "loops"),
    [
        ("auto", True, torch.bfloat16, ["compiled"]),
        ("auto", False, torch.float32, ["compiled"]),
        ("on", True, torch.bfloat16, ["autocast"]),
        ("off", True, torch.float32, ["compiled"]),
    ],
)
def test_auto_keeps_recurrences_compiled(
    mode: Any, pays: bool, product: torch.dtype, loops: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "bfloat16_pays", lambda: pays)
    task, cast = Learns(), set[bool]()
    run = type(task.model["recurrent"]).forward
    watched = lambda *given, **named: (cast.add(torch.is_autocast_enabled("cpu")), run(*given, **named))[1]  # noqa: E731
    monkeypatch.setattr(Recurrent, "forward", watched)
    plan = Plan(epochs=1, objective="objective", mixed_precision=mode)
    fit(task, plan, RunFolder(tmp_path / "run"), Silent())
    assert task.dtypes is not None and task.dtypes[0] == product
    assert cast == {loops == ["autocast"]}
    assert "forward" not in vars(task.model["recurrent"])


def test_a_state_and_inputs_of_less_precision_are_taken() -> None:
    network, inputs = Recurrent("lstm", 3, 4), torch.randn(5, 2, 3).bfloat16()
    exact, _ = network(inputs.float())
    with precision.narrow_products():
        expected, state = network(inputs.float())
    assert torch.equal(exact, network(inputs.float())[0])  # as it was before
    with recurrences_compiled(network, "auto"), autocast("on"):
        outputs, _ = network(inputs)
        again, _ = network(inputs, tuple(type(s)(*(f.bfloat16() for f in s)) for s in state))
    assert torch.equal(outputs, expected) and again.dtype == torch.float32
    assert torch.equal(outputs, exact) is not objects.processor().has_bfloat16


def test_an_error_leaves_the_network_as_it_was() -> None:
    network = Recurrent("gru", 3, 4)
    with pytest.raises(ZeroDivisionError), recurrences_compiled(network, "auto"):
        raise ZeroDivisionError
    assert "forward" not in vars(network)
