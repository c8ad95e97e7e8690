"""Which values of a step are in memory, and in which passes over the columns the step is computed.

A product reads all columns of its operand, and what follows a sum over the columns waits for all of them. Such values
end a *pass*: a loop over blocks of columns and, inside it, over the sequences, which first takes the products of the
pass and then, on the block while it is near, everything pointwise that follows. An LSTM's step is one pass, the
backward step of an LSTM two, the step of a GRU that resets before its product two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from carousel.compiler.graph import LEAVES, REDUCTIONS, Graph, Node

# How the rows of a buffer follow from the time step and the sequence.
STEP = "step"  # all sequences of the first step, then all of the second ...
BEFORE = "before"  # the state before the step: the initial one, or that of the row of the step before
CARRY = "carry"  # two halves, read and written by turns
SEQUENCE = "sequence"  # one row for each sequence
ALL = "all"  # one for all

Weight = tuple[int, int, bool]  # tensor, first row, whether transposed


@dataclass(frozen=True)
class Buffer:
    """A matrix in memory that the loop reads or writes: columns of a tensor, from some start on."""

    kind: str
    key: tuple[int, ...]
    rows: str
    width: int

    @property
    def stride(self) -> tuple[str, int]:
        """Buffers of which this is equal have equally long rows."""
        own = self.kind in ("input", "input_gradient", "product_gradient")
        return (self.kind, self.key[0]) if own else ("columns", self.width)


@dataclass(frozen=True)
class Call:
    """One operand times the weights of neighbouring accumulators."""

    operand: Buffer
    computed: bool  # in this step, by an earlier pass, rather than read from before
    weights: tuple[Weight, ...]
    first: int  # accumulator
    inner: int  # K, the columns of the operand

    def continues(self, other: Call) -> bool:
        """Whether the other has the same accumulators, and its operand and weights lie right behind."""
        rows = tuple((tensor, start + self.inner, transposed) for tensor, start, transposed in self.weights)
        a, b = self.operand, other.operand
        place = (a.kind, a.rows, a.stride, a.key[0], a.key[-1] + self.inner)
        return (
            len(a.key) == 2
            and all(transposed for *_, transposed in self.weights)
            and (rows, self.first) == (other.weights, other.first)
            and place == (b.kind, b.rows, b.stride, b.key[0], b.key[-1])
        )

    def joined(self, other: Call) -> Call:
        """Both as one product."""
        inner = self.inner + other.inner
        return replace(self, operand=replace(self.operand, width=inner), inner=inner)


@dataclass
class Pass:
    """One sweep over the columns."""

    level: int
    width: int
    products: list[Node] = field(default_factory=list)  # one accumulator each
    calls: list[Call] = field(default_factory=list)
    stores: list[tuple[Node, Buffer]] = field(default_factory=list)
    sums: list[tuple[Node, Buffer]] = field(default_factory=list)  # a reduction, where its result goes
    column_sums: list[tuple[Node, Buffer]] = field(default_factory=list)


@dataclass
class Plan:
    """The passes of a step, and the buffers that they use."""

    graph: Graph
    passes: list[Pass]
    reads: dict[Node, Buffer]  # leaves in memory
    homes: dict[Node, Buffer]  # what a pass stores for later ones
    level: dict[Node, int]  # the pass, or passes of several widths, that first can compute a value


def plan(
    graph: Graph,
    reads: dict[Node, Buffer],
    writes: list[tuple[Node, Buffer]],
    column_sums: list[tuple[Node, Buffer]] | None = None,
) -> Plan:
    """Order the step that computes what is to be written.

    Args:
        graph: the step.
        reads: where its leaves are, but for constants.
        writes: what to store, and where.
        column_sums: what to add up over time and sequences, and where.
    """
    column_sums = column_sums or []
    return _Planner(graph, reads, writes, column_sums).run()


class _Planner:
    def __init__(
        self,
        graph: Graph,
        reads: dict[Node, Buffer],
        writes: list[tuple[Node, Buffer]],
        column_sums: list[tuple[Node, Buffer]],
    ) -> None:
        self.graph, self.reads, self.writes, self.column_sums = graph, reads, writes, column_sums
        self.nodes = graph.used([node for node, _ in writes + column_sums])
        self.level: dict[Node, int] = {}
        self.homes: dict[Node, Buffer] = {}

    def run(self) -> Plan:
        for node in self.nodes:
            self.level[node] = self.level_of(node)
        for node, buffer in self.writes:
            if node not in self.reads and node.width == buffer.width and node.op not in REDUCTIONS:
                self.homes.setdefault(node, buffer)
        scratch = [(node, self.settle(node)) for node in self.crossing() if node not in self.homes]
        passes: dict[tuple[int, int], Pass] = {}

        def at(node: Node, width: int, later: bool = False) -> Pass:
            level = self.level[node] + later
            return passes.setdefault((level, -width), Pass(level, width))

        for node in self.nodes:
            if node.op == "product":
                at(node, node.width).products.append(node)
            elif node.op in REDUCTIONS:
                at(node, node.args[0].width).sums.append((node, self.homes[node]))
        for node, buffer in [*self.writes, *[pair for pair in scratch if pair[0].op not in REDUCTIONS]]:
            at(node, buffer.width, node.op in REDUCTIONS).stores.append((node, buffer))
        for node, buffer in self.column_sums:
            at(node, max(node.width, 1), node.op in REDUCTIONS).column_sums.append((node, buffer))
        ordered = [passes[key] for key in sorted(passes)]
        for one in ordered:
            one.calls = self.calls(one.products)
        return Plan(self.graph, ordered, self.reads, self.homes, self.level)

    def level_of(self, node: Node) -> int:
        """The first pass, counted without regard to widths, that can compute it."""
        if node.op in LEAVES:
            return 0
        if node.op == "product":
            return max(0 if arg in self.reads else self.level[arg] + 1 for arg in node.args)
        return max(self.level[arg] + ends_pass(arg) for arg in node.args)

    def crossing(self) -> list[Node]:
        """What one pass computes and another reads."""
        found = []
        for node in self.nodes:
            if node.op in LEAVES:
                continue
            users = [user for user in self.nodes if node in user.args]
            later = node.width > 1 and any(self.level[user] > self.level[node] for user in users)
            if later or ends_pass(node) or any(user.op == "product" for user in users):
                found.append(node)
        return found

    def settle(self, node: Node) -> Buffer:
        self.homes[node] = Buffer("scratch", (len(self.homes),), SEQUENCE, node.width)
        return self.homes[node]

    def where(self, node: Node) -> Buffer:
        return self.reads[node] if node in self.reads else self.homes[node]

    def calls(self, products: list[Node]) -> list[Call]:
        """The products of a pass, as few calls as possible: those of one operand together."""
        groups: dict[tuple[Node, int], list[tuple[int, Weight]]] = {}
        for accumulator, node in enumerate(products):
            times: dict[Node, int] = {}
            for weight, operand in sorted(zip(node.attr, node.args, strict=True), key=lambda pair: pair[0]):
                turn = times[operand] = times.get(operand, -1) + 1
                groups.setdefault((operand, turn), []).append((accumulator, weight))
        calls: list[Call] = []
        begun: set[int] = set()  # accumulators: those of one call begin with it, or go on with it, together
        for (operand, _), members in groups.items():
            parts = [[m for m in members if (m[0] in begun) == before] for before in (False, True)]
            begun |= {accumulator for accumulator, _ in members}
            for run in [run for part in parts for run in _runs(part)]:
                weights = tuple(weight for _, weight in run)
                call = Call(self.where(operand), operand not in self.reads, weights, run[0][0], operand.width)
                if calls and calls[-1].continues(call):
                    call = calls.pop().joined(call)
                calls.append(call)
        return calls


def ends_pass(node: Node) -> bool:
    """Whether its value, one number for each sequence, is only known when all columns are done."""
    return node.op in REDUCTIONS or (node.op == "product" and node.width == 1)


def _runs(
    members: Iterable[tuple[int, Weight]],
) -> list[list[tuple[int, Weight]]]:
    runs: list[list[tuple[int, Weight]]] = []
    for member in members:
        if runs and runs[-1][-1][0] + 1 == member[0]:
            runs[-1].append(member)
        else:
            runs.append([member])
    return runs
