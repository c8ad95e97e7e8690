"""Every cell of the registry passes every check; every check catches a cell that is broken in its way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from cell_registry import CASES, Case
from torch import Tensor, nn

import carousel
from carousel.cells import GRU, LSTM, BatchNormLSTM, Cell, MinGRU, Packed
from carousel.errors import CheckFailed, ConfigError
from carousel.nn import check_cell, contract, directions, unroll
from carousel.nn.check import Check, Checks
from carousel.nn.unroll import Layout

NAMES = [holds.__name__ for holds in contract.CONTRACT]


def checks_of(case: Case) -> Checks:
    return check_cell(case.make, 3, 5, parameters=case.parameters, **case.options)


@pytest.mark.parametrize(
    ("case", "check"),
    [pytest.param(case, check, id=f"{case.name}-{check}") for case in CASES for check in checks_of(case)],
)
def test_every_cell_of_the_registry(case: Case, check: Check) -> None:
    if check.name in case.fails:
        with pytest.raises(CheckFailed, match=f"^{check.name}: "):
            check()
        return
    concerned, note = check.run()
    expected = {"compiled": case.compiled, "scan": case.cell().has_scan}
    assert concerned == expected.get(check.name, True), note


class Leaky(Cell):
    """A cell that is right; each of those below is wrong in one line."""

    class State(NamedTuple):
        h: Tensor
        m: Tensor

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.update, self.candidate = self.packed = Packed(input_size, hidden_size, maps=2)

    def new(self, x: Tensor, state: Any) -> Tensor:
        z = torch.sigmoid(self.update(x, state.h))
        return z * state.m + (1 - z) * torch.tanh(self.candidate(x, state.h))

    def step(self, x: Tensor, state: Any) -> Any:
        m = self.new(x, state)
        return self.State(0.5 * m + 0.5 * state.h, m)


class Unnamed(Leaky):
    def step(self, x: Tensor, state: Any) -> Any:
        return tuple(super().step(x, state))


class Narrow(Leaky):
    def step(self, x: Tensor, state: Any) -> Any:
        return self.State(*(field[:, :1] for field in super().step(x, state)))


class WrongOrder(Leaky):
    """A state whose first field is not the output."""

    @property
    def output_size(self) -> int:
        return 2 * self.hidden_size


class Anywhere(Leaky):
    """Begins at random."""

    def initial_state(self, batch: int, **options: Any) -> Any:
        return self.State(*(torch.rand_like(field) for field in super().initial_state(batch, **options)))


class Nameless(Leaky):
    class State(tuple[Tensor, ...]):  # type: ignore[assignment]
        def __new__(cls, *fields: Tensor) -> Any:
            return super().__new__(cls, fields)

    def initial_state(self, batch: int, **options: Any) -> Any:
        zeros = torch.zeros(batch, self.hidden_size, dtype=torch.float64)
        return self.State(zeros, zeros)


class AlwaysDouble(Leaky):
    def initial_state(self, batch: int, **options: Any) -> Any:
        return super().initial_state(batch, device=options.get("device"), dtype=torch.float64)


class OnOneDevice(Leaky):
    def initial_state(self, batch: int, **options: Any) -> Any:
        return super().initial_state(batch, dtype=options.get("dtype"))


class InPlace(Leaky):
    def step(self, x: Tensor, state: Any) -> Any:
        with torch.no_grad():
            state.m.mul_(0.9)
        return super().step(x, state)


class WritesInput(Leaky):
    def step(self, x: Tensor, state: Any) -> Any:
        x.data.clamp_(-0.1, 0.1)
        return super().step(x, state)


class Counting(Leaky):
    """Keeps something beside its state."""

    calls = 0

    def step(self, x: Tensor, state: Any) -> Any:
        self.calls += 1
        return self.State(*(field / self.calls for field in super().step(x, state)))


class Random(Leaky):
    def step(self, x: Tensor, state: Any) -> Any:
        return super().step(x + torch.rand_like(x), state)


class Remembering(Leaky):
    """Keeps in the cell what belongs in the state, from one initial state to the next."""

    def initial_state(self, batch: int, **options: Any) -> Any:
        self.sum = 0.0
        return super().initial_state(batch, **options)

    def step(self, x: Tensor, state: Any) -> Any:
        self.sum += float(x.detach().mean())
        return self.State(*(field + self.sum for field in super().step(x, state)))


class Detached(Leaky):
    def step(self, x: Tensor, state: Any) -> Any:
        return super().step(x, state._replace(m=state.m.detach()))


class WithoutGradient(Leaky):
    @torch.no_grad()
    def step(self, x: Tensor, state: Any) -> Any:
        return super().step(x, state)


class WrongBackward(Leaky):
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Tensor) -> Tensor:
            return a.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
            return 2 * grad

    def step(self, x: Tensor, state: Any) -> Any:
        h, m = super().step(x, state)
        return self.State(self.Doubled.apply(h), m)


class Centred(Leaky):
    """A mean over the batch: rows leak."""

    def step(self, x: Tensor, state: Any) -> Any:
        return super().step(x - x.mean(0), state)


class Averaged(Leaky):
    """Depends on how many sequences there are, not on what they are."""

    def step(self, x: Tensor, state: Any) -> Any:
        return super().step(x / x.shape[0], state)


class Neighbour(Leaky):
    """Reads the sequence beside it, with a weight of zero: only NaN shows it."""

    def step(self, x: Tensor, state: Any) -> Any:
        return super().step(x + 0 * x.roll(1, 0), state)


class BeginsAnywhere(Leaky):
    """An initial state that says how many sequences there are."""

    def initial_state(self, batch: int, **options: Any) -> Any:
        return self.State(*(field + batch for field in super().initial_state(batch, **options)))


class Unsaved(Leaky):
    """A weight that is neither parameter nor buffer."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.scale = torch.rand(hidden_size)

    def step(self, x: Tensor, state: Any) -> Any:
        h, m = super().step(x, state)
        return self.State(h * self.scale.to(h), m)


