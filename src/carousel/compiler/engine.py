"""Which way a cell is run over time: compiled, by its scan, or eagerly by PyTorch."""

from __future__ import annotations

import operator
import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch._C._functorch import TransformType

from carousel.cells import CELLS, Cell
from carousel.compiler import eager, threads
from carousel.compiler.extent import Layout, Padded, extent
from carousel.compiler.operands import Given, Product, Recurrence
from carousel.compiler.trace import trace
from carousel.compiler.tracer import Unsupported
from carousel.errors import ConfigError

Engine = Literal["auto", "eager", "compiled", "scan"]
ENGINES = ("auto", "eager", "compiled", "scan")


class Known:
    """What tracing found out about a cell, once for each way it is set."""

    def __init__(self, cell: Cell) -> None:
        self._cell = ref(cell)  # what is known of a cell must not keep it alive

    @property
    def cell(self) -> Cell:
        cell = self._cell()
        assert cell is not None, "a cell that is gone"
        return cell

    @cached_property
    def hoisted(self) -> eager.Hoisted | None:
        return eager.hoist(self.cell)

    @cached_property
    def recurrence(self) -> Recurrence | Unsupported:
        try:
            return trace(self.cell)
        except Unsupported as reason:
            return reason

    @cached_property
    def program(self) -> Any:
        """The compiled loops, or why there are none."""
        return self._program(narrow=False)

    @cached_property
    def narrow_program(self) -> Any:
        """The same with products of bfloat16 numbers, if the processor has any."""
        from carousel.compiler import objects  # loads LLVM

        return self._program(narrow=True) if objects.processor().has_bfloat16 else self.program

    def _program(self, *, narrow: bool) -> Any:
        from carousel.compiler.cpu import Program  # loads LLVM

        found = self.recurrence
        return found if isinstance(found, Unsupported) else Program(found, narrow=narrow)


def known(cell: Cell) -> Known:
    """What is known of the cell; found anew after one of its attributes was assigned (`cell.train()` does)."""
    settings = [
        value
        for module in _parts(cell)
        for name, value in vars(module).items()
        if name[0] != "_" and not isinstance(value, Tensor)
    ]
    entry = _KNOWN.get(cell)
    if entry is None or len(entry[0]) != len(settings) or not all(map(operator.is_, entry[0], settings)):
        entry = _KNOWN[cell] = (settings, Known(cell))
    return entry[1]


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """What `module.modules()` gives, at a fifth of its price: this happens at each call."""
    yield module
    for child in module._modules.values():
        if child is not None:
            yield from _parts(child)


_KNOWN: WeakKeyDictionary[Cell, tuple[list[Any], Known]] = WeakKeyDictionary()


def check_engine(engine: str) -> None:
    """Raise ConfigError unless there is such an engine."""
    if engine not in ENGINES:
        raise ConfigError(f"engine: unknown (got {engine!r}); {', '.join(ENGINES)}; 'auto' compiles what it can")


def compiled(cell: Cell, inputs: Tensor, engine: Engine, state: Any = None) -> Any:
    """The program to run the cell on these inputs with, under `torch.compile` its names; None to run it another way.

    Raises:
        ConfigError: the engine is unknown, or it is "compiled" and the cell or the inputs cannot be.
    """
    check_engine(engine)
    if engine in ("eager", "scan"):
        return None
    if torch.compiler.is_compiling():
        from carousel.compiler.operator import names

        found = names(cell, inputs)
        if found is not None or engine == "auto":
            return found
    reason = against(cell, inputs, state)
    if reason is None:
        program = known(cell).narrow_program if _wants_bfloat16() else known(cell).program
        if not isinstance(program, Unsupported):
            return program
        reason = str(program)
        if engine == "auto" and type(cell) not in _WARNED and not cell.has_scan:
            _WARNED.add(type(cell))
            warnings.warn(
                f"{type(cell).__name__} runs eagerly: the compiler does not know {reason}", stacklevel=_to_caller()
            )
    if engine == "compiled":
        raise ConfigError(
            f"engine: cannot compile {type(cell).__name__} (got {reason}); "
            "float32 on the CPU, operations the compiler knows; use engine='auto'"
        )
    return None


_WARNED: set[type] = set()


def _wants_bfloat16() -> bool:
    """Whether PyTorch is told to multiply in bfloat16 inside of float32 recurrent layers on the CPU.

    That is by `torch.backends.mkldnn.rnn.fp32_precision = "bf16"`, or, where that says nothing, by
    `torch.set_float32_matmul_precision("medium")`.
    """
    precision = torch._C._get_fp32_precision_getter  # what the two properties of `torch.backends.mkldnn` read
    found = precision("mkldnn", "rnn")
    return bool((precision("mkldnn", "matmul") if found == "none" else found) == "bf16")


def _to_caller() -> int:
    """How many calls up from here somebody else's code is: neither this package's nor PyTorch's."""
    ours = (str(Path(__file__).parents[1]), str(Path(torch.__file__).parent))
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(ours):
        frame, level = frame.f_back, level + 1
    return level


def compilable(cell: Cell, inputs: Tensor, state: Any) -> bool:
    """Whether compiled loops can run the cell on these inputs."""
    return against(cell, inputs, state) is None and isinstance(known(cell).recurrence, Recurrence)


