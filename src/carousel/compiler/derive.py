"""The backward step of a recurrence, as a graph of the same kind.

Reverse accumulation over the forward step. Wherever it asks for a value of the forward step, that value is read again
if it is in memory anyway (inputs, states), computed again if that is cheap, and otherwise kept by the forward loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from carousel.compiler.graph import CHEAP, LEAVES, POINTWISE, Graph, Node


@dataclass(frozen=True)
class WeightGradient:
    """dU[start : start + rows] = Σ over time and sequences of (adjoint of U a) ⊗ a: one product after the loop."""

    tensor: int
    start: int
    adjoint: Node  # of the backward step: (rows,)
    operand: Node  # of the forward step
    rows: int


@dataclass
class Backward:
    """The backward step and what it leaves behind."""

    graph: Graph
    state: tuple[Node, ...] = ()  # gradient with respect to the state before the step, field by field
    inputs: dict[tuple[int, int], Node] = field(default_factory=dict)  # (tensor, start) -> gradient
    vectors: dict[tuple[int, int], Node] = field(default_factory=dict)  # (tensor, start) -> gradient, to be summed
    weights: list[WeightGradient] = field(default_factory=list)
    kept: list[Node] = field(default_factory=list)  # of the forward step, what its loop has to keep

    @property
    def operands(self) -> list[Node]:
        """Of the forward step, what its products multiply."""
        return [gradient.operand for gradient in self.weights]

    @property
    def results(self) -> list[Node]:
        """Of the backward step, all that it computes."""
        adjoints = [gradient.adjoint for gradient in self.weights]
        return [*self.state, *self.inputs.values(), *self.vectors.values(), *adjoints]


def derive(graph: Graph, state: tuple[Node, ...]) -> Backward:
    """The derivative of the step that computes `state`."""
    first = _Derivation(graph, state, kept=[]).run()
    # Once more, knowing what is kept in any case: what is a few instructions away from that need not be.
    needed = [node for node in first.kept if POINTWISE.get(node.op, CHEAP + 1) > CHEAP or node in first.operands]
    attempts = [_Derivation(graph, state, kept=kept).run() for kept in (needed, needed + _sources(first, needed))]
    return min(attempts, key=lambda made: sum(node.width for node in made.kept))


def _sources(first: Backward, needed: list[Node]) -> list[Node]:
    """The products and the like that the rest of what was kept is made of: they may be fewer."""
    found: dict[Node, None] = {}
    pending = [node for node in first.kept if node not in needed and node.width > 1]
    while pending:
        node = pending.pop()
        if node.op in LEAVES or node.width <= 1 or node in needed:
            continue
        if POINTWISE.get(node.op, CHEAP + 1) > CHEAP:
            found[node] = None
        else:
            pending += node.args
    return list(found)


class _Derivation:
    def __init__(self, forward: Graph, state: tuple[Node, ...], kept: list[Node]) -> None:
        self.forward, self.state = forward, state
        self.graph = Graph()
        self.result = Backward(self.graph, kept=kept)
        self.terms: dict[int, list[Node]] = {}  # forward index -> contributions to its adjoint
        self.known: dict[int, Node] = {}  # forward index -> its value in the backward step
        self.fields: dict[Node, Node] = {}  # what becomes a field of the state without change -> the field
        for node in state:
            inner = node
            while inner.op == "gauged" and inner.args[0].op not in LEAVES:
                self.fields[inner := inner.args[0]] = node

    def run(self) -> Backward:
        for index, node in enumerate(self.state):
            self.add(node, self.graph.leaf("adjoint", index, width=node.width))
        self.add(self.state[0], self.graph.leaf("grad", width=self.state[0].width))
        carried: dict[int, Node] = {}
        for node in reversed(self.forward.used(self.state)):
            terms = self.terms.get(node.index)
            if terms is not None and node.width:
                self.spread_over_arguments(node, self.total(node, terms), carried)
        zero = self.graph.constant(0.0)
        self.result.state = tuple(carried.get(index, zero) for index in range(len(self.state)))
        read = {node.attr for node in self.graph.used(self.result.results) if node.op == "saved"}
        operands = self.result.operands
        self.result.kept = [node for node in self.result.kept if node.index in read or node in operands]
        return self.result

    def add(self, node: Node, contribution: Node) -> None:
        self.terms.setdefault(node.index, []).append(contribution)

    def total(self, node: Node, terms: list[Node]) -> Node:
        """The adjoint of a node, as wide as the node itself (a vector's is summed over rows and columns later)."""
        widths = sorted({term.width for term in terms})
        if widths[-1] > node.width and (len(widths) > 1 or node.op != "vector"):
            # Each width by itself: added first, what is narrow would count once for each column of what is wide.
            parts = [self.graph.total([term for term in terms if term.width == width]) for width in widths]
            terms = [self.graph.reduce("sum", part) if part.width > node.width else part for part in parts]
        adjoint = self.graph.total(terms)
        if adjoint.width < node.width:
            return self.graph.spread(adjoint, node.width)
        return adjoint

    def spread_over_arguments(self, node: Node, adjoint: Node, carried: dict[int, Node]) -> None:
        if node.op == "state":
            carried[node.attr] = adjoint
        elif node.op == "input":
            self.result.inputs[node.attr] = adjoint
        elif node.op == "vector":
            self.result.vectors[node.attr] = adjoint
        elif node.op == "product":
            for (tensor, start, _), operand in zip(node.attr, node.args, strict=True):
                held = self.fields.get(operand, operand)
                self.result.weights.append(WeightGradient(tensor, start, adjoint, held, node.width))
                if operand.op != "state":
                    self.keep(held)
                back = self.graph.product(((tensor, start, True), adjoint), width=operand.width)
                self.add(operand, back)
        else:
            for arg, term in zip(node.args, GRADIENTS[node.op](self, node, adjoint), strict=True):
                if term is not None and arg.width:
                    self.add(arg, term)

    def keep(self, node: Node) -> Node:
        if node not in self.state and node not in self.result.kept:
            self.result.kept.append(node)
        return self.graph.leaf("saved", node.index, width=node.width)

    def value(self, node: Node) -> Node:
        """A value of the forward step, in the backward step."""
        node = self.fields.get(node, node)
        if node.index not in self.known:
            self.known[node.index] = self._value(node)
        return self.known[node.index]

    def _value(self, node: Node) -> Node:
        if node.op in ("constant", "per_width", "vector"):
            return self.graph.leaf(node.op, node.attr, width=node.width)
        if self.in_memory(node):
            return self.graph.leaf("saved", node.index, width=node.width)
        if node.op == "gauged":
            return self.value(node.args[0])
        if self.is_cheap(node):
            return self.graph.apply(node.op, *map(self.value, node.args), attr=node.attr)
        return self.keep(node)

    def in_memory(self, node: Node) -> bool:
        return node.op in ("input", "state") or node in (*self.state, *self.fields) or node in self.result.kept

    def is_cheap(self, node: Node) -> bool:
        """Whether a few instructions compute it from what is in memory."""

        def cost(node: Node) -> int:
            if node.op in ("constant", "per_width", "vector") or node.width == 1 or self.in_memory(node):
                return 0  # one number for each sequence is kept for next to nothing
            return POINTWISE.get(node.op, CHEAP + 1) + sum(map(cost, node.args))

        return node.op in POINTWISE and POINTWISE[node.op] + sum(map(cost, node.args)) <= CHEAP

    # What the derivatives are written with.

    def mul(self, a: Node, b: Node) -> Node:
        return self.graph.apply("mul", a, b)

    def of(self, op: str, *args: Node | float, attr: Any = None) -> Node:
        nodes = [arg if isinstance(arg, Node) else self.graph.constant(arg) for arg in args]
        return self.graph.apply(op, *nodes, attr=attr)


Gradient = Callable[[_Derivation, Node, Node], tuple[Node | None, ...]]


def _mul(d: _Derivation, node: Node, g: Node) -> tuple[Node | None, ...]:
    a, b = node.args
    return d.mul(g, d.value(b)) if a.width else None, d.mul(g, d.value(a)) if b.width else None


def _div(d: _Derivation, node: Node, g: Node) -> tuple[Node | None, ...]:
    _, b = node.args
    over = d.of("div", g, d.value(b))
    return over, d.of("neg", d.mul(over, d.value(node))) if b.width else None


def _chosen(d: _Derivation, node: Node, g: Node) -> tuple[Node | None, ...]:
    """minimum and maximum: to the one that was chosen, half to each of two equals."""
    a, b = map(d.value, node.args)
    larger, smaller = (a, b) if node.op == "maximum" else (b, a)
    share = d.of("where", d.of("eq", a, b), 0.5, d.of("gt", larger, smaller))
    to_a, to_b = d.mul(g, share), d.mul(g, d.of("sub", 1.0, share))
    return to_a, to_b


def _where(d: _Derivation, node: Node, g: Node) -> tuple[Node | None, ...]:
    condition = d.value(node.args[0])
    return None, d.of("where", condition, g, 0.0), d.of("where", condition, 0.0, g)


def _elu(d: _Derivation, node: Node, g: Node) -> tuple[Node | None, ...]:
    y = d.value(node)
    return (d.of("where", d.of("gt", y, 0.0), g, d.mul(g, d.of("add", y, node.attr))),)


def _sigmoid(d: _Derivation, node: Node, g: Node) -> tuple[Node | None, ...]:
    y = d.value(node)
    return (d.mul(g, d.mul(y, d.of("sub", 1.0, y))),)


def _tanh(d: _Derivation, node: Node, g: Node) -> tuple[Node | None, ...]:
    y = d.value(node)
    return (d.mul(g, d.of("sub", 1.0, d.mul(y, y))),)


def _gauged(d: _Derivation, node: Node, g: Node) -> tuple[Node | None, ...]:
    limit, by = node.attr
    if by == "value":
        size = d.graph.reduce("max", d.of("abs", g))
        return d.of("minimum", limit, d.of("maximum", -limit, g)), size
    size = d.of("sqrt", d.graph.reduce("sum", d.mul(g, g)))
    return g if limit == math.inf else d.mul(g, d.of("minimum", 1.0, d.of("div", limit, size))), size


def _spread(d: _Derivation, node: Node, g: Node) -> tuple[Node | None, ...]:
    return (d.graph.reduce("sum", g),)


GRADIENTS: dict[str, Gradient] = {
    "add": lambda d, node, g: (g, g),
    "sub": lambda d, node, g: (g, d.of("neg", g)),
    "mul": _mul,
    "div": _div,
    "neg": lambda d, node, g: (d.of("neg", g),),
    "abs": lambda d, node, g: (d.mul(g, d.of("sign", d.value(node.args[0]))),),
    "sign": lambda d, node, g: (None,),
    "detach": lambda d, node, g: (None,),
    "gt": lambda d, node, g: (None, None),
    "ge": lambda d, node, g: (None, None),
    "eq": lambda d, node, g: (None, None),
    "minimum": _chosen,
    "maximum": _chosen,
    "where": _where,
    "relu": lambda d, node, g: (d.of("where", d.of("gt", d.value(node), 0.0), g, 0.0),),
    "elu": _elu,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "softplus": lambda d, node, g: (d.mul(g, d.of("sigmoid", d.value(node.args[0]))),),
    "exp": lambda d, node, g: (d.mul(g, d.value(node)),),
    "log": lambda d, node, g: (d.of("div", g, d.value(node.args[0])),),
    "sqrt": lambda d, node, g: (d.of("div", d.mul(g, d.graph.constant(0.5)), d.value(node)),),
    "pow": lambda d, node, g: (
        d.mul(g, d.mul(d.of("pow", *map(d.value, node.args), attr=node.attr - 1), d.graph.constant(node.attr))),
    ),
    "gauged": _gauged,
    "sum": lambda d, node, g: (g,),
    "spread": _spread,
    "max": lambda d, node, g: (None,),  # only ever subtracted inside a softmax, which it does not change
}
