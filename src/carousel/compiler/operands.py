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
    def form(self) -> Form:
        """How many they are: of each input one, or two or three for a product; of weights; of vectors."""
        sizes = [(3 if given.bias is not None else 2) if isinstance(given, Product) else 1 for given in self.inputs]
        return Form(tuple(sizes), len(self.weights), len(self.vectors))

    @property
    def work(self) -> int:
        """The operations of the products that give inputs: two for each weight and row."""
        return sum(2 * one.x.numel() * len(one.weight) for one in self.inputs if isinstance(one, Product))


class Form(NamedTuple):
    """How many tensors there are of each kind."""

    inputs: tuple[int, ...]  # 1: as it is; 2: a product; 3: one with a bias
    weights: int
    vectors: int

    @property
    def total(self) -> int:
        return sum(self.inputs) + self.weights + self.vectors

    @property
    def names(self) -> list[Any]:
        """What scripts call the tensors."""
        inputs = [
            name
            for k, size in enumerate(self.inputs)
            for name in ([("input", k)] if size == 1 else [("x", k), ("W", k), ("b", k)][:size])
        ]
        weights = [("weight", k) for k in range(self.weights)]
        return [*inputs, *weights, *(("vector", k) for k in range(self.vectors))]

    def operands(self, tensors: Sequence[Tensor]) -> Operands:
        """Of tensors that stand one after the other; what comes after them is not looked at."""
        rest = iter(tensors)
        inputs = [
            next(rest) if size == 1 else Product(next(rest), next(rest), next(rest) if size == 3 else None)
            for size in self.inputs
        ]
        weights = [next(rest) for _ in range(self.weights)]
        return Operands(inputs, weights, [next(rest) for _ in range(self.vectors)])


class Given(NamedTuple):
    """Operands and the state to start from as loops read them: one tensor after the other, laid out row by row."""

    tensors: Sequence[Tensor]
    form: Form

    @classmethod
    def of(cls, operands: Operands, state: Sequence[Tensor]) -> Given:
        tensors: list[Tensor] = []
        for given in operands.inputs:
            if isinstance(given, Product):
                tensors += [tensor for tensor in given if tensor is not None]
            else:
                tensors.append(given if given.stride(1) == 1 else given.contiguous())
        tensors += operands.weights
        tensors += [tensor.contiguous() for tensor in (*operands.vectors, *state)]
        return cls(tensors, operands.form)

    @property
    def operands(self) -> Operands:
        return self.form.operands(self.tensors)


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
