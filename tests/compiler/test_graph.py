"""Equal values are one node, and what changes nothing is left out."""

from __future__ import annotations

import pytest

from carousel.compiler.graph import Graph, in_pieces


def test_equal_nodes_are_one() -> None:
    graph = Graph()
    h = graph.leaf("state", 0, width=4)
    assert graph.apply("tanh", h) is graph.apply("tanh", h)
    assert graph.leaf("state", 0, width=4) is h and graph.leaf("state", 1, width=4) is not h


def test_what_changes_nothing_is_left_out() -> None:
    graph = Graph()
    h, zero, one = graph.leaf("state", 0, width=4), graph.constant(0), graph.constant(1)
    assert graph.apply("add", h, zero) is h and graph.apply("add", zero, h) is h
    assert graph.apply("mul", one, h) is h and graph.apply("sub", h, zero) is h
    assert graph.apply("neg", graph.apply("neg", h)) is h
    assert graph.apply("sub", zero, one).attr == -1.0
    assert graph.apply("mul", h, zero) is not zero  # NaN times 0 is NaN


def test_columns_are_those_of_the_arguments() -> None:
    graph = Graph()
    x, h = graph.leaf("input", (0, 2), width=8), graph.leaf("state", 0, width=4)
    product = graph.product(((1, 4, False), h), width=8)
    number = graph.reduce("sum", h)
    part = graph.columns(graph.apply("add", graph.apply("mul", x, number), product), 4, 4)
    assert part.width == 4
    (scaled, rows) = part.args
    assert scaled.args[0].attr == (0, 6) and scaled.args[1] is number
    assert rows.attr == ((1, 8, False),) and rows.args == (h,)
    with pytest.raises(ValueError, match="columns of state"):
        graph.columns(h, 0, 2)


def test_products_that_are_added_are_one() -> None:
    graph = Graph()
    h, c = (graph.leaf("state", k, width=4) for k in range(2))
    x = graph.leaf("input", (0, 0), width=4)
    one, other = graph.product(((0, 0, False), h), width=4), graph.product(((1, 0, False), c), width=4)
    total = graph.total([one, x, other])
    assert total.op == "add" and total.args[0] is x
    assert total.args[1].attr == ((0, 0, False), (1, 0, False)) and total.args[1].args == (h, c)
    assert graph.used([total]) == [h, c, x, total.args[1], total]


@pytest.mark.parametrize(("op", "joined"), [("sum", "add"), ("max", "maximum")])
def test_what_is_reduced_whole_and_read_in_pieces_is_computed_once(op: str, joined: str) -> None:
    graph = Graph()
    h, x = graph.leaf("state", 0, width=4), graph.leaf("input", (0, 0), width=12)
    whole = graph.apply("add", x, graph.product(((0, 0, False), h), width=12))
    reduced = graph.reduce(op, graph.apply("mul", whole, whole))
    pieces = [graph.columns(whole, first, 4) for first in (0, 8)]
    split, (total, *same) = in_pieces(graph, [reduced, *pieces])
    products = [node for node in split.used([total, *same]) if node.op == "product"]
    assert sorted(node.attr[0][1] for node in products) == [0, 4, 8] and {node.width for node in products} == {4}
    assert total.op == op and total.args[0].op == joined  # one reduction, of the pieces joined
    assert [node.args[1].attr[0][1] for node in same] == [0, 8]


def test_what_cannot_be_cut_is_reduced_whole() -> None:
    graph = Graph()
    h, other = graph.leaf("state", 0, width=8), graph.leaf("state", 1, width=4)
    product = graph.product(((0, 0, False), other), width=8)
    results = [graph.reduce("sum", graph.apply("add", h, product)), graph.columns(product, 4, 4)]
    _, (total, part) = in_pieces(graph, results)
    assert total.op == "sum" and total.args[0].width == 8 and part.width == 4
    for apart in (graph.product(((1, 0, False), other), width=4), graph.product(((0, 6, False), other), width=4)):
        _, (total, _) = in_pieces(graph, [graph.reduce("sum", product), apart])
        assert total.op == "sum"
