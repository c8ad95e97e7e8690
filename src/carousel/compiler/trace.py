"""A cell's `step`, traced by torch.fx, cut into what leaves the time loop and the graph of what stays.

Each value of the step depends on the parameters alone, or on the input besides, or on the state. Only the last kind
stays in the loop. The others are the prologue: a function of the cell and of the inputs of all time steps at once,
run by PyTorch, which also differentiates it. So `W x + b` becomes one matrix product over time, and so does its
gradient, whoever wrote the cell and however it is spelt.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from carousel.cells import Cell
from carousel.compiler.graph import LEAVES, Graph, Node, in_pieces
from carousel.compiler.operands import Recurrence, computed
from carousel.compiler.operations import RULES, TAKEN_IN, Cat
from carousel.compiler.tracer import StepTracer, Unsupported

RANDOM = {
    *("dropout", "alpha_dropout", "feature_alpha_dropout", "dropout1d", "dropout2d", "dropout3d", "gumbel_softmax"),
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "new_empty", "empty_like"),
    *("bernoulli", "bernoulli_", "normal", "normal_", "uniform_", "exponential_", "poisson", "multinomial", "rrelu"),
}

NOT_COMPUTED = "a field of the state that the step does not compute, of which to read the gradient"
ROWS = 5  # sequences in the batch that shapes are read from


def trace(cell: Cell, *, hoist: bool = True) -> Recurrence:
    """The recurrence that `cell.step` computes.

    Args:
        hoist: take the products of the input out of the loop; without, they are products like those of the state,
            which is the better way if there is only one step to take.

    Raises:
        Unsupported: it holds something the compiler does not know.
    """
    tracer = StepTracer(cell, leaf=lambda module: False)
    try:
        traced = tracer.trace(cell)
    except Unsupported:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise Unsupported(
            f"a step that torch.fx cannot trace ({reason[0] if reason else type(error).__name__})"
        ) from error
    return Lowering(cell, traced, hoist).run()


class _Shapes(fx.Interpreter):
    """Runs the step once and notes the value of each node."""

    def __init__(self, cell: Cell, graph: fx.Graph) -> None:
        super().__init__(cell, graph=graph)
        self.found: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = self.found[n.name] = super().run_node(n)
        return value


class Lowering:
    """From the nodes of torch.fx to those of the graph."""

    def __init__(self, cell: Cell, traced: fx.Graph, hoist: bool) -> None:
        self.cell, self.traced, self.hoist = cell, traced, hoist
        self.graph = Graph()
        self.x, self.state = traced.find_nodes(op="placeholder")
        self.prologue = fx.Graph()
        self.copies: dict[fx.Node, fx.Node] = {}
        self.operands: dict[str, list[fx.Node]] = {"input": [], "weight": [], "vector": []}
        self.places: dict[Any, int] = {}  # a node of the prologue -> its place among the operands of its kind
        self.values: dict[fx.Node, Any] = {}
        self.depends: dict[fx.Node, int] = {}  # 0 on parameters, 1 on the input, 2 on the state
        self.merged: dict[fx.Node, tuple[fx.Node, int]] = {}
        self.numbers: dict[fx.Node, fx.Node] = {}  # copies in the type of the loop
        self.flat: dict[fx.Node, fx.Node] = {}  # rows (1, ·) as vectors

    def run(self) -> Recurrence:
        self.shapes = self.read_shapes()
        self.check_pure()
        if self.hoist:
            self.take_in()
        for node in self.traced.nodes:
            if self.depends[node] < 2 and node.op != "output" and node is not self.result:
                self.copies[node] = self.prologue.node_copy(node, lambda n: self.copies[n])
        if self.hoist:
            self.merge_input_products()
        for node in self.traced.nodes:
            if self.depends[node] == 2 and node.op != "output" and node not in (self.state, self.result):
                self.values[node] = self.lower(node)
        self.graph, state = in_pieces(*self.gauged_throughout(self.lower_result()))
        self.graph, state = self.apart(state)
        prologue = self.function()
        self.check_rows_apart(prologue)
        return Recurrence(self.graph, state, self.cell.State._fields, prologue)

    def function(self, *, dropout: bool = True) -> Callable[[Cell, Tensor], Any]:
        """The prologue."""
        inputs = [self.factors(node) for node in self.operands["input"]]
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        graph.graph_copy(self.prologue, copies)
        results = (inputs, self.operands["weight"], self.operands["vector"])
        graph.output(fx.map_arg(results, lambda node: copies[node]))
        for node in [] if dropout else [node for node in graph.nodes if node.target in (F.dropout, torch.dropout)]:
            node.replace_all_uses_with(node.args[0] if node.args else node.kwargs["input"])
            graph.erase_node(node)
        graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
        graph.lint()
        forward: Callable[[Cell, Tensor], Any] = type(fx.GraphModule(self.cell, graph)).forward
        return forward

    def factors(self, node: fx.Node) -> Any:
        """What a product of the input is made of; other inputs as they are."""
        merged = any(product is node for product, _ in self.merged.values())
        return tuple(node.args) if merged and self.operands["input"].count(node) == 1 else node

    # What depends on what, and how large it is.

    def dependence(self, node: fx.Node) -> int:
        if node is self.state:
            return 2
        if node is self.x:
            return 1
        return max((self.depends[arg] for arg in node.all_input_nodes), default=0)

    @property
    def result(self) -> Any:
        """What the step returns."""
        (output,) = self.traced.find_nodes(op="output")
        return output.args[0]

    def read_shapes(self) -> dict[str, Any]:
        interpreter = _Shapes(self.cell, self.traced)
        buffers = [(buffer, buffer.clone()) for buffer in self.cell.buffers()]
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            try:
                interpreter.run(self.example(), self.cell.initial_state(ROWS))
            except RuntimeError as error:  # a mask made for one batch, or a mistake: running it as written will tell
                raise Unsupported(f"a step that fails for {ROWS} sequences ({str(error).splitlines()[0]})") from error
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
                    raise Unsupported("a step that changes a buffer")
        return interpreter.found

    def example(self) -> Tensor:
        like = self.cell.initial_state(ROWS)[0]
        x = torch.linspace(-1, 1, ROWS * self.cell.input_size, dtype=like.dtype, device=like.device)
        return x.view(ROWS, -1)

    def width(self, node: fx.Node) -> int:
        """The columns of a value (ROWS, columns)."""
        value = self.shapes[node.name]
        if not isinstance(value, Tensor) or value.dim() != 2 or value.shape[0] != ROWS:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            self.unsupported(node, f"a value of shape {got} where (B, columns) is wanted")
        return int(value.shape[1])

    def unsupported(self, node: fx.Node, what: str) -> Any:
        raise Unsupported(f"{what}{node.meta.get('place', '')}")

    def check_pure(self) -> None:
        """The prologue runs once: nothing may be drawn there for all steps, and nothing changed in place."""
        for node in self.traced.nodes:
            name, options = _name(node), [*node.args[2:3], node.kwargs.get("training", True)]
            drawn = name in RANDOM and not ("dropout" in name and False in options)
            if drawn and not (name == "dropout" and self.dependence(node) > 0):
                self.unsupported(node, f"the random numbers of {name!r}, new ones at each step,")
            if (node.op == "call_method" and re.search("[^_]_$", name)) or node.kwargs.get("inplace"):
                self.unsupported(node, f"{name!r} in place")
            self.depends[node] = self.dependence(node)
            if name == "gauged_whole" and self.depends[node] < 2:
                raise Unsupported(NOT_COMPUTED)

    def check_rows_apart(self, prologue: Callable[..., Any]) -> None:
        """The prologue sees all time steps at once: make sure that no row looks at another."""
        if any(node.target in (F.dropout, torch.dropout) for node in self.prologue.nodes):
            prologue = self.function(dropout=False)
        x = torch.sin(57 * self.example())  # in no order
        x[2] = math.nan  # what sees that row shows it, were it multiplied by zero
        with torch.no_grad():
            together, *apart = (computed(prologue(self.cell, rows)[0]) for rows in (x, *torch.split(x, 1)))
        for whole, *parts in zip(together, *apart, strict=True):
            if whole.shape[0] != ROWS or not torch.allclose(whole, torch.cat(parts), atol=1e-5, equal_nan=True):
                raise Unsupported("an operation that mixes the sequences of a batch")

    def take_in(self) -> None:
        """Leave elementwise functions of products of the input, and layer norms, to the loop all the same.

        There they cost a few instructions, on what the loop reads anyway; before it, PyTorch would go through memory
        for each, and again for its gradient.
        """
        possible: set[fx.Node] = set()
        for node in self.traced.nodes:
            if self.depends[node] == 1 and _name(node) in TAKEN_IN and self.is_matrix(node):
                args = node.all_input_nodes
                from_input = [arg for arg in args if self.depends[arg] == 1]
                if all(arg in possible or (arg.target is F.linear and self.is_matrix(arg)) for arg in from_input):
                    possible.add(node)
        for node in reversed(list(self.traced.nodes)):
            if node in possible and node.users and all(self.depends[user] == 2 for user in node.users):
                self.depends[node] = 2

    def is_matrix(self, node: fx.Node) -> bool:
        """Whether it is a value (ROWS, columns), of more than one column."""
        value = self.shapes[node.name]
        return isinstance(value, Tensor) and value.dim() == 2 and value.shape[0] == ROWS and value.shape[1] > 1

    # What the prologue hands over.

    def place(self, kind: str, node: fx.Node) -> int:
        if (kind, node) not in self.places:
            self.places[kind, node] = len(self.operands[kind])
            self.operands[kind].append(node)
        return self.places[kind, node]

    def gauged_throughout(self, state: tuple[Node, ...]) -> tuple[Graph, tuple[Node, ...]]:
        """The graph in which all that reads a value with a `gauged_whole` around it reads it through that gauge."""
        used = self.graph.used(state)
        marks = [node for node in used if node.op == "gauged_whole"]
        if not marks:
            return self.graph, state
        if any(mark.args[0].op in LEAVES for mark in marks):
            raise Unsupported(NOT_COMPUTED)
        graph, copies = Graph(), dict[Node, Node]()
        for node in used:
            args = tuple(copies[arg] for arg in node.args)
            copies[node] = args[0] if node in marks else graph.copy(node, args, node.attr)
            for mark in marks:
                if mark.args[0] is node:
                    reading = graph.copy(mark.args[1], (), mark.args[1].attr)
                    copies[node] = graph.apply("gauged", copies[node], reading, attr=(math.inf, "norm"))
        return graph, tuple(copies[node] for node in state)

    def apart(self, state: tuple[Node, ...]) -> tuple[Graph, tuple[Node, ...]]:
        """The graph in which leaves that share columns have operands of their own, so that their gradients add up."""
        graph = Graph()
        copies: dict[Node, Node] = {}
        taken: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for node in self.graph.used(state):
            attr = node.attr
            if node.op in ("input", "vector"):
                tensor, start = attr
                same = [
                    k for k, operand in enumerate(self.operands[node.op]) if operand is self.operands[node.op][tensor]
                ]
                for place in [*same, len(self.operands[node.op])]:
                    spans = taken.setdefault((node.op, place), [])
                    if not any(start < last and first < start + node.width for first, last in spans):
                        break
                else:
                    raise AssertionError("a new operand has no columns taken")
                if place == len(self.operands[node.op]):
                    self.operands[node.op].append(self.operands[node.op][tensor])
                spans.append((start, start + node.width))
                attr = (place, start)
            copies[node] = graph.copy(node, tuple(copies[arg] for arg in node.args), attr)
        return graph, tuple(copies[node] for node in state)

    def rows_of(self, node: fx.Node) -> tuple[fx.Node, int]:
        """A slice of the first axis of a parameter as that parameter and where the slice starts."""
        if node.op == "call_function" and node.target is operator.getitem and isinstance(node.args[1], slice):
            base, rows = node.args
            assert isinstance(base, fx.Node) and isinstance(rows, slice)
            if rows.step in (None, 1) and all(isinstance(end, int | None) for end in (rows.start, rows.stop)):
                root, first = self.rows_of(base)
                start, _, _ = rows.indices(len(self.shapes[base.name]))
                return root, first + start
        return node, 0

    def merge_input_products(self) -> None:
        """Products of one operand with neighbouring rows of one weight become one product."""
        families: dict[Any, list[tuple[int, int, fx.Node]]] = {}
        for node in self.traced.nodes:
            if self.depends[node] == 1 and node.target is F.linear and any(self.depends[u] == 2 for u in node.users):
                x, weight, bias = _linear_arguments(node)
                W, start = self.rows_of(weight)
                b, bias_start = self.rows_of(bias) if isinstance(bias, fx.Node) else (bias, start)
                if bias_start == start:
                    families.setdefault((x, W, b), []).append((start, self.width(node), node))
        for (x, W, b), members in families.items():
            for run in _neighbours(sorted(members, key=lambda member: member[:2])):
                first, last = run[0][0], run[-1][0] + run[-1][1]
                weight, bias = self.slice(W, first, last), None if b is None else self.slice(b, first, last)
                product = self.prologue.call_function(F.linear, (self.copies[x], weight, bias))
                for start, _, node in run:
                    self.merged[node] = product, start - first

    def slice(self, node: fx.Node, first: int, last: int) -> fx.Node:
        copy = self.copies[node]
        whole = (first, last) == (0, len(self.shapes[node.name]))
        return copy if whole else self.prologue.call_function(operator.getitem, (copy, slice(first, last)))

    def input(self, node: fx.Node) -> Node:
        width = self.width(node)
        if not self.hoist and node.target is F.linear:
            x, weight, bias = _linear_arguments(node)
            return self.linear(self.input(x), weight, bias)
        product, start = self.merged.get(node, (self.as_numbers(node), 0))
        return self.graph.leaf("input", (self.place("input", product), start), width=width)

    def as_numbers(self, node: fx.Node) -> fx.Node:
        """The copy of a value, in the type that the loop computes with; a mask of booleans is 0 and 1."""
        own, wanted = self.shapes[node.name].dtype, self.shapes[self.x.name].dtype
        if own == wanted:
            return self.copies[node]
        if own.is_floating_point or own.is_complex:
            self.unsupported(node, f"a value of {own} beside others of {wanted}")
        if node not in self.numbers:
            self.numbers[node] = self.prologue.call_method("type_as", (self.copies[node], self.copies[self.x]))
        return self.numbers[node]

    def vector(self, node: fx.Node) -> Node:
        shape = [size for size in self.shapes[node.name].shape if size != 1]
        if len(shape) > 1:
            self.unsupported(node, f"a parameter of shape {tuple(self.shapes[node.name].shape)} outside a product")
        root, start = self.rows_of(node)
        if self.shapes[root.name].dim() > 1:
            if node not in self.flat:
                self.flat[node] = self.parameters("reshape", node, -1)
            root, start = self.flat[node], 0
        width = shape[0] if shape else 1
        return self.graph.leaf("vector", (self.place("vector", self.as_numbers(root)), start), width=width)

    def weight(self, node: fx.Node) -> tuple[int, int, bool]:
        """A matrix (out, in) of parameters as the operand it lies in."""
        if self.depends[node] != 0 or self.shapes[node.name].dim() != 2:
            self.unsupported(node, "a product with something other than a matrix of parameters")
        root, start = self.rows_of(node)
        return self.place("weight", self.as_numbers(root)), start, False

    def transposed(self, node: fx.Node) -> fx.Node:
        """The transpose of a matrix of parameters."""
        args = node.args
        if node.op == "call_method" and (node.target == "t" or node.target == "transpose"):
            assert isinstance(args[0], fx.Node)
            return args[0]
        if node.op == "call_function" and node.target is getattr and args[1] in ("T", "mT"):
            assert isinstance(args[0], fx.Node)
            return args[0]
        if self.depends[node] != 0 or self.shapes[node.name].dim() != 2:
            self.unsupported(node, "a product with something other than a matrix of parameters")
        return self.parameters("t", node)

    def parameters(self, method: str, node: fx.Node, *args: Any) -> fx.Node:
        """A new value of parameters alone."""
        with self.traced.inserting_after(node):
            new = self.traced.call_method(method, (node, *args))
        value = self.shapes[node.name]
        self.shapes[new.name] = getattr(value, method)(*args)
        self.depends[new] = 0
        self.copies[new] = self.prologue.call_method(method, (self.copies[node], *args))
        return new

    # The step itself.

    def value(self, argument: Any) -> Any:
        """What an argument is in the graph."""
        if isinstance(argument, fx.Node):
            return (self.vector, self.input, self.values.__getitem__)[self.depends[argument]](argument)
        if isinstance(argument, bool | int | float):
            return self.graph.constant(argument)
        return argument

    def lower(self, node: fx.Node) -> Any:
        name = _name(node)
        if node.op == "call_function" and node.target is getattr and node.args[0] is self.state:
            index = self.cell.State._fields.index(str(node.args[1]))
            return self.graph.leaf("state", index, width=self.width(node))
        if name not in RULES:
            self.unsupported(node, f"the operation {name!r}")
        rule = RULES[name]
        try:
            result = rule(self, node, *node.args, **node.kwargs)
        except Unsupported:
            raise
        except Exception as error:  # a form that the rule was not written for
            raise Unsupported(f"{name!r} in this form ({error}){node.meta['place']}") from error
        if isinstance(result, Node) and result.width != self.width(node):
            if result.width > 1:
                self.unsupported(node, f"{name!r} of these shapes")
            result = self.graph.spread(result, self.width(node)) if self.width(node) > 1 else result
        return result

    def lower_result(self) -> tuple[Node, ...]:
        result, fields = self.result, self.cell.State._fields
        if isinstance(result, fx.Node) and result.target is self.cell.State:
            result = (*result.args, *(result.kwargs[name] for name in fields[len(result.args) :]))
        if not isinstance(result, tuple) or len(result) != len(fields):
            raise Unsupported("a step that does not return a State made there")
        state = []
        for field, before in zip(result, self.cell.initial_state(1), strict=True):
            node = self.value(field)
            if not isinstance(node, Node) or before.dim() != 2:
                raise Unsupported("a state that is not made of tensors (B, columns)")
            state.append(node if node.width == before.shape[1] else self.graph.spread(node, before.shape[1]))
        return tuple(state)

    def apply(self, op: str, *args: Any, attr: Any = None) -> Node:
        return self.graph.apply(op, *map(self.value, args), attr=attr)

    def linear(self, operand: Any, weight: fx.Node, bias: Any = None) -> Node:
        parts = operand.parts if isinstance(operand, Cat) else [(operand, None)]
        terms, first = [], 0
        for part, width in parts:
            piece = weight
            if width is not None:
                piece = self.parameters("narrow", weight, 1, first, width)
                first += width
            terms.append(self.product(part, piece))
        if bias is not None:
            terms.append(self.value(bias))
        return self.graph.total(terms)

    def product(self, operand: Any, weight: fx.Node) -> Node:
        if isinstance(operand, fx.Node):  # an input, beside the state in a `cat`
            copy = self.prologue.call_function(F.linear, (self.copies[operand], self.copies[weight]))
            place = self.place("input", copy)
            return self.graph.leaf("input", (place, 0), width=len(self.shapes[weight.name]))
        return self.graph.product((self.weight(weight), operand), width=len(self.shapes[weight.name]))


def _linear_arguments(node: fx.Node) -> tuple[Any, Any, Any]:
    def arguments(input: Any, weight: Any, bias: Any = None) -> tuple[Any, Any, Any]:
        return input, weight, bias

    return arguments(*node.args, **node.kwargs)


def _neighbours(members: Sequence[tuple[int, int, fx.Node]]) -> Iterator[list[tuple[int, int, fx.Node]]]:
    run = [members[0]]
    for member in members[1:]:
        start, width, _ = run[-1]
        if member[0] in (start + width, start) and member[:2] != (start + width, 0):
            run.append(member)
        else:
            yield run
            run = [member]
    yield run


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
