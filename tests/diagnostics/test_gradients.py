"""Gradients by time lag, where they are known and against a plain loop."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from cell_registry import CASES, Case
from torch import nn

from carousel.cells import LSTM, Elman
from carousel.compiler import known
from carousel.compiler.operands import Recurrence as Compilable
from carousel.diagnostics import gauged_flow, gauges, gauging, gradient_flow, observing
from carousel.errors import ConfigError
from carousel.nn import Dilated, Recurrent


def linear_network(r: float, H: int = 8) -> Recurrent:
    """h_t = W x_t + r Q h_{t-1} with Q orthogonal: dL/dh_{t-k} = (r Qᵀ)^k dL/dh_t."""
    cell = Elman(3, H, activation="identity").double()
    with torch.no_grad():
        cell.packed.weight_hidden.copy_(r * torch.linalg.qr(torch.randn(H, H, dtype=torch.double))[0])
    return Recurrent([cell])


@pytest.mark.parametrize("r", [0.5, 0.9, 1.0, 1.1])
def test_a_linear_network_has_the_powers_of_its_radius(r: float) -> None:
    lengths = torch.tensor([12, 30, 21])
    inputs = torch.randn(30, 3, 3, dtype=torch.double)
    network = linear_network(r)
    flow = gradient_flow(network, {"inputs": inputs, "lengths": lengths})[0, "h"]
    expected = r ** torch.arange(30, dtype=torch.double)
    assert torch.allclose(flow.shares().double(), expected, rtol=1e-5)
    assert flow.last.tolist() == [11, 29, 20]
    assert not flow.norms[12:, 0].any() and flow.by_lag()[12:, 0].isnan().all()
    assert flow.reach(0.01) == next((k for k in range(30) if r**k < 0.01), None)


@pytest.mark.parametrize("case", [case for case in CASES if case.traceable], ids=lambda case: case.name)
def test_gradients_are_those_of_the_plain_loop(case: Case) -> None:
    cell, inputs, lengths = case.cell(), torch.randn(5, 3, case.cell().input_size).double(), torch.tensor([2, 5, 4])
    flow = gradient_flow(Recurrent([cell]), {"inputs": inputs, "lengths": lengths})
    for b, length in enumerate(lengths.tolist()):
        state, states = cell.initial_state(1), []
        for x in inputs[:length, b : b + 1].requires_grad_():
            state = cell.step(x, cell.State(*(f if f.requires_grad else f.detach().requires_grad_() for f in state)))
            states.append(state)
        loss = state[0].square().sum() / 2
        for name in cell.State._fields:
            fields = [getattr(state, name) for state in states]
            gradients = [
                None if not f.requires_grad else torch.autograd.grad(loss, f, retain_graph=True, allow_unused=True)[0]
                for f in fields
            ]
            norms = torch.stack([torch.zeros(()) if g is None else g.float().norm() for g in gradients])
            assert torch.allclose(flow[0, name].norms[:length, b], norms, rtol=1e-4, atol=1e-9), name


def test_every_layer_and_direction_is_seen_and_outputs_are_the_same() -> None:
    network = Recurrent("lstm", 3, 4, layers=2, bidirectional=True, batch_first=True)
    inputs, lengths = torch.randn(3, 6, 3), torch.tensor([6, 2, 4])
    expected, end = network(inputs, lengths=lengths)
    names = set(network.state_dict())
    with observing(network) as layers:
        outputs, state = network(inputs, lengths=lengths)
    assert torch.allclose(outputs, expected, atol=1e-6)
    assert torch.allclose(state[1].forward.c, end[1].forward.c, atol=1e-6)
    assert [layer.name for layer in layers] == [f"layer {k} {way}" for k in (1, 2) for way in ("forward", "backward")]
    assert all(layer.lengths.tolist() == [6, 2, 4] for layer in layers)
    assert set(network.state_dict()) == names


def test_parameters_that_are_frozen_and_gradients_that_are_there_stay() -> None:
    network = Recurrent("gru", 3, 4)
    for weight in network.parameters():
        weight.requires_grad_(False)
    with torch.no_grad():
        flow = gradient_flow(network, torch.randn(5, 2, 3))[0, "h"]
    assert (flow.norms > 0).all()
    assert all(weight.grad is None for weight in network.parameters())


def test_lag_counts_from_the_last_step_that_the_loss_reads() -> None:
    network = linear_network(0.5)
    flow = gradient_flow(network, torch.randn(9, 2, 3).double(), lambda answer: answer[0][4].sum())[0, "h"]
    assert flow.last.tolist() == [4, 4]
    assert torch.allclose(flow.shares(), 0.5 ** torch.arange(5.0), rtol=1e-5)
    assert torch.allclose(flow.by_step()[:5], flow.norms[:5].mean(1))
    assert not flow.by_step()[5:].any()


def test_an_lstm_that_forgets_nothing_carries_its_error_for_ever() -> None:
    cell = LSTM(3, 4)
    with torch.no_grad():
        cell.packed.weight_hidden.zero_()
        cell.forget.b.fill_(40.0)
    flow = gradient_flow(Recurrent([cell]), torch.randn(200, 2, 3), lambda answer: answer[1][0].c.sum())
    assert torch.allclose(flow[0, "c"].shares(), torch.ones(200), atol=1e-4)
    assert flow[0, "c"].reach() is None is flow.reach()
    assert flow[0, "h"].reach() == 0  # no h is read by anyone


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network, self.readout = Recurrent("gru", 3, 4), nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.readout(self.network(inputs)[0][-1])
        return answer


def test_the_network_may_be_inside_a_model() -> None:
    flow = gradient_flow(Classifier(), torch.randn(7, 2, 3), lambda logits: logits.logsumexp(1).sum())
    assert flow.flows[0].norms.shape == (7, 2) and (flow.flows[0].norms > 0).all()


@pytest.mark.parametrize(
    ("model", "loss", "line"),
    [
        (nn.Linear(3, 4), lambda out: out.sum(), "model: has no recurrent network (got Linear)"),
        (Classifier(), None, "loss: none (got a Classifier)"),
        (Classifier(), lambda out: out, "loss: no gradient (got shape (2, 2), requires_grad=True)"),
        (nn.Sequential(nn.Identity(), nn.ModuleDict()), lambda out: out.sum(), "model: has no recurrent network"),
    ],
)
def test_what_cannot_be_looked_at_is_said(model: nn.Module, loss: object, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        gradient_flow(model, torch.randn(5, 2, 3), loss)  # type: ignore[arg-type]
    assert str(error.value).startswith(line)


def test_a_network_that_runs_twice_is_refused() -> None:
    network = Recurrent("gru", 3, 3)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = network(network(inputs)[0])[0]
            return answer

    with pytest.raises(ConfigError, match="ran 2 times"):
        gradient_flow(Twice(), torch.randn(5, 2, 3), lambda out: out.sum())


@pytest.mark.parametrize(
    "options",
    [
        {"dilation": 3},
        {"input_dropout": 0.5, "state_dropout": 0.5},
        {"weight_dropout": 0.5},
        {"zoneout": 0.3, "learn_start": True},
        {"layers": 2, "skip": "residual", "input_size": 4},
        {"candidate_dropout": 0.2},
    ],
    ids=lambda options: " ".join(options),
)
def test_networks_of_all_shapes_run_as_they_are(options: dict[str, object]) -> None:
    network = Recurrent("lstm", hidden_size=4, **({"input_size": 3} | options)).eval()  # type: ignore[arg-type]
    inputs, lengths = torch.randn(7, 3, network.input_size), torch.tensor([7, 2, 5])
    expected, end = network(inputs, lengths=lengths)
    with observing(network) as layers:
        outputs, state = network(inputs, lengths=lengths)
    assert torch.allclose(outputs, expected, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(state[-1], end[-1], strict=True))
    assert layers[0].fields == ("h", "c") and layers[0].states("h").shape == (7, 3, 4)
    flow = gradient_flow(network.train(), {"inputs": inputs, "lengths": lengths})
    assert flow.flows[-1].last.tolist() == (lengths - 1).tolist()
    assert all(float(one.shares()[one.first]) == 1 for one in flow.flows)


def test_dilation_reaches_as_many_times_as_far() -> None:
    network = Recurrent([Dilated(linear_network(0.5).cells[0], 4)])
    flow = gradient_flow(network, torch.randn(17, 2, 3).double())[0, "h"]
    assert torch.allclose(flow.shares()[::4], 0.5 ** torch.arange(5.0))
    assert flow.shares().count_nonzero() == 5


@pytest.mark.parametrize("name", ["elman", "lstm", "gru", "lstm-peephole", "lstm-projected", "lem", "qrnn", "mingru"])
@pytest.mark.parametrize(
    ("sizes", "lengths", "options"),
    [
        ((1, 1, 5), None, {}),
        ((7, 3, 17), [7, 2, 5], {}),
        ((6, 4, 16), [1, 6, 3, 6], {"layers": 2, "bidirectional": True}),
        ((5, 2, 8), None, {"layers": 2, "dilation": 2, "zoneout": 0.1}),
    ],
)
def test_compiled_loops_read_what_the_plain_loop_has(
    name: str, sizes: tuple[int, int, int], lengths: list[int] | None, options: dict[str, Any]
) -> None:
    (T, B, H), found = sizes, []
    network = Recurrent(name, 3, H, **options).eval()
    inputs, given = torch.randn(T, B, 3), None if lengths is None else torch.tensor(lengths)
    for twin, reads in ((network, inputs), (copy.deepcopy(network).double(), inputs.double())):
        found.append(gradient_flow(twin, {"inputs": reads, "lengths": given}))
    assert [(flow.layer, flow.field) for flow in found[0].flows] == [(f.layer, f.field) for f in found[1].flows]
    for got, exact in zip(found[0].flows, found[1].flows, strict=True):
        assert float((got.norms - exact.norms).abs().max()) <= 1e-6 * max(1.0, float(exact.norms.max()))
        assert torch.equal(got.last, exact.last)
    # What has a field that is the input itself goes step by step.
    assert name == "qrnn" or compilable_cells(network) == len(network.cells)


def compilable_cells(network: Recurrent) -> int:
    """How many of them had their gradients read in the compiled loop."""
    return sum(isinstance(known(one.compiled).recurrence, Compilable) for one in gauges._MADE[network])


def test_norms_come_with_the_gradients_of_a_training_step() -> None:
    network = Recurrent("lstm", 3, 4, layers=2)
    inputs, found = torch.randn(9, 2, 3), []
    expected = torch.autograd.grad(network(inputs)[0].square().sum(), list(network.parameters()))
    for _ in range(2):  # the second time with the wrappers of the first
        network.zero_grad()
        with gauging(network) as read:
            loss = network(inputs)[0].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close([weight.grad for weight in network.parameters()], list(expected))
        found.append(gauged_flow(read, loss))
    alone = gradient_flow(network, inputs, lambda answer: answer[0].square().sum())
    for one in found:
        assert all(torch.equal(a.norms, b.norms) for a, b in zip(one.flows, alone.flows, strict=True))
    assert all(type(cell) is LSTM for cell in network.cells)


@pytest.mark.parametrize("engine", ["auto", "eager", "scan"])
def test_every_engine_has_norms(engine: Any) -> None:
    network = Recurrent("mingru", 3, 4, engine=engine)
    flow = gradient_flow(network, torch.randn(9, 2, 3))
    assert network.engine == engine and (flow[0, "h"].norms > 0).all()
