"""Cells against torch.nn with the same weights: outputs, states and the gradients of everything."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cell_registry import Case, assert_same, every_torch_cell, gradients, ragged_inputs
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from carousel.cells import GRU, LSTM, Cell, Elman, ProjectedLSTM, from_torch, to_torch
from carousel.errors import ConfigError
from carousel.nn import Recurrent


def torch_states(module: nn.RNNBase, batch: int) -> Any:
    """A random initial state as torch.nn takes it: (D·L, B, P), for an LSTM (D·L, B, H) besides."""
    torch.manual_seed(5)
    cells = module.num_layers * (1 + module.bidirectional)
    fields = [
        torch.randn(cells, batch, size, dtype=torch.float64, requires_grad=True)
        for size in [module.proj_size or 4, 4][: 1 + isinstance(module, nn.LSTM)]
    ]
    return tuple(fields) if len(fields) > 1 else fields[0]


def fields(state: Any) -> list[Tensor]:
    return list(state) if isinstance(state, tuple) else [state]


def by_layer(ours: Recurrent, state: Any) -> tuple[Any, ...]:
    states = [cell.State(*(field[k] for field in fields(state))) for k, cell in enumerate(ours.cells)]  # type: ignore
    return tuple(zip(states[::2], states[1::2], strict=True)) if ours.bidirectional else tuple(states)


def by_field(ours: Recurrent, state: tuple[Any, ...]) -> list[Tensor]:
    states = [one for pair in state for one in pair] if ours.bidirectional else state
    return [torch.stack(field) for field in zip(*states, strict=True)]


def weight_gradients(cells: list[Cell], results: list[Tensor]) -> list[Tensor]:
    """The gradients of our weights, laid out as those of torch.nn: both biases of a map have the same one."""
    found: list[Tensor] = []
    parameters = [dict(cell.named_parameters()) for cell in cells]
    flat = iter(gradients(results, [p for named in parameters for p in named.values()]))
    for named in parameters:
        grads = {name: next(flat) for name in named}
        found += [grads["packed.weight_input"], grads["packed.weight_hidden"]]
        if "packed.bias" in grads:
            recurrent = grads["packed.bias"].clone()
            if "recurrent_bias" in grads:
                recurrent[-4:] = grads["recurrent_bias"]
            found += [grads["packed.bias"], recurrent]
        if "projection" in grads:
            found.append(grads["projection"])
    return found


def compare(module: nn.RNNBase, ours: Recurrent, lengths: Tensor | None, tolerance: float = 1e-12) -> None:
    inputs = ragged_inputs(torch.tensor([6, 6, 6, 6]) if lengths is None else lengths)
    start = torch_states(module, 4)
    sequence = inputs.transpose(0, 1) if module.batch_first else inputs
    if lengths is None:
        wanted, wanted_state = module(sequence, start)
    else:
        packed = pack_padded_sequence(sequence, lengths, enforce_sorted=False, batch_first=module.batch_first)
        packed_outputs, wanted_state = module(packed, start)
        wanted, _ = pad_packed_sequence(packed_outputs, batch_first=module.batch_first)

    cells: list[Cell] = list(ours.cells)  # type: ignore[arg-type]
    got, got_state = ours(sequence, by_layer(ours, start), lengths)
    stacked = by_field(ours, got_state)
    assert_same([got, *stacked], [wanted, *fields(wanted_state)], tolerance)

    ends = [inputs, *fields(start)]
    theirs = gradients([wanted, *fields(wanted_state)], [*ends, *module.parameters()])
    assert_same(gradients([got, *stacked], ends), theirs[: len(ends)], tolerance)
    assert_same(weight_gradients(cells, [got, *stacked]), theirs[len(ends) :], tolerance)


@every_torch_cell
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
@pytest.mark.parametrize("lengths", [None, [6, 2, 1, 4], [3, 3, 5, 4]], ids=["full", "ragged", "short"])
def test_the_same_as_torch(
    case: Case, layers: int, bidirectional: bool, batch_first: bool, lengths: list[int] | None
) -> None:
    module = case.in_torch(layers, bidirectional=bidirectional, batch_first=batch_first)
    compare(module, Recurrent.from_torch(module), None if lengths is None else torch.tensor(lengths))


@every_torch_cell
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
def test_there_and_back_is_the_same_network(case: Case, layers: int, bidirectional: bool) -> None:
    module = case.in_torch(layers, batch_first=True, bidirectional=bidirectional)
    back = Recurrent.from_torch(module).to_torch()
    assert type(back) is type(module)
    assert repr(back) == repr(module)
    inputs = torch.randn(2, 5, 3, dtype=torch.float64)
    assert_same([back(inputs)[0]], [module(inputs)[0]])


@pytest.mark.parametrize("parameter", ["packed.weight_input", "packed.weight_hidden", "packed.bias"])
@pytest.mark.parametrize(("module", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_two_gates_in_the_wrong_order_are_noticed(module: type[nn.RNNBase], gates: int, parameter: str) -> None:
    reference = module(3, 4).double()
    for first in range(gates):
        ours = Recurrent.from_torch(reference)
        weights = ours.cells[0].get_parameter(parameter)
        blocks = list(weights.detach().chunk(gates))
        blocks[first - 1], blocks[first] = blocks[first], blocks[first - 1]
        with torch.no_grad():
            weights.copy_(torch.cat(blocks))
        with pytest.raises(AssertionError, match="not close"):
            compare(reference, ours, None)


def test_weights_are_copies() -> None:
    module = nn.LSTM(3, 4)
    [cell] = from_torch(module)
    before = module.weight_ih_l0.clone()
    nn.init.zeros_(cell.get_parameter("packed.weight_input"))
    assert torch.equal(module.weight_ih_l0, before)


def test_the_type_of_the_weights_is_kept() -> None:
    [cell] = from_torch(nn.GRU(3, 4).bfloat16())
    assert {p.dtype for p in cell.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in to_torch([cell]).parameters()} == {torch.bfloat16}


def foreign() -> nn.RNNBase:
    class Mine(nn.GRU):
        pass

    return Mine(3, 4)


def test_a_foreign_module_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^from_torch: no such cell \(got Mine\); RNN, LSTM or GRU of torch.nn$"):
        from_torch(foreign())


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([], "to_torch: no whole layers (got 0 cells); 1 per layer; give them all"),
        ([GRU(3, 4)], "got GRU"),
        ([Elman(3, 4, activation="sigmoid")], "activation"),
        ([LSTM(3, 4), Elman(4, 4)], "layer 1 differs (got 4 -> 4, Elman, tanh, bias=True); 4 -> 4, LSTM, bias=True"),
        ([LSTM(3, 4), LSTM(4, 5)], "layer 1 differs (got 4 -> 5, LSTM, bias=True); 4 -> 4, LSTM"),
        ([LSTM(3, 4), LSTM(4, 4, bias=False)], "layer 1 differs (got 4 -> 4, LSTM, bias=False)"),
        (
            [ProjectedLSTM(3, 4, projection_size=2), ProjectedLSTM(2, 4, projection_size=1)],
            "layer 1 differs (got 2 -> 4/1, ProjectedLSTM, bias=True); 2 -> 4/2, ProjectedLSTM",
        ),
    ],
)
def test_what_torch_does_not_have_is_refused(cells: list[Cell], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        to_torch(cells)
    assert str(caught.value).startswith("to_torch: ") and message in str(caught.value)


def test_half_a_bidirectional_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^to_torch: no whole layers \(got 3 cells\); 2 per layer; give them all$"):
        to_torch([LSTM(3, 4), LSTM(3, 4), LSTM(8, 4)], bidirectional=True)
    with pytest.raises(ConfigError, match=r"^to_torch: layer 0 differs \(got 4 -> 4, LSTM, bias=True\); 3 -> 4, LSTM"):
        to_torch([LSTM(3, 4), LSTM(4, 4)], bidirectional=True)
