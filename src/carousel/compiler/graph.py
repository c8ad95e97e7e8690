"""The step of a recurrence as a graph of a handful of node kinds, which the backends share.

    kind        attr                      value at one time step, for each sequence
    input       (tensor, start)           columns of a tensor (N, ·) that was computed before the loop
    state       field                     the state before the step
    vector      (tensor, start)           the same for every sequence: a peephole, a bias
    constant    number                    the same everywhere
    per_width   width                     1 / width
    product     ((tensor, start, transposed), ...)   Σ_k U_k a_k, one weight for each argument a_k
    sum, max    -                         over the columns of the argument
    pointwise   what the operation needs  see POINTWISE

and in the derivative (see `derive`)

    saved       node of the forward step  its value at this step
    adjoint     field                     gradient with respect to the state after the step
    grad        -                         gradient with respect to the output of the step

A node has a width: the columns of its value, 1 if it is one number for each sequence, 0 if it is one number for all.
Equal nodes are one node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import pairwise
from typing import Any

# Vector instructions that each operation takes, roughly: what is cheaper than a load and a store is computed again.
POINTWISE = {
    "add": 1,
    "sub": 1,
    "mul": 1,
    "neg": 1,
    "abs": 1,
    "sign": 3,
    "minimum": 1,
    "maximum": 1,
    "relu": 1,
    "gt": 1,
    "ge": 1,
    "eq": 1,
    "where": 1,
    "spread": 0,
    "detach": 0,
    "gauged": 0,
    "div": 10,
    "sqrt": 10,
    "exp": 14,
    "sigmoid": 24,
    "tanh": 24,
    "log": 24,
    "softplus": 40,
    "elu": 28,
    "pow": 40,
}
LEAVES = {"input", "state", "vector", "constant", "per_width", "saved", "adjoint", "grad"}
REDUCTIONS = {"sum", "max"}
CHEAP = 4


@dataclass(frozen=True, eq=False)
class Node:
    """One value of the step; `index` is its place in the graph, after all of its arguments."""

    index: int
    op: str
    args: tuple[Node, ...]
    width: int
    attr: Any = None

    def __repr__(self) -> str:
        inside = [*(f"n{arg.index}" for arg in self.args), *([] if self.attr is None else [str(self.attr)])]
        return f"n{self.index} = {self.op}({', '.join(inside)}) : {self.width}"


@dataclass
class Graph:
    """Nodes in an order in which they can be computed.

    >>> graph = Graph()
    >>> h = graph.leaf("state", 0, width=4)
    >>> graph.apply("add", h, graph.apply("mul", h, graph.constant(1.0)))
    n2 = add(n0, n0) : 4
    """

    nodes: list[Node] = field(default_factory=list)
    _known: dict[Any, Node] = field(default_factory=dict, repr=False)

    def leaf(self, op: str, attr: Any = None, *, width: int) -> Node:
        return self._node(op, (), width, attr)

    def constant(self, number: float) -> Node:
        return self.leaf("constant", float(number), width=0)

    def product(self, *pairs: tuple[Any, Node], width: int) -> Node:
        """Σ U a over pairs of a weight (tensor, start, transposed) and its operand."""
        weights, operands = zip(*pairs, strict=True)
        return self._node("product", operands, width, weights)

    def reduce(self, op: str, a: Node) -> Node:
        return self._node(op, (a,), 1, None)

    def spread(self, a: Node, width: int) -> Node:
        """A number for each sequence, repeated over the columns."""
        return self._node("spread", (a,), width, None)

    def mean(self, a: Node) -> Node:
        return self.apply("mul", self.reduce("sum", a), self.leaf("per_width", a.width, width=0))

    def apply(self, op: str, *args: Node, attr: Any = None) -> Node:
        """A pointwise operation; arguments of width 1 or 0 are spread over the columns of the others."""
        return _simpler(self, op, args) or self._node(op, args, max(a.width for a in args), attr)

    def total(self, terms: Sequence[Node]) -> Node:
        """The sum of the terms: those that are products become one product."""
        products = [term for term in terms if term.op == "product"]
        others = [term for term in terms if term.op != "product"]
        if len(products) > 1:
            pairs = [pair for term in products for pair in zip(term.attr, term.args, strict=True)]
            products = [self.product(*pairs, width=products[0].width)]
        first, *rest = others + products
        for term in rest:
            first = self.apply("add", first, term)
        return first

    def columns(self, node: Node, start: int, width: int) -> Node:
        """The columns of a value from `start` on, as a value of its own.

        Raises:
            ValueError: they cannot be computed alone.
        """
        if node.width <= 1 or (start, width) == (0, node.width):
            return node
        if node.op in ("input", "vector"):
            tensor, first = node.attr
            return self.leaf(node.op, (tensor, first + start), width=width)
        if node.op == "product" and not any(transposed for *_, transposed in node.attr):
            rows = [(tensor, first + start, False) for tensor, first, _ in node.attr]
            return self.product(*zip(rows, node.args, strict=True), width=width)
        if node.op in POINTWISE and node.op != "gauged":  # whose gradient is one vector
            parts = [self.columns(arg, start, width) for arg in node.args]
            return self._node(node.op, tuple(parts), width, node.attr)
        raise ValueError(f"columns of {node.op}")

    def _node(self, op: str, args: tuple[Node, ...], width: int, attr: Any) -> Node:
        key = (op, tuple(arg.index for arg in args), width, attr)
        if key not in self._known:
            self._known[key] = Node(len(self.nodes), op, args, width, attr)
            self.nodes.append(self._known[key])
        return self._known[key]

    def copy(self, node: Node, args: tuple[Node, ...], attr: Any) -> Node:
        """A node of another graph in this one."""
        return self._node(node.op, args, node.width, attr)

    def used(self, results: Iterable[Node]) -> list[Node]:
        """The nodes that the results need, in order."""
        needed: set[int] = set()
        pending = list(results)
        while pending:
            node = pending.pop()
            if node.index not in needed:
                needed.add(node.index)
                pending.extend(node.args)
        return [node for node in self.nodes if node.index in needed]


def in_pieces(graph: Graph, results: Sequence[Node]) -> tuple[Graph, tuple[Node, ...]]:
    """The same results, with what is summed up piece by piece where pieces of it are read besides.

    So a normalised product that is cut into gates is not computed twice, whole for its mean and in pieces.

    >>> graph = Graph()
    >>> whole = graph.product(((0, 0, False), graph.leaf("state", 0, width=2)), width=4)
    >>> mean, first = graph.mean(whole), graph.columns(whole, 0, 2)
    >>> split, results = in_pieces(graph, [graph.apply("sub", first, mean)])
    >>> [node.width for node in split.used(results) if node.op == "product"]
    [2, 2]
    """
    used = graph.used(results)
    sources = [node for node in used if node.op in ("product", "input")]
    cuts: dict[Node, set[int]] = {}
    split, copies = Graph(), dict[Node, Node]()
    for node in used:
        args = tuple(copies[arg] for arg in node.args)
        ends = {end for arg in node.args if arg.width > 1 for end in cuts[arg]}
        cuts[node] = ends if node.op in POINTWISE else set()
        if node in sources:
            cuts[node] = {end for other in sources for end in _ends_within(node, other)}
        copies[node] = split.copy(node, args, node.attr)
        if node.op in REDUCTIONS and ends:
            bounds = sorted({0, node.args[0].width, *ends})
            try:
                pieces = [split.columns(args[0], first, last - first) for first, last in pairwise(bounds)]
            except ValueError:
                continue
            join = {"sum": "add", "max": "maximum"}[node.op]
            if len({piece.width for piece in pieces}) == 1:  # a reduction is dear: one of all of them
                joined = reduce(lambda a, b: split._node(join, (a, b), a.width, None), pieces)
                copies[node] = split.reduce(node.op, joined)
            else:
                copies[node] = reduce(partial(split.apply, join), [split.reduce(node.op, piece) for piece in pieces])
    return split, tuple(copies[node] for node in results)


def _ends_within(whole: Node, part: Node) -> tuple[int, ...]:
    """The columns of a product, or an input, at which another, of some of the same rows, begins and ends."""
    if part.op != whole.op or part.args != whole.args or part.width >= whole.width:
        return ()
    if whole.op == "input":
        first, same = part.attr[1] - whole.attr[1], part.attr[0] == whole.attr[0]
        return (first, first + part.width) if same and 0 <= first <= whole.width - part.width else ()
    first = part.attr[0][1] - whole.attr[0][1]
    same = part.attr == tuple((tensor, start + first, back) for tensor, start, back in whole.attr)
    return (first, first + part.width) if same and 0 <= first <= whole.width - part.width else ()


def _simpler(graph: Graph, op: str, args: tuple[Node, ...]) -> Node | None:
    """The same value by less: constants folded, additions of 0 and multiplications by 1 left out."""
    numbers = [arg.attr if arg.op == "constant" else None for arg in args]
    if op in _FOLD and None not in numbers:
        return graph.constant(_FOLD[op](*numbers))
    if op in ("add", "mul"):
        neutral = float(op == "mul")
        for number, other in zip(numbers, reversed(args), strict=True):
            if number == neutral:
                return other
    if op == "add" and args[1].op == "product":  # products that are added are one product
        before = args[0].args if args[0].op == "add" else (None, args[0])
        if before[1].op == "product" and before[1].width == args[1].width:
            both = graph.total([before[1], args[1]])
            return both if before[0] is None else graph.apply("add", before[0], both)
    if op == "sub" and numbers[1] == 0.0:
        return args[0]
    if op == "neg" and args[0].op == "neg":
        return args[0].args[0]
    return None


_FOLD: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
}