def scans(cell: Cell, inputs: Tensor, engine: Engine) -> bool:
    """Whether the cell's scan is what runs it, where `compiled` found no program, rather than step after step.

    Left to choose, it is where steps are expensive: on other devices, in a graph of `torch.compile`, which would hold
    every one of them, and for a cell that the compiler does not know. Where a compiled loop can run, it is faster: a
    recurrence without products is bound by memory, and the loop reads and writes everything once.

    Raises:
        ConfigError: the engine is "scan" and the cell has none.
    """
    if engine == "scan" and not cell.has_scan:
        those = ", ".join(name for name, kind in CELLS.items() if kind.scan is not Cell.scan)
        raise ConfigError(
            f"engine: {type(cell).__name__} has no scan (got 'scan'); {those}; take one, or engine='auto'"
        )
    if engine != "auto" or not cell.has_scan:
        return engine == "scan"
    elsewhere = inputs.device.type != "cpu" or torch.compiler.is_compiling()
    return elsewhere or (against(cell, inputs) is None and isinstance(known(cell).recurrence, Unsupported))


def against(cell: Cell, inputs: Tensor, state: Any = None) -> str | None:
    """Why these inputs are not for the compiled loops, if so."""
    weights = [weight for module in _parts(cell) for weight in module._parameters.values() if weight is not None]
    for name, tensors in (("inputs", (inputs,)), ("weights", weights), ("a state", state or ())):
        for tensor in tensors:
            if tensor.dtype != torch.float32:
                return f"{name} of {tensor.dtype}"
            if not tensor.is_cpu:
                return f"{name} on {tensor.device}"
    if type(inputs) is not Tensor and not isinstance(inputs, torch.nn.Parameter):
        return f"inputs of type {type(inputs).__name__}"
    if torch.is_autocast_enabled("cpu"):
        return "autocast"
    if transformations() not in ([], [TransformType.Grad]):
        return "a transformation of torch.func"
    if torch._C._get_tracing_state() is not None:
        return "torch.jit.trace"
    if torch.autograd.forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    return None


def plain(tensor: Tensor) -> bool:
    """Whether these are float32 numbers in memory, and nobody looks through what is done with them."""
    looked_through = torch.compiler.is_compiling() or transformations() or torch._C._get_tracing_state() is not None
    ahead = torch.autograd.forward_ad._current_level >= 0
    return type(tensor) is Tensor and tensor.dtype is torch.float32 and tensor.is_cpu and not (looked_through or ahead)


def transformations() -> list[TransformType]:
    """The transformations of torch.func that are at work, the outermost first."""
    if torch._C._functorch.peek_interpreter_stack() is None:
        return []
    return [interpreter.key() for interpreter in torch._C._functorch.get_interpreter_stack() or []]


def run(program: Any, cell: Cell, inputs: Tensor, sizes: Sequence[int], state: Any) -> tuple[Tensor, Any]:
    """The compiled loop over packed inputs (Σ sizes, I)."""
    if isinstance(program, str):
        from carousel.compiler import operator as operators

        return operators.unroll(program, cell, inputs, sizes, state)
    from carousel.compiler import function, functional

    rows = extent(tuple(sizes))
    if transformations():
        outputs, ends = functional.unroll(program, program.recurrence.operands(cell, inputs), state, rows)
    else:
        operands = program.recurrence.factors(cell, inputs)
        lane = function.Lane(program, Given.of(operands, state), rows, threads.count(rows.batch, operands.work))
        [(outputs, ends)] = function.unroll([lane])
    return outputs, cell.State(*ends)


def run_padded(
    program: Any, cell: Cell, inputs: Tensor, layout: Layout, state: Any, *, reads: bool, gives: bool
) -> tuple[Tensor, Any] | None:
    """`run` of inputs (T, B, I) that it `reads` padded, to outputs that it `gives` padded, or either.

    None if it cannot: a batch without padding, or a cell that reads its input otherwise than by products.
    """
    if layout.places is None or isinstance(program, str) or transformations() or (reads and not inputs.is_contiguous()):
        return None
    operands = program.recurrence.factors(cell, inputs)
    if reads and not all(isinstance(one, Product) and one.x is inputs for one in operands.inputs):
        return None
    from carousel.compiler import function

    rows = extent(tuple(layout.sizes))
    padded = Padded(layout if reads else None, layout if gives else None)
    team = threads.count(rows.batch, operands.work)
    [(outputs, ends)] = function.unroll([function.Lane(program, Given.of(operands, state), rows, team, padded)])
    return outputs, cell.State(*ends)


def run_both(
    cells: Sequence[Cell], inputs: Sequence[Tensor], sizes: Sequence[int], states: Sequence[Any], engine: Engine
) -> list[tuple[Tensor, Any]] | None:
    """`run` of two cells at the same time, each in a thread of its own; None where that cannot be, or does not pay.

    With two threads it saves them from waiting for each other; with more, a batch that is too small to be shared.
    """
    batch = len(states[0][0])
    if torch.compiler.is_compiling() or transformations() or not sizes:
        return None
    if threads.available() < 2 or (threads.available() > 2 and threads.count(batch) > 1):
        return None
    found = [compiled(cell, x, engine, state) for cell, x, state in zip(cells, inputs, states, strict=True)]
    if None in found:
        return None
    from carousel.compiler import function

    rows = extent(tuple(sizes))
    lanes = [
        function.Lane(program, Given.of(program.recurrence.factors(cell, x), state), rows, 1)
        for program, cell, x, state in zip(found, cells, inputs, states, strict=True)
    ]
    results = function.unroll(lanes)
    return [(outputs, cell.State(*ends)) for cell, (outputs, ends) in zip(cells, results, strict=True)]


def stream(cell: Cell, batch: int) -> Any:
    """The cell as a `CompiledStream`."""
    from carousel.compiler.stream import CompiledStream  # loads LLVM

    return CompiledStream(cell, batch)
