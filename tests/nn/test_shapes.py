"""Every option of `Recurrent`, with everything that a network can be asked."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from cell_registry import assert_same, ragged_inputs
from torch import Tensor

import carousel
from carousel.cells import CELLS, GRU, LSTM, Elman
from carousel.errors import ConfigError
from carousel.nn import Dilated, Recurrent, Zoneout, unroll

SHAPES: dict[str, dict[str, Any]] = {
    "sizes": {"hidden_size": (5, 4)},
    "cells": {"cell": ("lstm", "gru"), "hidden_size": (5, 4)},
    "residual": {"skip": "residual"},
    "dense": {"skip": "dense"},
    "dilated": {"dilation": (2, 3)},
    "zoneout": {"zoneout": 0.3},
    "candidate": {"candidate_dropout": 0.3},
    "locked": {"locked": True, "dropout": 0.3, "input_dropout": 0.2, "state_dropout": 0.3},
    "weights": {"weight_dropout": 0.3},
    "start": {"learn_start": True},
    "all": {
        **{"cell": ("gru", "lstm"), "skip": "residual", "dilation": (1, 2), "zoneout": 0.1, "candidate_dropout": 0.2},
        **{"locked": True, "dropout": 0.3, "state_dropout": 0.3, "weight_dropout": 0.2, "learn_start": True},
    },
}
LENGTHS = torch.tensor([7, 1, 4, 2])
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def network(shape: dict[str, Any], **options: Any) -> Recurrent:
    """Two layers, in float64 and in evaluation, none of its parameters at rest."""
    torch.manual_seed(0)
    made = Recurrent(**({"cell": "lstm", "input_size": 3, "hidden_size": 4, "layers": 2} | shape | options)).double()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "start" in name:
                parameter.normal_()
    return made.eval()


def flat(state: Any) -> list[Tensor]:
    return [state] if isinstance(state, Tensor) else [field for part in state for field in flat(part)]


def pickled(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))  # noqa: S301


def stepped(recurrent: Recurrent, inputs: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    outputs = []
    for x in inputs:
        output, state = recurrent.step(x, state)
        outputs.append(output)
    return torch.stack(outputs), state


@every_shape
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_ragged_batch_is_each_sequence_alone(shape: dict[str, Any], bidirectional: bool) -> None:
    recurrent = network(shape, bidirectional=bidirectional)
    inputs = ragged_inputs(LENGTHS, fill=torch.nan)
    outputs, state = recurrent(inputs, lengths=LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        alone, end = recurrent(inputs[:length, b : b + 1])
        assert_same([outputs[:length, b : b + 1]], [alone])
        assert_same([field[b : b + 1] for field in flat(state)], flat(end))
        assert not outputs[length:, b].any()
    (grad,) = torch.autograd.grad(outputs.sum(), inputs)
    real = torch.arange(7)[:, None] < LENGTHS
    assert (grad[real] != 0).all() and not grad[~real].any()  # backward in evaluation, too


@every_shape
def test_stepping_and_cutting_anywhere_is_running(shape: dict[str, Any]) -> None:
    recurrent, inputs = network(shape), torch.randn(7, 2, 3, dtype=torch.float64)
    outputs, state = recurrent(inputs)
    for cut in (0, 1, 3):
        first, middle = recurrent(inputs[:cut]) if cut else (inputs.new_empty(0, 2, 4), None)
        for run in (recurrent, lambda x, s: stepped(recurrent, x, s)):
            rest, end = run(inputs[cut:], middle)
            assert_same([torch.cat([first, rest]), *flat(end)], [outputs, *flat(state)])
    assert_same([recurrent(inputs, recurrent.initial_state(2))[0]], [outputs])


@every_shape
def test_a_network_in_training_takes_the_same_calls(shape: dict[str, Any]) -> None:
    recurrent, inputs = network(shape).train(), torch.randn(7, 2, 3, dtype=torch.float64)
    for outputs, state in (recurrent(inputs, lengths=torch.tensor([3, 7])), stepped(recurrent, inputs)):
        recurrent(inputs, state)
        gradients = torch.autograd.grad(outputs.sum(), list(recurrent.parameters()), allow_unused=True)
        assert all(g is not None and g.isfinite().all() for g in gradients)


@every_shape
def test_the_compiled_loops_agree_and_stream(shape: dict[str, Any]) -> None:
    recurrent, inputs = network(shape, engine="compiled").float(), torch.randn(7, 2, 3)
    outputs, state = recurrent(inputs, lengths=torch.tensor([7, 4]))
    outputs.sum().backward()
    found = [weight.grad for weight in recurrent.parameters()]
    other = copy.deepcopy(recurrent).requires_grad_()
    other.engine = "eager"
    other.zero_grad()
    wanted, end = other(inputs, lengths=torch.tensor([7, 4]))
    wanted.sum().backward()
    assert_same([outputs, *flat(state), *found], [wanted, *flat(end), *(w.grad for w in other.parameters())], 1e-5)  # type: ignore[list-item]
    stream = recurrent.stream(2)
    with torch.no_grad():
        assert_same([torch.stack([stream(x) for x in inputs])], [recurrent(inputs)[0]], 1e-5)
        stream.reset()
        assert_same([stream(inputs[0])], [recurrent(inputs[:1])[0][0]], 1e-5)


@every_shape
def test_in_training_the_loops_are_compiled_too(shape: dict[str, Any]) -> None:
    recurrent, inputs = network(shape, engine="compiled", bidirectional=True).float().train(), torch.randn(7, 2, 3)
    recurrent(inputs, lengths=torch.tensor([7, 4]))[0].sum().backward()
    assert all(weight.grad is not None for weight in recurrent.parameters())


@every_shape
@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_gradients(shape: dict[str, Any], training: bool) -> None:
    recurrent = network(shape).train(training)
    inputs = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)

    def penalty(x: Tensor) -> Tensor:
        torch.manual_seed(1)
        (grad,) = torch.autograd.grad(recurrent(x)[0].square().sum(), x, create_graph=True)
        return grad.square().sum()

    (got,) = torch.autograd.grad(penalty(inputs), inputs)
    way = torch.randn_like(inputs)
    difference = (penalty(inputs + 1e-6 * way) - penalty(inputs - 1e-6 * way)) / 2e-6
    torch.testing.assert_close((got * way).sum(), difference, rtol=1e-5, atol=1e-8)


@every_shape
def test_copies_and_files_are_the_same_network(shape: dict[str, Any]) -> None:
    recurrent, inputs = network(shape), torch.randn(5, 2, 3, dtype=torch.float64)
    outputs, state = recurrent(inputs)
    loaded = network(shape).requires_grad_(False)
    for parameter in loaded.parameters():
        parameter.zero_()
    loaded.load_state_dict(recurrent.state_dict())
    for other in (copy.deepcopy(recurrent), pickled(recurrent), loaded):
        assert_same([other(inputs)[0]], [outputs], tolerance=0)
    assert_same(flat(pickled(state)), flat(state), tolerance=0)
    assert type(pickled(state)[0]) is type(state[0])
    assert len({tensor.data_ptr() for tensor in recurrent.state_dict().values()}) == len(recurrent.state_dict())


@every_shape
def test_batch_first_is_the_transpose(shape: dict[str, Any]) -> None:
    inputs = torch.randn(5, 2, 3, dtype=torch.float64)
    (outputs, state), (swapped, same) = (
        network(shape)(inputs),
        network(shape, batch_first=True)(inputs.transpose(0, 1)),
    )
    assert_same([swapped.transpose(0, 1), *flat(same)], [outputs, *flat(state)], tolerance=0)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.filterwarnings("ignore:.*runs eagerly")
def test_every_cell_takes_the_shapes(name: str) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"skip": "dense", "dilation": (1, 2), "zoneout": 0.2, "learn_start": True}
    recurrent = Recurrent(name, 3, 4, layers=2, **options).double().eval()
    inputs = ragged_inputs(LENGTHS)
    outputs, _ = recurrent(inputs, lengths=LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        assert_same([outputs[:length, b : b + 1]], [stepped(recurrent, inputs[:length, b : b + 1])[0]], 1e-10)
    both = Recurrent(name, 3, 4, layers=2, bidirectional=True, merge="mean", **options).double()
    assert both(inputs, lengths=LENGTHS)[0].shape == (7, 4, both.cells[-1].output_size)


def test_sequences_of_cells_and_sizes_are_layers() -> None:
    recurrent = Recurrent(("lstm", Elman, "gru"), 3, (6, 5, 4))
    assert [(type(cell), cell.input_size, cell.hidden_size) for cell in recurrent.cells] == [
        (LSTM, 3, 6),
        (Elman, 6, 5),
        (GRU, 5, 4),
    ]
    recurrent = Recurrent(("lstm", "elman"), 3, 4, forget_bias=5.0, activation="relu")  # each option to who takes it
    assert (recurrent.cells[0].forget.b == 5).all() and recurrent.cells[1].activation is torch.relu  # type: ignore[operator, union-attr]


def test_residual_adds_what_is_read_from_the_second_layer_on() -> None:
    recurrent, inputs = network({"skip": "residual", "layers": 3}), torch.randn(5, 2, 3, dtype=torch.float64)
    reads, _ = unroll(recurrent.cells[0], inputs)  # type: ignore[arg-type]
    for cell in list(recurrent.cells)[1:]:
        reads = reads + unroll(cell, reads)[0]  # type: ignore[arg-type]
    assert_same([recurrent(inputs)[0]], [reads])


def test_dense_reads_the_inputs_and_all_outputs_below() -> None:
    recurrent, inputs = network({"skip": "dense", "hidden_size": (4, 5, 6), "layers": 3}), torch.randn(5, 2, 3).double()
    reads = outputs = inputs
    for k, cell in enumerate(recurrent.cells):
        reads = torch.cat([reads, outputs], dim=2) if k else inputs
        outputs, _ = unroll(cell, reads)  # type: ignore[arg-type]
    assert [cell.input_size for cell in recurrent.cells] == [3, 7, 12]
    assert_same([recurrent(inputs)[0]], [outputs])


@pytest.mark.parametrize("merge", ["sum", "mean"])
def test_directions_are_merged(merge: str) -> None:
    one, both = network({"layers": 1}, bidirectional=True), network({"layers": 1}, bidirectional=True, merge=merge)
    inputs = ragged_inputs(LENGTHS)
    forward, backward = one(inputs, lengths=LENGTHS)[0].chunk(2, dim=2)
    wanted = forward + backward if merge == "sum" else (forward + backward) / 2
    outputs, state = both(inputs, lengths=LENGTHS)
    assert both.output_size == 4
    assert_same([outputs, *flat(state)], [wanted, *flat(one(inputs, lengths=LENGTHS)[1])])


def test_the_shapes_are_told() -> None:
    assert "merge=sum, skip=dense, weight_dropout=0.2" in repr(
        Recurrent("gru", 3, 4, bidirectional=True, merge="sum", skip="dense", weight_dropout=0.2)
    )
    with pytest.raises(
        ConfigError, match=r"^to_torch: torch.nn has no such layers \(got .*skip=residual\); those without"
    ):
        Recurrent("lstm", 3, 4, skip="residual").to_torch()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (
            ("gru", 3, 4),
            {"skip": "residul"},
            "skip: unknown (got 'residul'); residual, dense; did you mean 'residual'?",
        ),
        (
            ("gru", 3, 4),
            {"bidirectional": True, "merge": "avg"},
            "merge: unknown (got 'avg'); concat, sum, mean; did you mean 'mean'?",
        ),
        (
            ("gru", 3, (4, 5)),
            {"skip": "residual"},
            "skip: layer 1 cannot add what it reads (got widths 4 and 5); equal widths; "
            "match the sizes, or skip='dense'",
        ),
        (
            ([LSTM(3, 6), GRU(3, 2)],),
            {"bidirectional": True, "merge": "sum"},
            "merge: layer 0 has two widths (got 6 and 2); equal ones to sum; or merge='concat'",
        ),
        (
            ([GRU(3, 4), GRU(4, 4)],),
            {"skip": "dense"},
            "cell: layer 1 does not fit (got input_size 4); 7, the inputs and all outputs below it; match them",
        ),
        (
            (("gru", "lstm"), 3, 4),
            {"layers": 3},
            "cell: not one per layer (got 2); 1 or 3; give one for each layer, or one",
        ),
        (
            ("gru", 3, (4, 4)),
            {"dilation": (1, 2, 4)},
            "dilation: not one per layer (got 3); 1 or 2; give one for each layer, or one",
        ),
        (("gru", 3, 4), {"dilation": 0}, "dilation: not a number of steps (got 0); 1 or more; 1 is the plain cell"),
        (
            (("gru", "lstm"), 3, 4),
            {"forgetbias": 1.0},
            "forgetbias: not an option of GRU or LSTM (got 1.0); bias, forget_bias; did you mean 'forget_bias'?",
        ),
        *(
            (("gru", 3, 4), {name: 1.5}, f"{name}: not a probability (got 1.5); 0 to 1; 0 turns it off")
            for name in ("dropout", "input_dropout", "state_dropout", "candidate_dropout", "zoneout", "weight_dropout")
        ),
        (
            ("gru", 3, 4),
            {"zoneout": {"c": 0.5}},
            "zoneout: no such field (got 'c'); h; name fields of the state",
        ),
    ],
)
def test_shapes_that_cannot_be_are_refused(arguments: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Recurrent(*arguments, **options)
    assert str(caught.value) == message


def test_each_loop_is_explained_once() -> None:
    found = carousel.explain(Recurrent("lstm", 3, 4, layers=2, dilation=2, zoneout=0.1, state_dropout=0.2)).cells
    assert [cell.name for cell in found] == [f"Zoneout(h=0.1, c=0.1) at cells.{k}.cell.cell" for k in (0, 1)]
    assert all(cell.engine.startswith("compiled") for cell in found)
    assert len(carousel.explain(Zoneout(LSTM(3, 4), 0.1)).cells) == len(carousel.explain(LSTM(3, 4)).cells) == 1


def test_a_dilation_of_one_is_the_cell() -> None:
    cell, inputs = GRU(3, 4), torch.randn(5, 2, 3)
    assert_same([unroll(Dilated(cell, 1), inputs)[0]], [unroll(cell, inputs)[0]], tolerance=0)
    assert type(Recurrent("gru", 3, 4, dilation=1).cells[0]) is GRU
