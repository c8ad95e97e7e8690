"""What the compiler made of a cell, in words and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from carousel.cells import Cell
from carousel.compiler import objects
from carousel.compiler.cpu import Program
from carousel.compiler.engine import against, known
from carousel.compiler.equations import Equations, equations
from carousel.compiler.graph import POINTWISE, Node
from carousel.compiler.operands import Product, Recurrence
from carousel.compiler.plan import Pass, Plan, plan
from carousel.compiler.tracer import Unsupported
from carousel.errors import ConfigError


@dataclass(frozen=True)
class Work:
    """What one step of one sequence takes, the products before and after the loop included."""

    forward: int  # FLOPs of matrix products
    backward: int
    pointwise_forward: int  # instructions of elementwise arithmetic, had vectors one element; roughly
    pointwise_backward: int
    kept: int  # bytes that the loop keeps for its derivative: all fields and gates
    inputs: int  # bytes of what was computed before the loop and is kept as well


@dataclass(frozen=True)
class CellExplanation:
    """What the compiler made of one cell; of one that runs eagerly, why."""

    name: str
    engine: str
    reason: str | None = None  # why it runs eagerly
    equations: Equations | None = None
    passes: dict[str, list[str]] = field(default_factory=dict)  # by loop
    work: Work | None = None

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.engine}"]
        if self.reason is not None:
            return f"{lines[0]}, because of {self.reason}"
        assert self.equations is not None and self.work is not None, "a cell that is compiled"
        known, work = self.equations, self.work
        sections = {
            "before the loop, for all time steps at once": known.before,
            "in the loop, for each time step": [f"with {weight}" for weight in known.weights] + known.step,
            **{f"passes {name}": passes for name, passes in self.passes.items()},
            "one step of one sequence": [
                f"forward   {work.forward:,} FLOPs in products, about {work.pointwise_forward:,} elementwise",
                f"backward  {work.backward:,} FLOPs in products, about {work.pointwise_backward:,} elementwise",
                f"keeps     {work.kept:,} bytes for the backward loop"
                + (f", besides {work.inputs:,} of inputs" if work.inputs else ""),
            ],
        }
        for title, section in sections.items():
            if section:
                lines += [f"  {title}", *(f"    {line}" for line in section)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Explanation:
    """What the compiler made of the cells of a module; print it."""

    cells: list[CellExplanation]
    cache: str

    def __str__(self) -> str:
        return "\n\n".join([*map(str, self.cells), f"compiled code is kept in {self.cache}"])


def explain(module: nn.Module) -> Explanation:
    """What the compiler understood of a cell, or of each cell of a module, and what it costs to run.

    The equations are read back from what was traced: the input products that leave the loop, the products that stay,
    how both are grouped, and what is computed in which pass over the columns.

    Args:
        module: a `Cell`, a `Recurrent`, a layer like `carousel.LSTM`, or whatever holds some.

    Raises:
        ConfigError: there is no cell in the module.

    >>> import carousel
    >>> print(carousel.explain(carousel.Recurrent("gru", 3, 4)).cells[0])  # doctest: +ELLIPSIS
    GRU(3, 4) at cells.0: compiled for ...
      before the loop, for all time steps at once
        p = packed.weight_input x + packed.bias
      in the loop, for each time step
        with U = packed.weight_hidden
        reset = sigmoid(p[0:4] + U[0:4] h)
        update = sigmoid(p[4:8] + U[4:8] h)
        candidate = tanh(p[8:12] + U[8:12] (reset * h))
        h' = update * h + (1 - update) * candidate
      passes forward
        1  2 products with the state before, 4 wide
        2  1 product with a value of the same step, 4 wide
      passes backward
        ...
      one step of one sequence
        forward   168 FLOPs in products, about ... elementwise
        backward  336 FLOPs in products, about ... elementwise
        keeps     80 bytes for the backward loop
    """
    found = [_explained(*one) for one in _cells(module)]
    if not found:
        raise ConfigError(
            f"explain: no cells in it (got {type(module).__name__}); a Cell, a Recurrent, a layer like carousel.LSTM; "
            "give what runs the recurrence"
        )
    return Explanation(found, str(objects.directory()))


def _cells(module: nn.Module) -> Iterator[tuple[str, Cell, str]]:
    """The name, the cell, and the engine that was asked for."""
    engine, told = "auto", None
    for path, part in module.named_modules():
        engine = getattr(part, "engine", engine)
        if isinstance(part, Cell):
            # A cell with a `run` runs that inside it; a cell inside one that was told is a part of its step.
            if not hasattr(part, "run") and (told is None or not path.startswith(told)):
                told = f"{path}." if path else ""
                yield path, part, engine
        elif hasattr(part, "_filled_cells"):  # a layer of torch.nn, whose cells are no submodules
            with torch.no_grad():
                cells = part._filled_cells()
            for k, cell in enumerate(cells):
                yield f"{path}[{k}]".lstrip("."), cell, part.engine


def _explained(path: str, cell: Cell, engine: str) -> CellExplanation:
    name = f"{type(cell).__name__}({cell.extra_repr()})" + (f" at {path}" if path else "")
    if engine == "eager":
        return CellExplanation(name, "eager", "engine='eager'")
    reason = against(cell, torch.zeros(1, cell.input_size))
    recurrence = known(cell).recurrence
    if reason is None and isinstance(recurrence, Unsupported):
        reason = str(recurrence)
    if reason is not None or isinstance(recurrence, Unsupported):
        return CellExplanation(name, "eager", reason)
    plans = Plans(recurrence)
    processor = objects.processor()
    return CellExplanation(
        name,
        f"compiled for {processor.vectors}, {processor.target.lanes} numbers at a time",
        None,
        equations(cell, recurrence),
        {"forward": _passes(plans.training), "backward": _passes(plans.backward)},
        _work(cell, recurrence, plans),
    )


class Plans(Program):
    """A program of which only the plans are made."""

    def _compile(self, name: str, graph: Any, reads: Any, writes: Any, sums: Any = None) -> Any:
        return plan(graph, reads, writes, sums)


def _passes(planned: Any) -> list[str]:
    assert isinstance(planned, Plan)
    return [f"{k}  {_pass(one)}" for k, one in enumerate(planned.passes, start=1)]


def _pass(one: Pass) -> str:
    words = []
    for call in one.calls:
        count = f"{len(call.weights)} product{'s' if len(call.weights) > 1 else ''}"
        words.append(f"{count} with {'a value of the same step' if call.computed else 'the state before'}")
    words += [f"{node.op} over the columns" for node, _ in one.sums]
    return ", ".join([*words, f"{one.width} wide"])


def _work(cell: Cell, recurrence: Recurrence, plans: Plans) -> Work:
    nodes, back = recurrence.graph.used(recurrence.state), plans.derivative
    graph = recurrence.graph
    saved = [graph.nodes[node.attr] for node in back.graph.used(back.results) if node.op == "saved"]
    again = {node.attr[0] for node in saved if node.op == "input"}
    before_forward, before_backward, inputs = _before(cell, recurrence, again)
    loop = sum(_product(node) for node in nodes)
    return Work(
        before_forward + loop,
        before_backward + sum(_product(node) for node in back.graph.used(back.results)) + loop,
        _pointwise(nodes),
        _pointwise(back.graph.used(back.results)),
        4 * (sum(plans.widths) + sum(node.width for node in back.kept)),
        4 * inputs,
    )


def _product(node: Node) -> int:
    return 2 * node.width * sum(arg.width for arg in node.args) if node.op == "product" else 0


def _pointwise(nodes: list[Node]) -> int:
    return sum(POINTWISE.get(node.op, 0) * max(node.width, 1) for node in nodes)


def _before(cell: Cell, recurrence: Recurrence, again: set[int]) -> tuple[int, int, int]:
    """Of the prologue: FLOPs forward and backward for each row, and the columns of what is kept of it.

    Products of the input are kept only where the backward loop reads them, `again`.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    rows = 16
    with FakeTensorMode(allow_non_fake_inputs=True), torch.enable_grad(), FlopCounterMode(display=False) as counter:
        x = torch.zeros(rows, cell.input_size, requires_grad=True)
        operands = recurrence.operands(cell, x)
        forward = counter.get_total_flops()
        wanted = [tensor for tensor in operands.inputs if tensor.requires_grad]
        if wanted:
            torch.autograd.backward(wanted, [torch.zeros_like(tensor) for tensor in wanted], inputs=[x, *_leaves(cell)])
        backward = counter.get_total_flops() - forward
        factors = recurrence.factors(cell, x).inputs
    kept = [k for k, one in enumerate(factors) if k in again or not isinstance(one, Product)]
    return forward // rows, backward // rows, sum(operands.inputs[k].shape[1] for k in kept)


def _leaves(cell: Cell) -> list[Tensor]:
    return [weight for weight in cell.parameters() if weight.requires_grad]
