"""A traced recurrence, written out again as equations."""

from __future__ import annotations

import ast
import linecache
from dataclasses import dataclass

from carousel.cells import Affine, Cell
from carousel.compiler.graph import Graph, Node
from carousel.compiler.operands import Recurrence

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "gt": ">", "ge": ">=", "eq": "="}
_BINDS = {"gt": 0, "ge": 0, "eq": 0, "add": 1, "sub": 1, "mul": 2, "div": 2, "neg": 3}
_LETTERS = {"input": "p", "weight": "U", "vector": "v"}


@dataclass(frozen=True)
class Equations:
    """What a recurrence computes before its loop, the names of weights in the loop, and the loop's step."""

    before: list[str]
    weights: list[str]
    step: list[str]


def equations(cell: Cell, recurrence: Recurrence) -> Equations:
    """The equations of a recurrence, with the cell's own names.

    >>> from carousel.cells import Elman
    >>> from carousel.compiler.trace import trace
    >>> cell = Elman(3, 4)
    >>> found = equations(cell, trace(cell))
    >>> found.before, found.weights, found.step
    (['p = packed.weight_input x + packed.bias'], ['U = packed.weight_hidden'], ["h' = tanh(p + U h)"])
    """
    operands = _operands(recurrence)
    letters = {
        kind: [letter if len(operands[kind]) == 1 else f"{letter}{k}" for k in range(len(operands[kind]))]
        for kind, letter in _LETTERS.items()
    }
    written = {
        kind: [f"{name} = {text}" for name, text in zip(letters[kind], operands[kind], strict=True)]
        for kind in operands
    }
    names = _names(cell, recurrence, operands["weight"])
    writer = _Writer(recurrence, letters, names)
    return Equations(written["input"], written["weight"] + written["vector"], writer.step())


# Before the loop: torch.fx has written the prologue as Python, each value once.


def _operands(recurrence: Recurrence) -> dict[str, list[str]]:
    code = recurrence.prologue.__code__
    (function,) = ast.parse("".join(linecache.getlines(code.co_filename)).strip()).body
    assert isinstance(function, ast.FunctionDef), "what torch.fx has written"
    values: dict[str, ast.expr] = {}
    for line in function.body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name) and not _clears(line.value):
            values[line.targets[0].id] = line.value
        elif isinstance(line, ast.Return) and isinstance(line.value, ast.Tuple):
            groups = [group.elts for group in line.value.elts if isinstance(group, ast.List | ast.Tuple)]
            texts = [[_text(one, values) for one in group] for group in groups]
            return dict(zip(_LETTERS, texts, strict=True))
    raise AssertionError("a prologue returns its operands")


