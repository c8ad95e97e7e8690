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
    """A cell that cannot be traced."""

    class State(NamedTuple):
        h: Tensor

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.high, self.low = self.packed = Packed(input_size, hidden_size, maps=2)

    def step(self, x: Tensor, state: State) -> State:
        affine = self.high if float(x.detach().sum()) > 0 else self.low
        return self.State(torch.tanh(affine(x, state.h)))


@dataclass(frozen=True)
class Case:
    """A cell to test, and the module of torch.nn that it should equal, if there is one.

    Without its recurrent weights, each is a feed-forward unit, see `test_cell`; `feed_forward=False` if not, for a
    reason to be given in its line.
    """

    name: str
    make: Callable[..., Cell]
    options: dict[str, Any]
    torch_module: type[nn.RNNBase] | None = None
    torch_options: dict[str, Any] | None = None
    traceable: bool = True
    compiled: bool = True  # whether the compiler knows all of its operations
    feed_forward: bool = True

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
    Case("elman-tanh", Elman, {}, nn.RNN),
    Case("elman-relu", Elman, {"activation": "relu"}, nn.RNN, {"nonlinearity": "relu"}),
    Case("elman-no-bias", Elman, {"bias": False}, nn.RNN, {"bias": False}),
    Case("elman-sigmoid", Elman, {"activation": "sigmoid"}),
    Case("elman-function", Elman, {"activation": lambda a: a / (1 + a.abs())}),
    Case("elman-module", Elman, {"activation": nn.SELU()}, compiled=False),
    Case("irnn", IRNN, {"scale": 0.5}),
    Case("jordan", Jordan, {}),
    Case("jordan-wide", Jordan, {"output_size": 6, "output_activation": "sigmoid"}),
    Case("jordan-no-bias", Jordan, {"activation": "softsign", "bias": False}),
    Case("indrnn", IndRNN, {}),
    Case("indrnn-no-bias", IndRNN, {"activation": "tanh", "longest": 5, "bias": False}),
    Case("mrnn", MRNN, {}),
    Case("mrnn-factors", MRNN, {"factor_size": 2, "bias": False}),
    Case("lstm", LSTM, {}, nn.LSTM),
    Case("lstm-no-bias", LSTM, {"bias": False}, nn.LSTM, {"bias": False}),
    Case("lstm-projected", ProjectedLSTM, {"projection_size": 2}, nn.LSTM, {"proj_size": 2}),
    Case("lstm-1997", LSTM1997, {}),
    Case("lstm-peephole", PeepholeLSTM, {}),
    Case("lstm-peephole-no-bias", PeepholeLSTM, {"bias": False}),
    Case("lstm-nig", NoInputGateLSTM, {}),
    Case("lstm-nfg", NoForgetGateLSTM, {}),
    Case("lstm-nog", NoOutputGateLSTM, {}),
    Case("lstm-niaf", NoInputActivationLSTM, {}),
    Case("lstm-noaf", NoOutputActivationLSTM, {}),
    Case("lstm-cifg", CoupledLSTM, {}),
    Case("lstm-fgr", FullGateLSTM, {}),
    Case("lstm-layer-norm", LayerNormLSTM, {"epsilon": 0.1}),  # with less, gradients at x = 0 are in the thousands
    Case("lstm-layer-norm-no-bias", LayerNormLSTM, {"epsilon": 0.1, "bias": False}),
    Case("lstm-multiplicative", MultiplicativeLSTM, {}),
    Case("slstm", SLSTM, {}, feed_forward=False),  # its stabiliser is a maximum, and not affine in the one before
    Case("mlstm", MLSTM, {"chunk": 4}, compiled=False, feed_forward=False),  # matrices in its state; its stabiliser
    Case("slstm-exp", SLSTM, {"forget": "exp", "bias": False}, feed_forward=False),
    Case("gru", GRU, {}),
    Case("gru-no-bias", GRU, {"bias": False}),
    Case("gru-reset-after", ResetAfterGRU, {}, nn.GRU),
    Case("gru-reset-after-no-bias", ResetAfterGRU, {"bias": False}, nn.GRU, {"bias": False}),
    Case("gru-layer-norm", LayerNormGRU, {}),
    Case("gru-layer-norm-no-bias", LayerNormGRU, {"bias": False}),
    Case("mgu", MGU, {}),
    Case("mut1", MUT1, {}),
    Case("mut1-no-bias", MUT1, {"bias": False}),
    Case("mut2", MUT2, {}),
    Case("mut2-no-bias", MUT2, {"bias": False}),
    Case("mut3", MUT3, {}),
    Case("ugrnn", UGRNN, {}),
    Case("ugrnn-relu", UGRNN, {"activation": "relu", "bias": False}),
    Case("mingru", MinGRU, {}),
    Case("mingru-positive", MinGRU, {"positive": True, "bias": False}),
    Case("minlstm", MinLSTM, {}),
    Case("minlstm-positive", MinLSTM, {"positive": True}),
    Case("antisymmetric", Antisymmetric, {}, feed_forward=False),  # what diffuses is not through a weight
    Case("antisymmetric-no-diffusion", Antisymmetric, {"step_size": 0.5, "diffusion": 0.0, "bias": False}),
    Case("antisymmetric-gated", GatedAntisymmetric, {}, feed_forward=False),  # as above
    Case("antisymmetric-gated-no-diffusion", GatedAntisymmetric, {"step_size": 0.5, "diffusion": 0.0}),
    Case("cornn", CoRNN, {"time_step": 0.25, "frequency": 1.0, "damping": 1.0}),
    Case("lem", LEM, {}),
    Case("lem-small-steps", LEM, {"time_step": 0.25, "bias": False}),
    Case("clockwork", Clockwork, {"periods": (1, 2, 3)}, feed_forward=False),  # which units change is up to the clock
    Case("sru", SRU, {}),
    Case("sru-gates-of-the-input", SRU, {"recurrent_gates": False, "highway_bias": -1.0}),
    Case("qrnn-f", QRNN, {"pooling": "f", "bias": False}),
    Case("qrnn-fo", QRNN, {}),
    Case("qrnn-ifo", QRNN, {"pooling": "ifo"}),
    Case("lru", LRU, {}),
    Case("lru-narrow", LRU, {"state_size": 2, "r_min": 0.5, "r_max": 0.9}),
    Case("highway", Highway, {}),
    Case("branching", Branching, {}, traceable=False, compiled=False),
]

every_cell = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_scan = pytest.mark.parametrize(
    "case", [case for case in CASES if case.cell().has_scan], ids=lambda case: case.name
)
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
