"""A step without what leaves the loop, and what the loop is handed instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from carousel.cells import Cell
from carousel.compiler.graph import Graph, Node


class Product(NamedTuple):
    """An input that is still to be computed, x W^T + b."""

    x: Tensor  # (N, K)
    weight: Tensor  # (M, K)
    bias: Tensor | None  # (M,)


class Operands(NamedTuple):
    """What the prologue hands to the loop."""

    inputs: list[Any]  # (N, ·) each, or the `Product` that gives it
    weights: list[Tensor]  # (·, ·) each, out by in
    vectors: list[Tensor]  # (·,) or () each

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, one after the other."""
        parts = [list(given) if isinstance(given, Product) else [given] for given in self.inputs]
        return [tensor for part in [*parts, self.weights, self.vectors] for tensor in part if tensor is not None]

    @property
    def form(self) -> Form:
        """How many they are: of each input one, or two or three for a product; of weights; of vectors."""
        sizes = [(3 if given.bias is not None else 2) if isinstance(given, Product) else 1 for given in self.inputs]
        return Form(tuple(sizes), len(self.weights), len(self.vectors))


class Form(NamedTuple):
    """How many tensors there are of each kind."""

    inputs: tuple[int, ...]  # 1: as it is; 2: a product; 3: one with a bias
    weights: int
    vectors: int

    @property
    def total(self) -> int:
        return sum(self.inputs) + self.weights + self.vectors

    def operands(self, tensors: Sequence[Tensor]) -> Operands:
        """The inverse of `Operands.tensors`."""
        rest = iter(tensors)
        inputs = [
            next(rest) if size == 1 else Product(next(rest), next(rest), next(rest) if size == 3 else None)
            for size in self.inputs
        ]
        weights = [next(rest) for _ in range(self.weights)]
        return Operands(inputs, weights, [next(rest) for _ in range(self.vectors)])


def computed(inputs: Sequence[Any]) -> list[Tensor]:
    """Inputs as a prologue gives them, the products carried out."""
    return [F.linear(*one) if isinstance(one, tuple) else one for one in inputs]


@dataclass(frozen=True)
class Recurrence:
    """A step without what leaves the loop.

    `prologue(cell, x)` gives the operands that the leaves of the graph name; of products of the input it gives what
    they are made of, (x, W) or (x, W, b).
    """

    graph: Graph
    state: tuple[Node, ...]  # the new state, field by field
    fields: tuple[str, ...]
    prologue: Callable[[Cell, Tensor], Any]

    def operands(self, cell: Cell, x: Tensor) -> Operands:
        """With all inputs computed."""
        inputs, weights, vectors = self.prologue(cell, x)
        return Operands(computed(inputs), weights, vectors)

    def factors(self, cell: Cell, x: Tensor) -> Operands:
        """With products of the input left to the loop."""
        inputs, weights, vectors = self.prologue(cell, x)
        return Operands([Product(*one) if isinstance(one, tuple) else one for one in inputs], weights, vectors)