def _clears(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _text(value: ast.expr, values: dict[str, ast.expr]) -> str:
    """An expression with what its variables stand for, products and slices as one writes them."""
    match value:
        case ast.Name(id=name) if name in values:
            return _text(values[name], values)
        case ast.Attribute():
            return ast.unparse(value).removeprefix("self.")
        case ast.Tuple(elts=[x, weight, *bias]) | ast.Call(func=ast.Attribute(attr="linear"), args=[x, weight, *bias]):
            product = f"{_text(weight, values)} {_text(x, values)}"
            terms = [_text(one, values) for one in bias if not _clears(one)]
            return " + ".join([product, *terms])
        case ast.Subscript(value=whole, slice=ast.Call(func=ast.Name(id="slice"), args=[first, last, *_])):
            return f"{_text(whole, values)}[{ast.unparse(first)}:{ast.unparse(last)}]"
        case ast.Call(func=function, args=args, keywords=keywords):
            inside = [_text(one, values) for one in args]
            inside += [f"{keyword.arg}={ast.unparse(keyword.value)}" for keyword in keywords]
            called = ast.unparse(function).split(".")[-1]
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                owner = function.value
                called = f"{_text(owner, values)}.{called}" if owner.id in values or owner.id == "x" else called
            return f"{called}({', '.join(inside)})"
        case ast.BinOp(left=left, op=op, right=right):
            sign = ast.unparse(ast.BinOp(ast.Name("a"), op, ast.Name("b")))[1:-1]
            return f"({_text(left, values)}{sign}{_text(right, values)})"
    return ast.unparse(value)


# In the loop.


def _names(cell: Cell, recurrence: Recurrence, weights: list[str]) -> dict[Node, str]:
    """The fields of the new state and, for products with one of the cell's maps, the gate that they make."""
    blocks = {id(module): path for path, module in cell.named_modules()}
    maps = {
        (f"{blocks.get(id(affine.packed), '')}.weight_hidden", affine.k * affine.packed.hidden_size): name
        for name, affine in vars(cell).items()
        if isinstance(affine, Affine)
    }
    nodes = recurrence.graph.used(recurrence.state)
    found: dict[Node, str] = {}
    for node in nodes:
        if node.op == "product" and len(node.attr) == 1:
            tensor, start, _ = node.attr[0]
            name = maps.get((weights[tensor], start))
            if name is not None:
                found[_made_of(node, nodes)] = name
    for field, node in zip(recurrence.fields, recurrence.state, strict=True):
        found[node] = f"{field}'"
    return found


def _made_of(product: Node, nodes: list[Node]) -> Node:
    """The function of a product and what is added to it: a gate."""
    node = product
    while True:
        users = [user for user in nodes if node in user.args]
        if len(users) != 1 or users[0].op not in ("add", "sigmoid", "tanh", "relu", "softplus", "elu", "exp"):
            return node
        (node,) = users
        if node.op != "add":
            return node


class _Writer:
    def __init__(self, recurrence: Recurrence, letters: dict[str, list[str]], names: dict[Node, str]) -> None:
        self.recurrence, self.letters, self.names = recurrence, letters, names
        self.graph: Graph = recurrence.graph

    def step(self) -> list[str]:
        nodes = self.graph.used(self.recurrence.state)
        for node in nodes:
            uses = sum(user.args.count(node) for user in nodes)
            if uses > 1 and node.args and node not in self.names:
                self.names[node] = f"a{node.index}"
        lines = [f"{self.names[node]} = {self.write(node)}" for node in nodes if node in self.names and node.args]
        unmoved = [
            f"{field}' = {self.refer(node)}"
            for field, node in zip(self.recurrence.fields, self.recurrence.state, strict=True)
            if not node.args or self.names[node] != f"{field}'"
        ]
        return lines + unmoved

    def refer(self, node: Node, binds: int = 0) -> str:
        if node in self.names and node.args:
            return self.names[node]
        text = self.write(node)
        own = 1 if node.op == "product" and len(node.args) > 1 else _BINDS.get(node.op, 9)
        return f"({text})" if own < binds else text

    def write(self, node: Node) -> str:
        match node.op:
            case "state":
                return str(self.recurrence.fields[node.attr])
            case "constant":
                return f"{node.attr:g}"
            case "per_width":
                return f"1/{node.attr}"
            case "input" | "vector":
                tensor, start = node.attr
                return str(self.letters[node.op][tensor]) + self.columns(node.op, tensor, start, node.width)
            case "product":
                pairs = zip(node.attr, node.args, strict=True)
                return " + ".join(self.product(weight, arg, node.width) for weight, arg in pairs)
            case "spread" | "gauged":
                return self.refer(node.args[0])
            case "neg":
                return f"-{self.refer(node.args[0], 3)}"
            case op if op in _INFIX:
                a, b = node.args
                own = _BINDS[op]
                tighter = op in ("sub", "div") or (op, b.op) == ("mul", "div")
                return f"{self.refer(a, own)} {_INFIX[op]} {self.refer(b, own + tighter)}"
        extra = [] if node.attr is None else [f"{node.attr:g}"]
        return f"{node.op}({', '.join([*map(self.refer, node.args), *extra])})"

    def product(self, weight: tuple[int, int, bool], operand: Node, width: int) -> str:
        tensor, start, _ = weight
        return (
            f"{self.letters['weight'][tensor]}{self.columns('weight', tensor, start, width)} {self.refer(operand, 9)}"
        )

    def columns(self, kind: str, tensor: int, start: int, width: int) -> str:
        """Which part of an operand, unless the loop reads it as one."""
        places: set[tuple[int, int]] = set()
        for node in self.graph.used(self.recurrence.state):
            if kind == "weight" and node.op == "product":
                places |= {(place, first) for place, first, _ in node.attr}
            elif node.op == kind:
                places.add(node.attr)
        return "" if len([place for place in places if place[0] == tensor]) == 1 else f"[{start}:{start + width}]"
