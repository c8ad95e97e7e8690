"""The step of a cell as a graph to be drawn: what a person would write into the boxes, read from its trace."""

from __future__ import annotations

import operator
import sys
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NamedTuple

from torch import Tensor, fx, nn

from carousel.cells import Affine, Cell, Packed
from carousel.compiler.tracer import StepTracer
from carousel.errors import ConfigError

BEFORE, AFTER = "ₜ₋₁", "ₜ"
LETTERS = {"weight_input": "W", "weight_hidden": "U", "bias": "b"}
SYMBOLS = {
    **{"sigmoid": "σ", "add": "+", "sub": "+", "mul": "⊙", "truediv": "÷", "div": "÷", "neg": "−", "sum": "Σ"},
    **{"maximum": "max", "minimum": "min", "log_sigmoid": "log σ", "logsigmoid": "log σ", "abs": "| · |"},
    **{"eq": "=", "le": "≤", "lt": "<", "ge": "≥", "gt": ">", "sqrt": "√", "square": "²", "cat": "join"},
}
INFIX = {"add": "+", "sub": "−", "mul": "⊙", "truediv": "/", "div": "/", "eq": "=", "le": "≤", "ge": "≥", "gt": ">"}
TAGS = {"sub": ("", "−"), "truediv": ("", "by"), "div": ("", "by"), "where": ("if", "then", "else")}
SHAPES = {"unflatten", "flatten", "view", "reshape", "unsqueeze", "squeeze", "type_as", "float", "expand", "contiguous"}
PRODUCTS = {"linear", "matmul", "mm", "addmm"}
STAY_ZERO = {"add", "sub", "t", "neg", "tanh", "relu", "abs", "sin", "sum", "chunk", "div", "truediv"}
SHORT = 9  # letters of an expression that is written out where it is used


class Arrow(NamedTuple):
    """What a box reads: another, what that is called in it, and through which weights."""

    source: Box
    tag: str = ""
    weights: tuple[str, ...] = ()


@dataclass(eq=False)
class Box:
    """One value of the step."""

    kind: str  # source, product, operation or result
    label: tuple[str, ...]  # its lines
    text: str  # what it is called where it is used
    arrows: list[Arrow] = field(default_factory=list)
    name: str | None = None  # of the variable in `step`

    @property
    def is_input(self) -> bool:
        return self.label == (f"x{AFTER}",) and self.kind == "source"


class _Zero:
    """The value of a product with weights that are zero."""


class _Parts(NamedTuple):
    whole: Box
    number: int


Value = Any  # a Box, the text of what depends on parameters alone, a _Zero, or _Parts


def step_graph(cell: Cell, *, feed_forward: bool = False) -> list[Box]:
    """The boxes of one step of a cell, sources first, results last.

    They are read from the trace of `step`, and named after its local variables.

    Args:
        feed_forward: of the cell whose recurrent weights are zero.

    Raises:
        ConfigError: the step cannot be traced.

    >>> from carousel.cells import GRU
    >>> [box.name for box in step_graph(GRU(3, 4)) if box.name]
    ['r', 'z', 'a']
    >>> [" / ".join(box.label) for box in step_graph(GRU(3, 4)) if box.kind == "product"]
    ['W x + U h + b / reset', 'W x + U h + b / update', 'W x + U (r ⊙ h) + b / candidate']
    """
    tracer = _Tracer(cell, leaf=lambda module: isinstance(module, Packed) or type(module).__module__[:8] == "torch.nn")
    try:
        graph = tracer.trace(cell)
    except Exception as error:
        raise ConfigError(
            f"{type(cell).__name__}: cannot be drawn (got {str(error).splitlines()[0]}); a step without control flow "
            "that depends on tensors; see carousel.Cell"
        ) from error
    return _Reader(cell, graph, tracer.names, feed_forward).read()


class _Tracer(StepTracer):
    """Notes the local variables with which `step` returned."""

    names: dict[fx.Node, str]

    def trace(self, root: Any, concrete_args: Any = None) -> fx.Graph:
        self.names = {}
        code, before = type(root).step.__code__, sys.getprofile()

        def note(frame: FrameType, event: str, argument: Any) -> None:
            if event == "return" and frame.f_code is code:
                for name, value in frame.f_locals.items():
                    if isinstance(value, fx.Proxy) and value.node.op != "placeholder":
                        self.names.setdefault(value.node, name)

        sys.setprofile(note)
        try:
            return super().trace(root, concrete_args)
        finally:
            sys.setprofile(before)


