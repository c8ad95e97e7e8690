"""One wrong line of the compiler at a time: each must be noticed by a check that the other tests are made of."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch
from differential import OURS, check
from test_cpu import in_pieces, problem_of, same_bits_in_any_batch
from test_function import second_order
from test_packing import loop_packs_piece_by_piece
from user_cells import USER_CELLS, Deep

from carousel.compiler import blocks, derive, extent, graph, kernel, loops, objects, products, reference, trace
from carousel.diagnostics import gradient_flow
from carousel.nn import Recurrent
from carousel.training import ClippedSteps


def differs(name: str, H: int = 5) -> Callable[[], None]:
    """A check of one cell against float64, ragged and from a state."""

    def run() -> None:
        torch.manual_seed(0)
        check(problem_of({**OURS, **USER_CELLS}[name](3, H).eval(), 4, 6, [4, 2, 1, 4, 3, 3]))

    run.__name__ = name
    return run


def second_gradients() -> None:
    torch.manual_seed(0)
    cell, inputs = USER_CELLS["Shared"](3, 4), torch.randn(3, 2, 3)
    got = second_order(cell, inputs.requires_grad_(), None, "compiled")
    exact = second_order(cell.double(), inputs.detach().double().requires_grad_(), None, "eager")
    torch.testing.assert_close(got[0].double(), exact[0], rtol=1e-4, atol=1e-4)


def padded() -> None:
    with pytest.MonkeyPatch.context() as patch:
        loop_packs_piece_by_piece(patch, "gru", threads=1)


def any_batch() -> None:
    same_bits_in_any_batch(Deep, 5)


def piecewise() -> None:
    extent.extent.cache_clear()  # an extent remembers its pieces
    with pytest.MonkeyPatch.context() as patch:
        in_pieces(patch, "LSTM", rows=5)


def clips(by: Literal["norm", "value"]) -> Callable[[], None]:
    """A check of gradients that are cut at every step, against float64."""

    def run() -> None:
        torch.manual_seed(0)
        check(problem_of(ClippedSteps(OURS["LSTM"](3, 5), 0.3, by), 4, 6, [4, 2, 1, 4, 3, 3]))

    return run


def reads() -> None:
    torch.manual_seed(0)
    network, inputs = Recurrent("lstm", 3, 5), torch.randn(4, 6, 3)
    got = gradient_flow(network, inputs)
    network.engine = "eager"
    for one, other in zip(got.flows, gradient_flow(network, inputs).flows, strict=True):
        torch.testing.assert_close(one.norms, other.norms)


@dataclass
class Bug:
    """`old` becomes `new` in a function; `check` passes before and fails after."""

    name: str
    function: Any
    old: str
    new: str
    check: Callable[[], None]


BUGS = [
    Bug("a gradient is added twice", derive._Derivation.add, "append(contribution)", "extend([contribution] * 2)",
        differs("LSTM")),
    Bug("tanh's derivative is taken at the wrong value", derive._tanh, "d.value(node)", "d.value(node.args[0])",
        differs("LSTM")),
    Bug("a quotient's second gradient has the wrong sign", derive._div, 'd.of("neg", d.mul(over, d.value(node)))',
        "d.mul(over, d.value(node))", differs("Attending")),
    Bug("both sides of where get the gradient", derive._where, 'condition, g, 0.0)', 'condition, g, g)',
        differs("Clamps")),
    Bug("a gradient of all columns is not summed", derive._Derivation.total, "part.width > node.width", "False",
        differs("PerSequence")),
    Bug("columns are counted from the start", graph.Graph.columns, "(tensor, first + start), width",
        "(tensor, first), width", differs("SideBySide")),
    Bug("weights are read from the first row on", graph.Graph.columns, "(tensor, first + start, False)",
        "(tensor, first, False)", differs("LinearGates")),
    Bug("input products forget their place", trace.Lowering.merge_input_products, "product, start - first",
        "product, 0", differs("LSTM")),
    Bug("an operand that is concatenated is not advanced", trace.Lowering.linear, "first += width", "pass",
        differs("SideBySide")),
    Bug("padding columns take part in sums", kernel._Writer.add_to_sum, "if block.mask is not None:", "if False:",
        differs("Attending")),
    Bug("a sum goes on from the last step's", kernel._Writer.add_to_sum, "block.first, neutral, so_far",
        "block.first, so_far, so_far", differs("PerSequence")),
    Bug("the wrong half of what is carried", kernel._Writer.row_offset, '"written" if written else "read"',
        '"read" if written else "written"', differs("LSTM")),
    Bug("the size of the wrong step", kernel._Writer.enter_step, "self.b.sub(t, LONG(1))", "t", differs("GRU")),
    Bug("an accumulator begins anew", kernel._Writer.call_product, "not fresh", "False", differs("PassedThrough")),
    Bug("the last rows of a batch are left out", blocks.Loops.shares, "self.b.urem(count, blocks)", "LONG(0)",
        any_batch),
    Bug("gradients of weights without the first state", products._Backward.lay_out, '("initial", f)', '("field", f)',
        differs("LSTM")),
    Bug("panels of weights lie the wrong way", loops.panel_words, "if transposed", "if not transposed",
        differs("LSTM")),
    Bug("a piece of time goes on from the wrong state", loops.Loop.call, "before=4 * entry", "row=4 * entry",
        piecewise),
    Bug("what is carried forgets which half is which", extent.Extent._cut, "self.steps, 2), self", "self.steps), self",
        piecewise),
    Bug("the last piece's gradient is all", products._Backward.of_weight, "word(again=1) if once", "word() if once",
        piecewise),
    Bug("the gradient of a bias is that of one piece", products._Backward.of_input,
        "self.strides[place], word(rows=1)", "self.strides[place], word(1)", differs("LSTM")),
    Bug("a limit over a norm is a norm over a limit", derive._gauged, '"div", limit, size', '"div", size, limit',
        clips("norm")),
    Bug("gradients are cut on one side", derive._gauged, "-limit, g", "-math.inf, g", clips("value")),
    Bug("all fields are read into one place", trace.Lowering.gauged_throughout, "mark.args[1]", "marks[0].args[1]",
        reads),
    Bug("the square of a norm is read", derive._gauged, 'd.of("sqrt", d.graph.reduce("sum", d.mul(g, g)))',
        'd.graph.reduce("sum", d.mul(g, g))', reads),
    Bug("a padded batch is read from its beginning", products._move, "padded=4 * width", "padded=0", padded),
    Bug("second gradients with the signs of sums lost", reference._value, "F.linear(arg,", "F.linear(-arg,",
        second_gradients),
]  # fmt: skip


def rewritten(bug: Bug) -> Any:
    """The function with the bug, made from its source."""
    source = textwrap.dedent(inspect.getsource(bug.function))
    assert source.count(bug.old) >= 1, f"{bug.old!r} is no longer in {bug.function.__qualname__}: plant the bug anew"
    found: dict[str, Any] = {}
    code = compile(source.replace(bug.old, bug.new), f"<{bug.name}>", "exec")
    exec(code, bug.function.__globals__, found)
    return found[bug.function.__name__]


def plant(bug: Bug, patch: pytest.MonkeyPatch) -> None:
    """Put the function with the bug wherever the right one is."""
    wrong, module = rewritten(bug), inspect.getmodule(bug.function)
    owner: Any = module
    *classes, name = bug.function.__qualname__.split(".")
    for part in classes:
        owner = getattr(owner, part)
    patch.setattr(owner, name, wrong)
    patch.setattr(objects, "text", lambda key, make: make())  # code that was written before has no bug
    for table in (derive.GRADIENTS, trace.RULES):
        for key, function in table.items():
            if function is bug.function:
                patch.setitem(table, key, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_noticed(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.check()
    plant(bug, monkeypatch)
    with pytest.raises(AssertionError):
        bug.check()