class Bound(Leaky):
    """A function bound to the cell it was made in."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.function = lambda x, state: Leaky.new(self, x, state)

    def new(self, x: Tensor, state: Any) -> Tensor:
        return self.function(x, state)


class Overflowing(Leaky):
    def step(self, x: Tensor, state: Any) -> Any:
        e = torch.exp(self.update(x, state.h))
        return self.State(e / (1 + e), state.m)


class InfiniteSlope(Leaky):
    """Finite where it counts, and differentiated where it is not taken."""

    def step(self, x: Tensor, state: Any) -> Any:
        a = self.update(x, state.h)
        return self.State(torch.tanh(torch.where(a > 20, a, torch.log1p(torch.exp(a)))), state.m)


class Impatient(Cell):
    """Makes its weights before its sizes are known to be sizes."""

    State = Leaky.State

    def __init__(self, input_size: int, hidden_size: int) -> None:
        nn.Module.__init__(self)
        self.input_size, self.hidden_size = input_size, hidden_size
        self.linear = nn.Linear(input_size + hidden_size, hidden_size)

    def step(self, x: Tensor, state: Any) -> Any:
        m = torch.tanh(self.linear(torch.cat([x, state.h], 1)))
        return self.State(m, m)


class LateScan(MinGRU):
    """A scan that leaves the state before the first step out."""

    def scan(self, inputs: Tensor, state: Any) -> Any:
        return super().scan(inputs, self.State(torch.zeros_like(state.h)))


class WrongEnd(MinGRU):
    def scan_to(self, inputs: Tensor, state: Any, last: Tensor | None = None) -> Any:
        return super().scan_to(inputs, state)


class NotCausal(MinGRU):
    def scan(self, inputs: Tensor, state: Any) -> Any:
        return super().scan(inputs - inputs.mean(0), state)


BROKEN: list[tuple[type[Cell], str, str]] = [
    (Unnamed, "shapes", "step returns no state (got tuple)"),
    (Narrow, "shapes", "the state changes its form"),
    (WrongOrder, "shapes", "the first field is not the output (got (1, 4)); (1, 8)"),
    (Anywhere, "state", "is not that of a batch of one"),
    (Nameless, "state", "the state has no names (got State)"),
    (AlwaysDouble, "state", "initial_state has another type (got torch.float64)"),
    (OnOneDevice, "state", "initial_state is elsewhere (got cpu)"),
    (InPlace, "pure", "step changes m"),
    (WritesInput, "pure", "step changes x"),
    (Counting, "pure", "h is not that of the call before"),
    (Random, "pure", "h is not that of the call before"),
    (Counting, "steps", "is not that of the plain loop"),
    (Counting, "shortest", "the output is not that of step"),
    (Remembering, "pieces", "the output is not that of the whole"),
    (Detached, "gradients", "the gradient of inputs is wrong"),
    (WithoutGradient, "gradients", "a gradient is wrong"),
    (WrongBackward, "gradients", "the gradient of inputs is wrong"),
    (Centred, "padding", "is not that of each sequence alone"),
    (BeginsAnywhere, "state", "is not that of a batch of one"),
    (Centred, "rows", "is not that of each sequence alone"),
    (Averaged, "rows", "is not that of each sequence alone"),
    (Neighbour, "rows", "is not that beside another sequence"),
    (Unsaved, "saving", "the output is not that before saving"),
    (Bound, "copying", "a copy does not read its weights"),
    (Overflowing, "saturation", "is not finite for inputs of 10000 (got nan)"),
    (InfiniteSlope, "saturation", "is not finite for inputs of 10000"),
    (Impatient, "errors", "an input size of 0: no error"),
    (LateScan, "scan", "is not that of the loop"),
    (WrongEnd, "scan", "the final h is not that of each sequence alone"),
    (NotCausal, "scan", "is not that of the loop"),
]


def named(checks: Checks, name: str) -> Check:
    return next(check for check in checks if check.name == name)


@pytest.mark.parametrize("check", check_cell(Leaky), ids=str)
def test_a_right_cell_passes(check: Check) -> None:
    check()


@pytest.mark.filterwarnings("ignore:.*runs eagerly")
@pytest.mark.parametrize(("cell", "name", "says"), BROKEN, ids=[f"{cell.__name__}-{name}" for cell, name, _ in BROKEN])
def test_a_broken_cell_is_caught(cell: type[Cell], name: str, says: str) -> None:
    with pytest.raises(CheckFailed) as caught:
        named(check_cell(cell), name)()
    message = str(caught.value)
    assert message.startswith(f"{name}: ") and says in message and "\n" not in message
    assert " (got " in message and message.count("; ") >= 2


def caught_by(name: str, cell: Any = Leaky, **options: Any) -> str:
    check = named(check_cell(cell, **options), name)
    with pytest.raises(CheckFailed) as caught:
        check()
    return str(caught.value)


def test_every_check_has_caught_something() -> None:
    elsewhere = {"parameters", "compiled", "bidirectional"}  # below
    assert {name for _, name, _ in BROKEN} | elsewhere == set(NAMES)


def test_another_number_of_parameters_is_caught() -> None:
    formula = lambda i, h: 2 * h * (i + h)  # noqa: E731  without the biases
    assert caught_by("parameters", parameters=formula) == (
        "parameters: another number of parameters at (3, 4) (got 64); 56; see named_parameters()"
    )
    assert "at (3, 8) (got 192); 184" in caught_by("parameters", parameters=lambda i, h: 2 * h * (i + h) + 8)
    assert "(got 64); 65" in caught_by("parameters", parameters=65)
    assert named(check_cell(Leaky, parameters=64), "parameters").run() == (True, "64")
    assert named(check_cell(Leaky), "parameters").run() == (False, "64; no formula given")


@pytest.mark.parametrize(("factor", "what"), [(1 + 1e-4, "the output"), (1.0, "the gradient of inputs")])
def test_a_compiled_loop_that_is_wrong_is_caught(monkeypatch: pytest.MonkeyPatch, factor: float, what: str) -> None:
    def wrong(cell: Cell, inputs: Tensor, *arguments: Any, engine: Any) -> Any:
        if engine == "compiled":  # the values, or the gradients alone
            inputs = inputs if factor != 1 else inputs * 1.001 - inputs.detach() * 0.001
        outputs, state = unroll(cell, inputs, *arguments, engine=engine)
        return outputs * (factor if engine == "compiled" else 1.0), state

    monkeypatch.setattr(contract, "unroll", wrong)
    assert caught_by("compiled").startswith(f"compiled: {what} is not that of the plain loop")


def test_a_cell_that_is_not_compiled_says_why() -> None:
    class Sinus(Leaky):
        def step(self, x: Tensor, state: Any) -> Any:
            return super().step(x, state._replace(m=torch.sin(state.m)))

    concerned, note = named(check_cell(Sinus), "compiled").run()
    assert not concerned and note.startswith("runs eagerly: ") and "sin" in note


def test_padding_turned_around_with_its_sequence_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_padding(layout: Layout, device: torch.device) -> Any:
        return lambda packed: layout.pack(layout.unpack(packed).flip(0))

    monkeypatch.setattr(directions, "reversal", with_padding)
    assert "is not that of the reversed run" in caught_by("bidirectional")


def test_sequences_left_out_of_order_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Layout, "restore", lambda self, state: state)
    assert "the final h is not that of each sequence alone" in caught_by("padding")


def test_a_sequence_that_runs_on_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Layout.of
    monkeypatch.setattr(Layout, "of", lambda inputs, lengths: full(inputs, None))
    assert "the output is not that of each sequence alone (got nan off)" in caught_by("padding")


def test_a_cell_that_raises_is_one_line_with_its_cause() -> None:
    class Failing(Leaky):
        def step(self, x: Tensor, state: Any) -> Any:
            return super().step(x[:, :2], state)

    check = check_cell(Failing)[0]
    with pytest.raises(CheckFailed, match=r"^shapes: it raises \(got RuntimeError: .*\); Outputs are .*") as caught:
        check()
    assert isinstance(caught.value, AssertionError) and isinstance(caught.value.__cause__, RuntimeError)
    assert "\n" not in str(caught.value)


def test_sequences_that_know_of_each_other_in_training_only() -> None:
    cell = BatchNormLSTM(3, 4, longest=10)
    assert "is not that of each sequence alone" in caught_by("rows", cell)
    assert "FAILED" not in check_cell(cell.eval()).report()


def test_a_ready_made_cell_is_copied_and_brings_its_sizes() -> None:
    cell = LSTM(2, 6)
    before = {name: value.clone() for name, value in cell.state_dict().items()}
    for check in check_cell(cell, parameters=lambda i, h: 4 * h * (i + h + 1)):
        check()
    assert cell.state_dict().keys() == before.keys() and cell.packed.bias is not None
    assert all(torch.equal(value, before[name]) for name, value in cell.state_dict().items())
    assert cell.packed.bias.dtype == torch.float32 and cell.packed.bias.grad is None


def test_by_name_by_class_and_by_function_are_one() -> None:
    for kind in ("gru", GRU, lambda i, h: GRU(i, h)):
        assert named(check_cell(kind, 2, 5), "parameters").run() == (False, "120; no formula given")
    assert named(check_cell("gru", 2, 5, bias=False), "parameters").run() == (False, "105; no formula given")


def test_the_numbers_drawn_by_others_are_left_alone() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    check_cell("gru")[0]()
    assert torch.equal(torch.rand(1), wanted)


def test_the_report_has_a_line_for_each() -> None:
    first, *lines = carousel.check_cell(Neighbour).report().split("\n")
    assert first == f"1 of {len(NAMES)} checks failed"
    verdicts = {line.split()[0]: line.split()[1] for line in lines}
    assert list(verdicts) == NAMES
    bad = {"rows": "FAILED", "compiled": "--", "scan": "--", "parameters": "--"}  # the compiler will not have it
    assert verdicts == dict.fromkeys(NAMES, "ok") | bad
    assert "  rows           FAILED  the output is not that beside another sequence (got nan off)" in "\n".join(lines)
    assert carousel.check_cell("mingru").report().startswith(f"none of {len(NAMES)} checks failed\n  shapes         ok")


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        (5, {}, "cell: not a cell (got int); a Cell, a class of them or a name; see carousel.cells.CELLS"),
        ("ltsm", {}, "cell: unknown (got 'ltsm'); "),
        (GRU(3, 4), {"bias": False}, "bias: ready-made cells take no options (got False); none; set it on the cell"),
    ],
)
def test_what_is_no_cell_is_refused(cell: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_cell(cell, **options)
    assert str(caught.value).startswith(message)


def test_the_page_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs/nn/check.md").read_text(encoding="utf-8")
    code, shown = re.findall(r"```(?:python)?\n(.*?)```", page, re.DOTALL)[:2]
    exec(compile(code, "check.md", "exec"), {"__name__": "check"})
    assert capsys.readouterr().out == shown
    assert set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)))) == set(NAMES)
