"""What is explained is what happens: FLOPs are those of the eager loop, bytes those that the backward pass keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cell_registry import CASES, Case, Highway
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import carousel
from carousel.compiler import known
from carousel.compiler.equations import equations
from carousel.compiler.explain import CellExplanation
from carousel.compiler.extent import extent
from carousel.compiler.function import Lane
from carousel.compiler.function import unroll as run_operands
from carousel.compiler.operands import Given, Product
from carousel.errors import ConfigError

COMPILED = [case for case in CASES if case.compiled]
every_compiled = pytest.mark.parametrize("case", COMPILED, ids=lambda case: case.name)


def only(module: nn.Module) -> CellExplanation:
    (one,) = carousel.explain(module).cells
    return one


def cell_of(case: Case) -> Any:
    return case.make(24, 16, **case.options)


@every_compiled
def test_flops_are_those_of_the_eager_loop(case: Case) -> None:
    cell, steps, batch = cell_of(case), 5, 3
    work = only(cell).work
    assert work is not None
    x = torch.randn(steps, batch, 24, requires_grad=True)
    state = [torch.zeros_like(field, requires_grad=True) for field in cell.initial_state(batch)]
    with FlopCounterMode(display=False) as counter:
        outputs, final = carousel.unroll(cell, x, cell.State(*state), engine="eager")
        forward = counter.get_total_flops()
        (outputs.sum() + sum(field.sum() for field in final)).backward()
        backward = counter.get_total_flops() - forward
    assert (work.forward, work.backward) == (forward / steps / batch, backward / steps / batch)


@every_compiled
def test_bytes_are_those_that_are_kept(case: Case) -> None:
    cell, steps, batch = cell_of(case), 5, 3
    work = only(cell).work
    assert work is not None
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor
        return tensor

    program = known(cell).program
    operands = program.recurrence.factors(cell, torch.randn(steps * batch, 24))
    lane = Lane(program, Given.of(operands, cell.initial_state(batch)), extent((batch,) * steps), 1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        [(outputs, _)] = run_operands([lane])
    assert outputs.requires_grad
    read = {one.x.data_ptr() for one in operands.inputs if isinstance(one, Product)}  # what it is given anyway
    read -= {one.data_ptr() for one in operands.inputs if not isinstance(one, Product)}
    own = [tensor for place, tensor in kept.items() if len(tensor) == steps * batch and place not in read]
    assert sum(tensor.nbytes for tensor in own) == steps * batch * (work.kept + work.inputs)


def test_equations_carry_the_cells_names() -> None:
    cell = carousel.Recurrent("lstm", 3, 4).cells[0]
    found = equations(cell, known(cell).recurrence)  # type: ignore[arg-type]
    assert found.before == ["p = packed.weight_input x + packed.bias"]
    assert found.weights == ["U = packed.weight_hidden"]
    assert found.step == [
        "input = sigmoid(p[0:4] + U[0:4] h)",
        "forget = sigmoid(p[4:8] + U[4:8] h)",
        "candidate = tanh(p[8:12] + U[8:12] h)",
        "output = sigmoid(p[12:16] + U[12:16] h)",
        "c' = forget * c + input * candidate",
        "h' = output * tanh(c')",
    ]


def test_equations_of_a_cell_from_outside() -> None:
    cell = Highway(3, 4)
    found = equations(cell, known(cell).recurrence)  # type: ignore[arg-type]
    assert found.before == [
        "p0 = block.weight_input x + block.bias",
        "p1 = other_block.weight_input (2 * x)",
        "p2 = x.mean(dim=1, keepdim=True)",
    ]
    assert found.step[0] == "m' = tanh(p0[0:4] + U0[0:4] m + v0 * h)"
    assert len(found.weights) == 5


@every_compiled
def test_every_field_has_its_equation(case: Case) -> None:
    cell = cell_of(case)
    step = equations(cell, known(cell).recurrence).step  # type: ignore[arg-type]
    assert {f"{field}'" for field in cell.State._fields} <= {line.split(" = ")[0] for line in step}


def test_layers_have_one_section_for_each_cell() -> None:
    for module in (carousel.LSTM(3, 4, 2, bidirectional=True), carousel.Recurrent("gru", 3, 4, layers=4)):
        text = str(carousel.explain(nn.Sequential(module)))
        assert text.count("compiled for") == 4
        assert "compiled code is kept in" in text


def test_a_cell_that_runs_eagerly_says_why() -> None:
    (case,) = [case for case in CASES if case.name == "elman-module"]
    assert "eager, because of the operation 'selu' at " in str(only(case.make(3, 4, **case.options)))
    assert "weights of torch.float64" in str(only(carousel.Recurrent("gru", 3, 4).double()))
    assert "eager, because of engine='eager'" in str(only(carousel.GRU(3, 4, engine="eager")))


def test_a_module_without_cells_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"explain: no cells in it \(got Linear\)"):
        carousel.explain(nn.Linear(2, 2))
