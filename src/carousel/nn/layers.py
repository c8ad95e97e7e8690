"""The cells of a network, made layer by layer or checked."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from typing import Any

from carousel.cells import Cell, cell_class
from carousel.errors import ConfigError
from carousel.nn.shape import Shape

Kind = str | type[Cell]


def build(
    kinds: Sequence[Kind],
    input_size: int | None,
    hidden_size: int | Sequence[int] | None,
    layers: int | None,
    shape: Shape,
    options: dict[str, Any],
) -> list[Cell]:
    """New cells, for each layer one or, with two directions, two."""
    classes = [cell_class(kind) if isinstance(kind, str) else kind for kind in kinds]
    if input_size is None or hidden_size is None:
        missing = "input_size" if input_size is None else "hidden_size"
        raise ConfigError(f"{missing}: missing (got None); 1 or more; needed to make a {classes[0].__name__}")
    if layers is not None and layers < 1:
        raise ConfigError(f"layers: not a number of layers (got {layers}); 1 or more; 1 is the plain cell")
    sizes = 1 if isinstance(hidden_size, int) else len(hidden_size)
    count = layers or max(len(classes), sizes)
    classes = one_per_layer("cell", classes, count)
    widths = one_per_layer("hidden_size", hidden_size, count)
    taken = _options(classes, options)
    cells: list[Cell] = []
    below: list[int] = []
    for make, width, own in zip(classes, widths, taken, strict=True):
        reads = shape.reads(input_size, below)
        layer = [make(reads, width, **own) for _ in range(shape.directions)]
        below.append(shape.width(layer))
        cells += layer
    shape.check(cells)
    return cells


def check_ready_made(
    cells: Sequence[Cell],
    input_size: int | None,
    hidden_size: int | Sequence[int] | None,
    layers: int | None,
    shape: Shape,
    options: dict[str, Any],
) -> None:
    """Raise ConfigError unless these are the cells of such a network."""
    directions = shape.directions
    if not cells:
        raise ConfigError("cell: an empty list (got []); at least one cell; give one per layer")
    for name, value in options.items():
        raise ConfigError(f"{name}: ready-made cells take no options (got {value!r}); none; set it on the cell")
    if len(cells) % directions:
        raise ConfigError(
            f"cell: not two per layer (got {len(cells)}); forward and backward; bidirectional layers have both"
        )
    if layers not in (None, len(cells) // directions):
        had, give = len(cells) // directions, "one cell" if directions == 1 else "two cells"
        raise ConfigError(f"layers: not the number of cells (got {layers}); {had}; give {give} per layer")
    if input_size not in (None, cells[0].input_size) or hidden_size not in (None, cells[-1].hidden_size):
        got, allowed = f"{input_size}, {hidden_size}", f"{cells[0].input_size}, {cells[-1].hidden_size}"
        raise ConfigError(f"input_size, hidden_size: not the cells' (got {got}); {allowed}; leave them out")
    shape.check(cells)


def one_per_layer(name: str, given: Any, layers: int) -> list[Any]:
    """What is given for all layers, or one for each, as one for each."""
    each = [*given] if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if len(each) not in (1, layers):
        raise ConfigError(
            f"{name}: not one per layer (got {len(each)}); 1 or {layers}; give one for each layer, or one"
        )
    return each * (layers // len(each))


def _options(classes: Sequence[type[Cell]], options: dict[str, Any]) -> list[dict[str, Any]]:
    """The options that each class takes, of which each must be taken by one."""
    takes = [
        [p for p in inspect.signature(one).parameters if p not in ("input_size", "hidden_size")] for one in classes
    ]
    allowed = list(dict.fromkeys(name for names in takes for name in names))
    for name, value in options.items():
        if name not in allowed:
            nearest = difflib.get_close_matches(name, allowed, n=1, cutoff=0.0)
            mend = f"did you mean {nearest[0]!r}?" if nearest else "leave it out"
            listed, of = ", ".join(allowed) or "none", " or ".join(dict.fromkeys(one.__name__ for one in classes))
            raise ConfigError(f"{name}: not an option of {of} (got {value!r}); {listed}; {mend}")
    return [{name: options[name] for name in names if name in options} for names in takes]
