"""How layers are put on top of each other."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.cells import Cell
from carousel.errors import ConfigError

MERGES = ("concat", "sum", "mean")
SKIPS = ("residual", "dense")


@dataclass(frozen=True)
class Shape:
    """What a layer reads of those below it, and what it makes of its two directions.

    Args:
        directions: 1, or 2 for a forward and a backward cell in each layer.
        merge: how the two directions become one output: "concat" side by side, "sum" or "mean".
        skip: "residual": each layer above the first adds what it reads to its outputs (He et al. 2016,
            arXiv:1512.03385); "dense": each reads the inputs and the outputs of all layers below, side by side
            (Huang et al. 2017, arXiv:1608.06993).
        dropout: the probability that what a layer above the first reads is zeroed in training.

    Raises:
        ConfigError: an option is not as above; the message says which.
    """

    directions: int = 1
    merge: str = "concat"
    skip: str | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        one_of("merge", self.merge, MERGES)
        if self.skip is not None:
            one_of("skip", self.skip, SKIPS)

    def width(self, layer: Sequence[Cell]) -> int:
        """The columns of a layer's outputs."""
        widths = [cell.output_size for cell in layer]
        return sum(widths) if self.merge == "concat" else widths[0]

    def reads(self, input_size: int, below: Sequence[int]) -> int:
        """The columns that a layer reads on top of layers of these widths."""
        if not below:
            return input_size
        return input_size + sum(below) if self.skip == "dense" else below[-1]

    def check(self, cells: Sequence[Cell]) -> None:
        """Raise ConfigError unless the cells, layer by layer, fit on each other."""
        below: list[int] = []
        for k in range(0, len(cells), self.directions):
            layer, number = cells[k : k + self.directions], k // self.directions
            reads = self.reads(cells[0].input_size, below)
            for cell in layer:
                if cell.input_size != reads:
                    what = "the inputs and all outputs below it" if self.skip == "dense" else "the output size below it"
                    what = what if below else "as the other direction"
                    raise ConfigError(
                        f"cell: layer {number} does not fit (got input_size {cell.input_size}); {reads}, {what}; "
                        "match them"
                    )
            if self.merge != "concat" and len({cell.output_size for cell in layer}) > 1:
                got = " and ".join(str(cell.output_size) for cell in layer)
                raise ConfigError(
                    f"merge: layer {number} has two widths (got {got}); equal ones to {self.merge}; or merge='concat'"
                )
            if self.skip == "residual" and below and self.width(layer) != reads:
                raise ConfigError(
                    f"skip: layer {number} cannot add what it reads (got widths {reads} and {self.width(layer)}); "
                    "equal widths; match the sizes, or skip='dense'"
                )
            below.append(self.width(layer))

    def merged(self, forward: Tensor, backward: Tensor) -> Tensor:
        """The outputs of two directions as those of the layer."""
        if self.merge == "concat":
            return torch.cat([forward, backward], dim=-1)
        return forward + backward if self.merge == "sum" else (forward + backward) / 2

    def through(self, layers: Sequence[Callable[[Tensor], Tensor]], inputs: Tensor, *, training: bool) -> Tensor:
        """The outputs of the last layer, each a function from what it reads (..., R) to its outputs (..., W)."""
        reads = outputs = inputs
        for k, layer in enumerate(layers):
            if k:
                reads = torch.cat([reads, outputs], dim=-1) if self.skip == "dense" else outputs
            dropped = F.dropout(reads, self.dropout) if k and self.dropout and training else reads
            outputs = layer(dropped)
            if k and self.skip == "residual":
                outputs = outputs + reads
        return outputs


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise ConfigError, with the nearest, unless the value is one of those allowed."""
    if value not in allowed:
        nearest = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.0)[0]
        raise ConfigError(f"{name}: unknown (got {value!r}); {', '.join(allowed)}; did you mean {nearest!r}?")