class _Reader:
    def __init__(self, cell: Cell, graph: fx.Graph, names: dict[fx.Node, str], feed_forward: bool) -> None:
        self.cell, self.graph, self.names = cell, graph, names
        self.input, self.state = graph.find_nodes(op="placeholder")
        self.boxes: list[Box] = []
        self.fields: dict[str, Box] = {}
        self.values: dict[Any, Value] = {}
        recurrent = cell.recurrent_weights() if feed_forward else ()
        self.zeros = {weight.untyped_storage().data_ptr() for weight in recurrent}
        self.maps = {(id(a.packed), a.k): name for name, a in vars(cell).items() if isinstance(a, Affine)}

    def read(self) -> list[Box]:
        for node in self.graph.nodes:
            if node is self.input:
                self.values[node] = self.box("source", f"x{AFTER}", text="x")
            elif node.op not in ("placeholder", "output") and node.target is not self.cell.State:
                value = self.values[node] = self.value(node)
                if isinstance(value, Box) and value.kind != "source" and node in self.names:
                    value.name = value.text = self.names[node]
        results = self.results()
        for name, result in zip(self.cell.State._fields, results, strict=True):
            value = self.of(result)
            arrows = [Arrow(value)] if isinstance(value, Box) else []
            self.box("result", f"{name}{AFTER}" + ("" if arrows else f" = {_text(value)}"), arrows=arrows, text=name)
        return self.needed()

    def results(self) -> tuple[Any, ...]:
        """What the step returns, field by field."""
        (output,) = self.graph.find_nodes(op="output")
        (state,) = output.args
        fields = self.cell.State._fields
        if isinstance(state, fx.Node):
            return (*state.args, *(state.kwargs[name] for name in fields[len(state.args) :]))
        return tuple(state)

    def needed(self) -> list[Box]:
        """The boxes that the results read, and their own."""
        found = [box for box in self.boxes if box.kind == "result"]
        for box in found:
            found += [arrow.source for arrow in box.arrows if arrow.source not in found]
        return [box for box in self.boxes if box in found]

    def box(self, kind: str, *label: str, text: str = "·", arrows: Any = ()) -> Box:
        self.boxes.append(Box(kind, tuple(filter(None, label)), text, list(arrows)))
        return self.boxes[-1]

    def value(self, node: fx.Node) -> Value:
        if node.op == "call_function" and node.args[0] is self.state:  # by name or by place
            key: Any = node.args[1]
            name = key if node.target is getattr else self.cell.State._fields[key]
            if name not in self.fields:
                label = f"{name}{BEFORE}"
                self.fields[name] = self.box("source", label, text=label if name == "x" else name)
            return self.fields[name]
        if node.op == "get_attr":
            return self.parameter(node)
        if node.op == "call_module":
            return self.module(node)
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        name = name.strip("_")
        operands = node.args[0] if name in ("cat", "stack") else node.args
        arguments = [self.of(operand) for operand in operands]  # type: ignore[union-attr]
        if name == "getitem":
            return self.part(*arguments)
        if name in ("chunk", "split", "unbind") and isinstance(arguments[0], Box):
            return _Parts(arguments[0], len(node.users))
        if name in SHAPES:
            return arguments[0]
        if name in PRODUCTS:
            return self.product(name, *arguments, **{key: self.of(value) for key, value in node.kwargs.items()})
        if not any(isinstance(arg, Box) for arg in arguments):
            value = _of_parameters(name, arguments)
            return value if isinstance(value, _Zero) else self.names.get(node, value)
        return self.operation(node, name, arguments)

    def of(self, argument: Any) -> Value:
        return self.values[argument] if isinstance(argument, fx.Node) else argument

    def parameter(self, node: fx.Node) -> Value:
        tensor: Any = operator.attrgetter(str(node.target))(self.cell)
        if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() in self.zeros:
            return _Zero()
        name = str(node.target).rpartition(".")[2]
        return self.names.get(node, LETTERS.get(name, name))

    def part(self, whole: Value, index: Any) -> Value:
        if not isinstance(whole, _Parts):
            return whole
        box, name = whole.whole, f"{index + 1} of {whole.number}"
        return self.box("operation", name, arrows=[Arrow(box)])

    def module(self, node: fx.Node) -> Value:
        path = str(node.target)
        module: Any = self.cell.get_submodule(path)
        if isinstance(module, Packed):
            return self.affine(module, *map(self.of, node.args))
        (argument,) = (self.values[arg] for arg in node.args if isinstance(arg, fx.Node))
        if isinstance(module, nn.Identity):
            return argument
        if isinstance(module, nn.Linear):
            zero = module.weight.untyped_storage().data_ptr() in self.zeros
            bias = None if module.bias is None else "b"
            letter = "U" if any(module.weight is weight for weight in self.cell.recurrent_weights()) else "W"
            return self.product(path, argument, _Zero() if zero else letter, bias, name=path)
        label = "LN" if isinstance(module, nn.LayerNorm) else type(module).__name__
        if not isinstance(argument, Box):
            return f"{label}({_text(argument)})"
        return self.box("operation", SYMBOLS.get(label.lower(), label), arrows=[Arrow(argument)])

    def affine(self, packed: Packed, k: int, x: Value, h: Value) -> Value:
        """`W x + U h + b`, as far as it is there."""
        zero = packed.recurrent_size and packed.weight_hidden.untyped_storage().data_ptr() in self.zeros
        pairs = [("W", x), ("U", None if zero else h)]
        terms = [(letter, value) for letter, value in pairs if isinstance(value, Box)]
        written = [f"{letter} {_factor(value.text)}" for letter, value in terms]
        if packed.bias is not None and isinstance(x, Box):
            written.append("b")
        if not terms:
            return "b" if written else _Zero()
        arrows = [Arrow(value, "", (letter,)) for letter, value in terms]
        return self.box("product", " + ".join(written), self.maps.get((id(packed), k), ""), arrows=arrows)

    def product(self, kind: str, *operands: Value, name: str = "", bias: Value = None) -> Value:
        if kind == "addmm":
            bias, *operands = operands  # type: ignore[assignment]
        a, weight, *more = operands
        bias = more[0] if more else bias
        if isinstance(a, _Zero) or isinstance(weight, _Zero):
            return _Zero() if bias is None else bias
        if kind in ("matmul", "mm", "addmm") and not isinstance(weight, Box) and not isinstance(a, Box):
            return f"{_factor(_text(a))} {_factor(_text(weight))}"
        if isinstance(weight, Box) and not isinstance(a, Box):  # U h, with the weight first
            a, weight = weight, a
        elif isinstance(weight, Box):
            label = f"{_factor(a.text)} {_factor(weight.text)}"
            return self.box("product", label, arrows=[Arrow(a), Arrow(weight)])
        elif kind in ("matmul", "mm", "addmm"):
            weight = weight.removesuffix("ᵀ") if weight.endswith("ᵀ") else f"{_factor(weight)}ᵀ"
        label, arrows = f"{_factor(weight)} {_factor(a.text)}", [Arrow(a, "", (weight,))]
        if bias is not None:
            label += f" + {_text(bias)}"
            arrows += [Arrow(bias)] if isinstance(bias, Box) else []
        return self.box("product", label, name, arrows=arrows)

    def operation(self, node: fx.Node, name: str, arguments: list[Value]) -> Value:
        zeros = [isinstance(arg, _Zero) for arg in arguments]
        if any(zeros) and name in ("mul", "add", "sub"):
            if name == "mul":
                return _Zero()
            if name == "add" or zeros[1]:
                return arguments[zeros[0]]
        if name == "mul" and 1 in arguments:
            return arguments[arguments[0] == 1]
        tags = TAGS.get(name, ("",) * len(arguments))
        label, text, extra = SYMBOLS.get(name, name), "·", ""
        boxes = [arg for arg in arguments if isinstance(arg, Box)]
        if name in INFIX:
            text = f" {INFIX[name]} ".join(_factor(_text(arg)) for arg in arguments)
            for k, arg in enumerate(arguments):
                if not isinstance(arg, Box):
                    sign = "×" if name == "mul" and not isinstance(arg, str) else INFIX[name]
                    label = f"{_text(arg)} {sign}" if k == 0 or name == "mul" else f"{sign} {_text(arg)}"
                    tags = ("", "")
        else:
            words = [
                f"{tag} {_text(arg)}" for tag, arg in zip(tags, arguments, strict=False) if not isinstance(arg, Box)
            ]
            words = [word.strip() for word in words]
            words += [f"{key} {_text(arg)}" for key, arg in node.kwargs.items() if key != "dim"]
            extra = ", ".join(words) if name != "sum" else ""
            text = f"{label}({', '.join(map(_text, boxes))})"
        weights = tuple(arg for arg in arguments if isinstance(arg, str)) if name == "mul" else ()
        arrows = [Arrow(arg, tag, weights) for tag, arg in zip(tags, arguments, strict=False) if isinstance(arg, Box)]
        if label == "+":
            arrows = [inner for arrow in arrows for inner in self.terms(node, arrow)]
        return self.box(
            "operation", label, extra, text=text if len(text) <= SHORT and "·" not in text else "·", arrows=arrows
        )

    def terms(self, node: fx.Node, arrow: Arrow) -> list[Arrow]:
        """What a sum adds up, where one of its terms is a sum that nothing else reads."""
        inner = arrow.source
        (read, *_) = [arg for arg in node.all_input_nodes if self.values[arg] is inner]
        if inner.label != ("+",) or inner.name or arrow.tag or len(read.users) > 1:
            return [arrow]
        self.boxes.remove(inner)
        return inner.arrows


def _text(value: Value) -> str:
    match value:
        case Box():
            return value.text
        case _Zero():
            return "0"
        case bool() | int() | float():
            return f"{value:.4g}"
    return str(value)


def _factor(text: str) -> str:
    return f"({text})" if " " in text else text


def _of_parameters(name: str, arguments: list[Value]) -> Value:
    """The text of what depends on parameters alone."""
    zeros = [isinstance(arg, _Zero) for arg in arguments]
    if any(zeros) and (name == "mul" or (name in STAY_ZERO and all(zeros[: 1 + (name in ("add", "sub"))]))):
        return _Zero()
    if name in ("t", "T", "transpose"):
        return f"{_factor(_text(arguments[0]))}ᵀ"
    if name in INFIX:
        return f" {INFIX[name]} ".join(_factor(_text(arg)) for arg in arguments)
    return f"{SYMBOLS.get(name, name)}({', '.join(map(_text, arguments))})"
