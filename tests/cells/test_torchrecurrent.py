"""Cells against torchrecurrent with the same weights: outputs, final states and the gradients of the inputs.

Left out are two that it has in another version: its LEM reads the memory of the step before where Rusch et al. 2022
read the new one, and its LSTM of 1997 squashes by tanh.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from cell_registry import assert_same
from torch import Tensor, nn

from carousel.cells import CELLS, Cell
from carousel.cells.cell import Affine
from carousel.nn import unroll

torchrecurrent = pytest.importorskip("torchrecurrent", reason="torchrecurrent is not installed")

Carry = Callable[[Any, Any], None]


def affine(maps: Sequence[Affine], theirs: Any) -> None:
    """Give our maps the rows of their blocks, in that order; they have two biases where we have one."""
    blocks = (theirs.weight_ih, theirs.weight_hh, theirs.bias_ih + theirs.bias_hh)
    for one, W, U, b in zip(maps, *(block.chunk(len(maps)) for block in blocks), strict=True):
        put(one, W, U, b)


def put(one: Affine, W: Tensor, U: Tensor, b: Tensor) -> None:
    for mine, its in zip((one.W, one.U, one.b), (W, U, b), strict=True):
        mine.copy_(its)  # type: ignore[union-attr]


def linear(ours: nn.Linear, weight: Tensor, *biases: Tensor) -> None:
    ours.weight.copy_(weight)
    if biases:
        ours.bias.copy_(sum(biases))


def peephole(ours: Any, theirs: Any) -> None:
    affine([ours.input, ours.forget, ours.candidate, ours.output], theirs)
    for mine, its in zip((ours.p_i, ours.p_f, ours.p_o), theirs.weight_ph.chunk(3), strict=True):
        mine.copy_(its)


def multiplicative(ours: Any, theirs: Any) -> None:
    W, b = theirs.weight_ih.chunk(5), theirs.bias_ih.chunk(5)
    b[0].zero_()  # ours has no biases inside the product of maps, as the paper
    theirs.bias_hh.zero_()
    ours.multiplicative.W.copy_(W[0])
    ours.multiplicative.U.copy_(theirs.weight_hh)
    ours.packed.weight_input.copy_(torch.cat([W[1], W[2], W[3], W[4]]))
    ours.packed.weight_hidden.copy_(theirs.weight_mh)
    ours.packed.bias.copy_(torch.cat(b[1:]) + theirs.bias_mh)


def antisymmetric(ours: Any, theirs: Any) -> None:
    of_gate = 4 * len(ours.gate)  # rows of theirs that come before the candidate's, and of ours after
    ours.packed.weight_input.copy_(theirs.weight_ih.roll(-of_gate, 0))
    ours.packed.bias.copy_(theirs.bias_ih.roll(-of_gate, 0))
    ours.candidate.b.add_(theirs.bias_hh)
    ours.weight_hidden.copy_(theirs.weight_hh)
    ours.step_size, ours.diffusion = float(theirs.epsilon), float(theirs.gamma)


def cornn(ours: Any, theirs: Any) -> None:
    affine([ours.force], theirs)
    ours.force.b.add_(theirs.bias_ch)
    ours.weight_velocity.copy_(theirs.weight_ch)
    ours.time_step, ours.frequency, ours.damping = (float(v) for v in (theirs.dt, theirs.gamma, theirs.epsilon))


def indrnn(ours: Any, theirs: Any) -> None:
    linear(ours.candidate, theirs.weight_ih, theirs.bias_ih, theirs.bias_hh)
    ours.recurrent.copy_(theirs.vector_u)


def mut1(ours: Any, theirs: Any) -> None:
    (Wz, Wr, Wx), (bz, br, bx) = theirs.weight_ih.chunk(3), theirs.bias_ih.chunk(3)
    (Ur, Ua), (cr, ca) = theirs.weight_hh.chunk(2), theirs.bias_hh.chunk(2)
    bx.zero_()
    linear(ours.update, Wz, bz)
    put(ours.reset, Wr, Ur, br + cr)
    linear(ours.candidate, Ua, ca)
    linear(ours.input_map, Wx)


def mut2(ours: Any, theirs: Any) -> None:
    (Wz, Wr, Wa), b = theirs.weight_ih.chunk(3), (theirs.bias_ih + theirs.bias_hh).chunk(3)
    Uz, Ur, Ua = theirs.weight_hh.chunk(3)
    put(ours.update, Wz, Uz, b[0])
    put(ours.candidate, Wa, Ua, b[2])
    linear(ours.reset, Ur, b[1])
    linear(ours.input_map, Wr)


CASES: dict[str, tuple[str, Carry]] = {
    "antisymmetric": ("AntisymmetricRNN", antisymmetric),
    "antisymmetric-gated": ("GatedAntisymmetricRNN", antisymmetric),
    "cornn": ("coRNN", cornn),
    "indrnn": ("IndRNN", indrnn),
    "lstm-multiplicative": ("MultiplicativeLSTM", multiplicative),
    "lstm-peephole": ("PeepholeLSTM", peephole),
    "mgu": ("MGU", lambda ours, theirs: affine([ours.forget, ours.candidate], theirs)),
    "mut1": ("MUT1", mut1),
    "mut2": ("MUT2", mut2),
    "mut3": ("MUT3", lambda ours, theirs: affine([ours.update, ours.reset, ours.candidate], theirs)),
    "ugrnn": ("UGRNN", lambda ours, theirs: affine([ours.candidate, ours.gate], theirs)),
}


def both(name: str) -> tuple[Cell, nn.Module]:
    """Our cell and their layer, with the same random weights."""
    torch.manual_seed(0)
    its_name, carry = CASES[name]
    options = {"nonlinearity": torch.relu} if name == "indrnn" else {}
    layer, cell = getattr(torchrecurrent, its_name)(3, 4, **options).double(), CELLS[name](3, 4).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
        carry(cell, layer.cells[0])
    return cell, layer


def compare(cell: Cell, layer: nn.Module) -> None:
    x = torch.randn(7, 5, 3, dtype=torch.float64, requires_grad=True)
    wanted, wanted_state = layer(x)
    got, state = unroll(cell, x)
    ends = wanted_state if isinstance(wanted_state, tuple) else (wanted_state,)
    assert_same([got, *state], [wanted, *(end.view(5, 4) for end in ends)])
    weights = torch.randn_like(wanted)
    [ours], [theirs] = (torch.autograd.grad((outputs * weights).sum(), x) for outputs in (got, wanted))
    assert_same([ours], [theirs], 1e-11)


@pytest.mark.parametrize("name", CASES)
def test_the_same_as_torchrecurrent(name: str) -> None:
    compare(*both(name))


@pytest.mark.parametrize("name", CASES)
def test_any_weight_that_differs_is_noticed(name: str) -> None:
    cell, layer = both(name)
    for parameter in cell.parameters():
        with torch.no_grad():
            before = parameter.clone()
            parameter.flatten()[-2] += 0.1  # the last one may be on a diagonal that cancels
        with pytest.raises(AssertionError, match="not close"):
            compare(cell, layer)
        with torch.no_grad():
            parameter.copy_(before)
