"""Every cell that the cross-cutting tests run: a new cell is one line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from carousel.cells import (
    GRU,
    IRNN,
    LEM,
    LRU,
    LSTM,
    LSTM1997,
    MGU,
    MLSTM,
    MRNN,
    MUT1,
    MUT2,
    MUT3,
    QRNN,
    SLSTM,
    SRU,
    UGRNN,
    Antisymmetric,
    Cell,
    Clockwork,
    CoRNN,
    CoupledLSTM,
    Elman,
    FullGateLSTM,
    GatedAntisymmetric,
    IndRNN,
    Jordan,
    LayerNormGRU,
    LayerNormLSTM,
    MinGRU,
    MinLSTM,
    MultiplicativeLSTM,
    NoForgetGateLSTM,
    NoInputActivationLSTM,
    NoInputGateLSTM,
    NoOutputActivationLSTM,
    NoOutputGateLSTM,
    Packed,
    PeepholeLSTM,
    ProjectedLSTM,
    ResetAfterGRU,
)


class Highway(Cell):
    """A cell from outside: reads x beside its maps, unpacks its state, has two blocks, a parameter and a layer norm."""

    class State(NamedTuple):
        h: Tensor
        m: Tensor

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.first, self.second = self.block = Packed(input_size, hidden_size, maps=2)
        (self.third,) = self.other_block = Packed(input_size, hidden_size, maps=1, bias=False)
        self.peephole = nn.Parameter(torch.randn(hidden_size))
        self.norm = nn.LayerNorm(hidden_size)

    def recurrent_weights(self) -> Iterator[Tensor]:
        yield from super().recurrent_weights()
        yield self.peephole

    def step(self, x: Tensor, state: State) -> State:
        h, m = state
        m = torch.tanh(self.first(x, m) + self.peephole * h)
        gate = torch.sigmoid(self.second(x, state.h) + self.third(2 * x, h))
        return self.State(self.norm(gate * m) + x.mean(dim=1, keepdim=True), m)


class Branching(Cell):
    """A cell that cannot be traced, and whose sequences know of each other."""

    class State(NamedTuple):
        h: Tensor

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.high, self.low = self.packed = Packed(input_size, hidden_size, maps=2)

    def step(self, x: Tensor, state: State) -> State:
        affine = self.high if float(x.detach().sum()) > 0 else self.low
        return self.State(torch.tanh(affine(x, state.h)))


def as_it_is(state: Any) -> Any:
    return state


def unscaled(state: Any) -> Any:
    """The memory and the normaliser themselves, which sLSTM and mLSTM keep as multiples of exp(m)."""
    scale, memory = state.m.exp(), state._fields[1]
    of_memory = scale.view(*scale.shape, *[1] * (state[1].dim() - scale.dim()))
    of_normaliser = scale.view(*scale.shape, *[1] * (state.n.dim() - scale.dim()))
    scaled = {memory: state[1] * of_memory, "n": state.n * of_normaliser, "m": torch.zeros_like(scale)}
    return state._replace(**scaled)


def with_some_due(state: Any) -> Any:
    """At a time at which every second unit of a clockwork network is due."""
    return state._replace(clock=torch.arange(state.clock.shape[1]).expand_as(state.clock) % 2)


@dataclass(frozen=True)
class Case:
    """A cell to test, how many parameters it has, and the module of torch.nn that it should equal, if there is one.

    `check_cell` holds it to all that holds for cells; a cell that breaks a rule by design `fails` the checks named.
    Without its recurrent weights, each is a feed-forward unit, see `test_cell`, which looks at what `carried` makes of
    the state; None where it is none, for a reason to be given in its line.
    """

    name: str
    make: Callable[..., Cell]
    parameters: Callable[[int, int], int]  # of I and H
    options: dict[str, Any]
    torch_module: type[nn.RNNBase] | None = None
    torch_options: dict[str, Any] | None = None
    traceable: bool = True
    compiled: bool = True  # whether the compiler knows all of its operations
    carried: Callable[[Any], Any] | None = as_it_is
    fails: tuple[str, ...] = ()

    def cell(self, input_size: int = 3, hidden_size: int = 4, seed: int = 0) -> Cell:
        """A new cell in float64, its weights drawn from the seed."""
        torch.manual_seed(seed)
        return self.make(input_size, hidden_size, **self.options).double()

    def in_torch(self, layers: int = 1, **options: Any) -> nn.RNNBase:
        assert self.torch_module is not None
        torch.manual_seed(0)
        options = (self.torch_options or {}) | options
        return self.torch_module(3, 4, num_layers=layers, **options).double()


CASES = [
    Case("elman-tanh", Elman, lambda i, h: h * (i + h + 1), {}, nn.RNN),
    Case("elman-relu", Elman, lambda i, h: h * (i + h + 1), {"activation": "relu"}, nn.RNN, {"nonlinearity": "relu"}),
    Case("elman-no-bias", Elman, lambda i, h: h * (i + h), {"bias": False}, nn.RNN, {"bias": False}),
    Case("elman-sigmoid", Elman, lambda i, h: h * (i + h + 1), {"activation": "sigmoid"}),
    Case("elman-function", Elman, lambda i, h: h * (i + h + 1), {"activation": lambda a: a / (1 + a.abs())}),
    Case("elman-module", Elman, lambda i, h: h * (i + h + 1), {"activation": nn.SELU()}, compiled=False),
    Case("irnn", IRNN, lambda i, h: h * (i + h + 1), {"scale": 0.5}),
    Case("jordan", Jordan, lambda i, h: h * (i + h + 1) + h * (h + 1), {}),
    Case(
        "jordan-wide",
        Jordan,
        lambda i, h: h * (i + 6 + 1) + 6 * (h + 1),
        {"output_size": 6, "output_activation": "sigmoid"},
    ),
    Case("jordan-no-bias", Jordan, lambda i, h: h * (i + h) + h * h, {"activation": "softsign", "bias": False}),
    Case("indrnn", IndRNN, lambda i, h: h * (i + 2), {}),
    Case("indrnn-no-bias", IndRNN, lambda i, h: h * (i + 1), {"activation": "tanh", "longest": 5, "bias": False}),
    Case("mrnn", MRNN, lambda i, h: h * (i + h) + h * (i + h + 1), {}),
    Case("mrnn-factors", MRNN, lambda i, h: 2 * (i + h) + h * (i + 2), {"factor_size": 2, "bias": False}),
    Case("lstm", LSTM, lambda i, h: 4 * h * (i + h + 1), {}, nn.LSTM),
    Case("lstm-no-bias", LSTM, lambda i, h: 4 * h * (i + h), {"bias": False}, nn.LSTM, {"bias": False}),
    Case(
        "lstm-projected",
        ProjectedLSTM,
        lambda i, h: 4 * h * (i + 2 + 1) + 2 * h,
        {"projection_size": 2},
        nn.LSTM,
        {"proj_size": 2},
    ),
    Case("lstm-1997", LSTM1997, lambda i, h: 3 * h * (i + h + 1), {}),
    Case("lstm-peephole", PeepholeLSTM, lambda i, h: 4 * h * (i + h + 1) + 3 * h, {}),
    Case("lstm-peephole-no-bias", PeepholeLSTM, lambda i, h: 4 * h * (i + h) + 3 * h, {"bias": False}),
    Case("lstm-nig", NoInputGateLSTM, lambda i, h: 3 * h * (i + h + 1) + 2 * h, {}),
    Case("lstm-nfg", NoForgetGateLSTM, lambda i, h: 3 * h * (i + h + 1) + 2 * h, {}),
    Case("lstm-nog", NoOutputGateLSTM, lambda i, h: 3 * h * (i + h + 1) + 2 * h, {}),
    Case("lstm-niaf", NoInputActivationLSTM, lambda i, h: 4 * h * (i + h + 1) + 3 * h, {}),
    Case("lstm-noaf", NoOutputActivationLSTM, lambda i, h: 4 * h * (i + h + 1) + 3 * h, {}),
    Case("lstm-cifg", CoupledLSTM, lambda i, h: 3 * h * (i + h + 1) + 2 * h, {}),
    Case("lstm-fgr", FullGateLSTM, lambda i, h: 4 * h * (i + h + 1) + 3 * h + 9 * h * h, {}),
    Case(
        "lstm-layer-norm", LayerNormLSTM, lambda i, h: 4 * h * (i + h + 1) + 18 * h, {"epsilon": 0.1}
    ),  # with less, gradients at x = 0 are in the thousands
    Case(
        "lstm-layer-norm-no-bias", LayerNormLSTM, lambda i, h: 4 * h * (i + h) + 9 * h, {"epsilon": 0.1, "bias": False}
    ),
    Case("lstm-multiplicative", MultiplicativeLSTM, lambda i, h: h * (i + h) + 4 * h * (i + h + 1), {}),
    Case("slstm", SLSTM, lambda i, h: 4 * h * (i + h + 1), {}, carried=unscaled),
    Case(
        "mlstm", MLSTM, lambda i, h: 4 * h * (i + 1) + 2 * (i + 1), {"chunk": 4}, compiled=False, carried=unscaled
    ),  # matrices in its state
    Case("slstm-exp", SLSTM, lambda i, h: 4 * h * (i + h), {"forget": "exp", "bias": False}, carried=unscaled),
    Case("gru", GRU, lambda i, h: 3 * h * (i + h + 1), {}),
    Case("gru-no-bias", GRU, lambda i, h: 3 * h * (i + h), {"bias": False}),
    Case("gru-reset-after", ResetAfterGRU, lambda i, h: 3 * h * (i + h + 1) + h, {}, nn.GRU),
    Case(
        "gru-reset-after-no-bias", ResetAfterGRU, lambda i, h: 3 * h * (i + h), {"bias": False}, nn.GRU, {"bias": False}
    ),
    Case("gru-layer-norm", LayerNormGRU, lambda i, h: 3 * h * (i + h) + 12 * h, {}),
    Case("gru-layer-norm-no-bias", LayerNormGRU, lambda i, h: 3 * h * (i + h) + 6 * h, {"bias": False}),
    Case("mgu", MGU, lambda i, h: 2 * h * (i + h + 1), {}),
    Case("mut1", MUT1, lambda i, h: h * (i + 1) + h * (i + h + 1) + h * (h + 1) + h * i * (i != h), {}),
    Case("mut1-no-bias", MUT1, lambda i, h: h * i + h * (i + h) + h * h + h * i * (i != h), {"bias": False}),
    Case("mut2", MUT2, lambda i, h: 2 * h * (i + h + 1) + h * (h + 1) + h * i * (i != h), {}),
    Case("mut2-no-bias", MUT2, lambda i, h: 2 * h * (i + h) + h * h + h * i * (i != h), {"bias": False}),
    Case("mut3", MUT3, lambda i, h: 3 * h * (i + h + 1), {}),
    Case("ugrnn", UGRNN, lambda i, h: 2 * h * (i + h + 1), {}),
    Case("ugrnn-relu", UGRNN, lambda i, h: 2 * h * (i + h), {"activation": "relu", "bias": False}),
    Case("mingru", MinGRU, lambda i, h: 2 * h * (i + 1), {}),
    Case("mingru-positive", MinGRU, lambda i, h: 2 * h * i, {"positive": True, "bias": False}),
    Case("minlstm", MinLSTM, lambda i, h: 3 * h * (i + 1), {}),
    Case("minlstm-positive", MinLSTM, lambda i, h: 3 * h * (i + 1), {"positive": True}),
    Case(
        "antisymmetric", Antisymmetric, lambda i, h: h * (i + 1) + h * h, {}, carried=None
    ),  # what diffuses is not through a weight, and is squashed; below without
    Case(
        "antisymmetric-no-diffusion",
        Antisymmetric,
        lambda i, h: h * i + h * h,
        {"step_size": 0.5, "diffusion": 0.0, "bias": False},
    ),
    Case("antisymmetric-gated", GatedAntisymmetric, lambda i, h: 2 * h * (i + 1) + h * h, {}, carried=None),  # as above
    Case(
        "antisymmetric-gated-no-diffusion",
        GatedAntisymmetric,
        lambda i, h: 2 * h * (i + 1) + h * h,
        {"step_size": 0.5, "diffusion": 0.0},
    ),
    Case("cornn", CoRNN, lambda i, h: h * (i + h + 1) + h * h, {"time_step": 0.25, "frequency": 1.0, "damping": 1.0}),
    Case("lem", LEM, lambda i, h: 4 * h * (i + h + 1), {}),
    Case("lem-small-steps", LEM, lambda i, h: 4 * h * (i + h), {"time_step": 0.25, "bias": False}),
    Case("clockwork", Clockwork, lambda i, h: h * (i + h + 1), {"periods": (1, 2, 3)}, carried=with_some_due),
    Case("sru", SRU, lambda i, h: 2 * h * (i + 2) + h * i * (1 + (i != h)), {}),
    Case(
        "sru-gates-of-the-input",
        SRU,
        lambda i, h: 2 * h * (i + 1) + h * i * (1 + (i != h)),
        {"recurrent_gates": False, "highway_bias": -1.0},
    ),
    Case("qrnn-f", QRNN, lambda i, h: 2 * h * 2 * i, {"pooling": "f", "bias": False}),
    Case("qrnn-fo", QRNN, lambda i, h: 3 * h * (2 * i + 1), {}),
    Case("qrnn-ifo", QRNN, lambda i, h: 4 * h * (2 * i + 1), {"pooling": "ifo"}),
    Case("lru", LRU, lambda i, h: 3 * h * i + 2 * h * h + 3 * h, {}),
    Case("lru-narrow", LRU, lambda i, h: 4 * i + 4 * h + h * i + 6, {"state_size": 2, "r_min": 0.5, "r_max": 0.9}),
    Case("highway", Highway, lambda i, h: 2 * h * (i + h + 1) + h * (i + h) + 3 * h, {}),
    Case(
        "branching",
        Branching,
        lambda i, h: 2 * h * (i + h + 1),
        {},
        traceable=False,
        compiled=False,
        fails=("padding", "rows"),
    ),
]

every_cell = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_torch_cell = pytest.mark.parametrize(
    "case", [case for case in CASES if case.torch_module], ids=lambda case: case.name
)


def random_state(cell: Cell, batch: int) -> Any:
    """A state that is not zero and wants a gradient."""
    drawn = {name: torch.randn_like(field) for name, field in cell.initial_state(batch)._asdict().items()}
    if "n" in drawn:  # a normaliser, by which is divided
        drawn["n"] = 1 + drawn["n"].abs()
    return cell.State(*(field.requires_grad_() for field in drawn.values()))


def arrays(cell: Cell) -> dict[str, Any]:
    """The weights by name, for equations written with NumPy."""
    return {name: parameter.detach().numpy() for name, parameter in cell.named_parameters()}


def gradients(results: list[Tensor], of: list[Tensor]) -> list[Tensor]:
    """The gradients of a fixed random weighting of the results."""
    generator = torch.Generator().manual_seed(7)
    loss = sum((r * torch.randn(r.shape, generator=generator, dtype=r.dtype)).sum() for r in results)
    found = torch.autograd.grad(loss, of, retain_graph=True, allow_unused=True)  # type: ignore[arg-type]
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, of, strict=True)]


def assert_same(got: list[Tensor], wanted: list[Tensor], tolerance: float = 1e-12) -> None:
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def plain_loop(cell: Cell, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
    """What `unroll` equals."""
    outputs = []
    for x in inputs:
        state = cell.step(x, state)
        outputs.append(state[0])
    return torch.stack(outputs), state


def ragged_inputs(lengths: Tensor, size: int = 3, fill: float = 0.0) -> Tensor:
    """Random inputs (T, B, size) with `fill` in the padding, wanting a gradient."""
    torch.manual_seed(3)
    inputs = torch.randn(int(lengths.max()), len(lengths), size, dtype=torch.float64)
    inputs[torch.arange(len(inputs))[:, None] >= lengths] = fill
    return inputs.requires_grad_()
