"""What clipping does to gradients, by hand."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from carousel.cells import GRU, LEM, LSTM, QRNN, Elman, LayerNormLSTM, MinGRU, PeepholeLSTM, Readings, gauged
from carousel.errors import ConfigError
from carousel.nn import Recurrent, unroll
from carousel.training.clipping import CLIPPINGS, ClippedSteps, clipping_named, total_norm

I, H, B, T = 3, 4, 2, 6  # noqa: E741


def weights(*gradients: list[Any]) -> list[nn.Parameter]:
    found = []
    for gradient in gradients:
        grad = torch.tensor(gradient, dtype=torch.float64)
        found.append(nn.Parameter(torch.ones_like(grad)))
        found[-1].grad = grad
    return found


def clip(name: str, groups: list[list[nn.Parameter]], limit: float) -> tuple[float, list[list[Any]]]:
    share = clipping_named(name)(groups, total_norm(groups), limit)
    return share, [p.grad.tolist() for group in groups for p in group]


def test_by_norm_all_gradients_are_one_vector() -> None:
    share, (one, other) = clip("norm", [weights([3.0]), weights([0.0, 4.0])], 2.5)
    assert share == 1 and one == pytest.approx([1.5], rel=1e-5) and other == pytest.approx([0, 2], rel=1e-5)
    assert clip("norm", [weights([3.0]), weights([0.0, 4.0])], 5.5) == (0, [[3.0], [0.0, 4.0]])


def test_by_group_each_is_a_vector() -> None:
    share, (one, other) = clip("group-norm", [weights([3.0]), weights([0.0, 4.0])], 3.5)
    assert share == 0.5 and one == [3.0] and other == pytest.approx([0, 3.5], rel=1e-5)


def test_by_value_each_entry_is_cut() -> None:
    assert clip("value", [weights([3.0, -0.5]), weights([-9.0, 4.0])], 2.0) == (0.75, [[2.0, -0.5], [-2.0, 2.0]])


def test_adaptively_each_unit_is_held_to_its_weights() -> None:
    (matrix, vector, tiny), groups = weights([[3.0, 4.0], [0.06, 0.08]], [0.5, 0.0], [2.0]), []
    with torch.no_grad():
        matrix.copy_(torch.tensor([[6.0, 8.0], [6.0, 8.0]]))
        tiny.zero_()
    groups = [[matrix, vector], [tiny]]
    share, (of_matrix, of_vector, of_tiny) = clip("adaptive", groups, 0.1)
    assert share == 0.75  # all but the second row, whose gradient is a hundredth of its weights
    assert of_matrix[0] == pytest.approx([0.6, 0.8]) and of_matrix[1] == [0.06, 0.08]
    assert of_vector == pytest.approx([0.1 * 2**0.5, 0]) and of_tiny == pytest.approx([0.1 * 1e-3])


@pytest.mark.parametrize("name", CLIPPINGS)
def test_a_weight_without_gradient_is_left_alone(name: str) -> None:
    idle = nn.Parameter(torch.ones(2))
    share, _ = clip(name, [weights([1e-9])], 1.0)
    assert share == 0
    groups = [[*weights([5.0]), idle]]
    CLIPPINGS[name](groups, total_norm(groups), 0.1)
    assert idle.grad is None and groups[0][0].grad.abs().item() == pytest.approx(0.1, rel=1e-4)


def test_an_unknown_clipping_is_told() -> None:
    with pytest.raises(ConfigError, match=r"clipping: unknown \(got 'valeu'\); .*did you mean 'value'\?"):
        clipping_named("valeu")
    with pytest.raises(ConfigError, match=r"limit: cannot clip to it \(got 0 by 'norm'\)"):
        ClippedSteps(GRU(I, H), 0)


# --- at every step ----------------------------------------------------------------------------------------------------


def by_hand(cell: LSTM, inputs: Tensor, targets: Tensor, limit: float, by: str) -> tuple[list[Tensor], int]:
    """Backpropagation through time written out, with dL/dh_t and dL/dc_t clipped before each step."""
    states = [cell.State(*(f.double() for f in cell.initial_state(B)))]
    for x in inputs:
        states.append(cell.step(x, cell.State(*(f.detach().requires_grad_() for f in states[-1]))))
    sums = [torch.zeros_like(p) for p in cell.parameters()]
    dh, dc, acted = torch.zeros(B, H).double(), torch.zeros(B, H).double(), 0
    for t in reversed(range(T)):
        dh = dh + 2 * (states[t + 1].h.detach() - targets[t])
        clipped = []
        for d in (dh, dc):
            if by == "norm":
                factors = (limit / d.norm(dim=1, keepdim=True)).clamp(max=1)
                acted += int((factors < 1).sum())
                clipped.append(d * factors)
            else:
                acted += int((d.abs() > limit).any(1).sum())
                clipped.append(d.clamp(-limit, limit))
        before = cell.State(*(f.detach().requires_grad_() for f in states[t]))
        found = torch.autograd.grad(list(cell.step(inputs[t], before)), [*cell.parameters(), *before], clipped)
        sums = [s + g for s, g in zip(sums, found[:-2], strict=True)]
        dh, dc = found[-2:]
    return sums, acted


@pytest.mark.parametrize("by", ["norm", "value"])
@pytest.mark.parametrize("limit", [0.3, 2.0, 1e9])
def test_every_step_is_clipped_inside_the_backward_pass(limit: float, by: Any) -> None:
    torch.manual_seed(0)
    cell = LSTM(I, H).double()
    with torch.no_grad():
        cell.packed.weight_hidden.mul_(3)
    inputs, targets = torch.randn(T, B, I).double(), 2 * torch.randn(T, B, H).double()
    expected, acted = by_hand(cell, inputs, targets, limit, by)
    cell.zero_grad()
    wrapped = ClippedSteps(cell, limit, by)
    outputs, _ = Recurrent([wrapped])(inputs)
    (outputs - targets).square().sum().backward()
    torch.testing.assert_close([p.grad for p in cell.parameters()], expected)
    fields = 2 * T * B - B  # nothing comes into the last c
    assert wrapped.acted == pytest.approx(acted / fields) and (acted > 0) == (limit < 1e9)
    wrapped.reset_count()
    assert wrapped.acted == 0


CELLS: list[Any] = [Elman, LSTM, GRU, PeepholeLSTM, LayerNormLSTM, LEM, QRNN, MinGRU]


@pytest.mark.parametrize("make", CELLS, ids=lambda make: make.__name__)
@pytest.mark.parametrize(("limit", "by"), [(0.02, "norm"), (0.004, "value")])
@pytest.mark.parametrize(
    ("sizes", "lengths", "options"),
    [
        ((1, 1, 5), None, {}),
        ((7, 3, 17), [7, 2, 5], {}),
        ((5, 9, 32), None, {"layers": 2}),
        ((6, 4, 16), [1, 6, 3, 6], {"layers": 2, "bidirectional": True}),
    ],
)
def test_the_compiled_loop_clips_as_the_plain_one(
    make: Any, limit: float, by: Any, sizes: tuple[int, int, int], lengths: list[int] | None, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    (T, B, H), found = sizes, []
    plain = Recurrent(make, I, H, **options)
    cells, inputs, weights = list(plain.cells), torch.randn(T, B, I), torch.randn(T, B, plain.output_size) / B
    for engine, precise in (("compiled", False), ("eager", True)):
        clipped = [ClippedSteps(copy.deepcopy(cell), limit, by) for cell in cells]  # type: ignore[arg-type]
        network = Recurrent(clipped, bidirectional=plain.bidirectional, engine=engine)  # type: ignore[arg-type]
        reads, weigh = inputs.clone(), weights
        if precise:
            network, reads, weigh = network.double(), reads.double(), weigh.double()
        reads.requires_grad_()
        outputs, _ = network(reads, lengths=None if lengths is None else torch.tensor(lengths))
        (outputs * weigh).sum().backward()
        gradients = [reads.grad, *(p.grad for p in network.parameters())]
        found.append((gradients, [cell.acted for cell in clipped]))
    (got, acted), (exact, expected) = found
    for a, b in zip(got, exact, strict=True):
        assert float((a - b).abs().max()) <= 1e-6 * max(1.0, float(b.abs().max()))
    assert acted == pytest.approx(expected, abs=0.02) and any(acted)  # one on the edge of the limit may differ


def test_gates_may_be_clipped_before_their_sigmoids() -> None:
    """Graves 2013: any value of a step may have a gauge."""

    class ClippedGates(Elman):
        def __init__(self, input_size: int, hidden_size: int) -> None:
            super().__init__(input_size, hidden_size)
            self.readings = Readings(lambda reading: None)

        def step(self, x: Tensor, state: Any) -> Any:
            return self.State(torch.tanh(gauged(self.candidate(x, state.h), self.readings(x), 0.05, "value")))

    torch.manual_seed(0)
    cell, inputs, found = ClippedGates(I, H), torch.randn(T, B, I), []
    for engine in ("compiled", "eager"):
        outputs, _ = unroll(cell, inputs, engine=engine)  # type: ignore[arg-type]
        found.append(torch.autograd.grad(outputs.sum(), list(cell.parameters())))
    torch.testing.assert_close(*found)
    assert float(found[0][-1].abs().max()) <= 0.05 * T * B + 1e-6  # the bias, which gets all of them


def test_under_torch_compile_and_torch_func_steps_are_clipped_too() -> None:
    torch.manual_seed(0)
    network, inputs = Recurrent([ClippedSteps(LSTM(I, H), 0.05)]), torch.randn(T, B, I)
    names, weights = zip(*network.named_parameters(), strict=True)
    expected = torch.autograd.grad(network(inputs)[0].sum(), weights)

    def loss(weights: dict[str, Tensor]) -> Tensor:
        total: Tensor = functional_call(network, weights, (inputs,))[0].sum()
        return total

    by_func = torch.func.grad(loss)(dict(zip(names, weights, strict=True)))
    torch.testing.assert_close([by_func[name] for name in names], list(expected))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchDynamo's own imports
        compiled: Any = torch.compile(network, fullgraph=True, backend="aot_eager")
        got = torch.autograd.grad(compiled(inputs)[0].sum(), weights)
    torch._dynamo.reset()
    torch.testing.assert_close(list(got), list(expected))


def test_ragged_batches_and_layers_go_on_as_they_were() -> None:
    torch.manual_seed(0)
    plain = Recurrent("lstm", I, H, layers=2)
    wrapped = Recurrent([ClippedSteps(cell, 1e9) for cell in plain.cells])
    inputs, lengths = torch.randn(T, 3, I), torch.tensor([2, 6, 4])
    found = []
    for network in (plain, wrapped):
        plain.zero_grad()
        outputs, state = network(inputs, lengths=lengths)
        (outputs.square().sum() + state[0].c.sum()).backward()
        found.append((outputs, state, [p.grad for p in plain.parameters()]))
    torch.testing.assert_close(found[0], found[1])
    output, state = wrapped.step(inputs[0])
    torch.testing.assert_close(output, plain.step(inputs[0])[0])
