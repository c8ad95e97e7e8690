"""The catalogue of cells, and pictures of one: its gates, and the network unfolded in time."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from carousel.cells import CELLS, Cell, cell_class
from carousel.cells.description import describe
from carousel.compiler.engine import against, known
from carousel.compiler.tracer import Unsupported
from carousel.errors import ConfigError
from carousel.reports.drawing import layered, source_tones
from carousel.reports.page import write_whole
from carousel.reports.picture import Picture, Pill, Text, Wire, text_width
from carousel.reports.step_graph import BEFORE, Box, step_graph

INPUT_SIZE, HIDDEN_SIZE = 64, 128
SUMMED = {"linear": 0, "matmul": 0, "mm": 0, "bmm": 0, "addmm": 1}  # the argument whose columns a product sums over
DIGITS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


@dataclass(frozen=True)
class CellFacts:
    """A line of the catalogue; what depends on sizes that a cell cannot have is None."""

    name: str
    description: str
    author: str  # the first
    year: int
    paper: str
    parameters: int | None
    flops: int | None  # in matrix products, of one step of one sequence, forward
    engine: str | None  # that "auto" takes on the CPU
    scan: bool | None


def catalogue(input_size: int = INPUT_SIZE, hidden_size: int = HIDDEN_SIZE) -> list[CellFacts]:
    """Every cell by its name, with what it costs.

    >>> facts = {facts.name: facts for facts in catalogue(3, 4)}
    >>> facts["gru"].author, facts["gru"].year, facts["gru"].parameters, facts["gru"].flops, facts["gru"].engine
    ('Cho', 2014, 96, 168, 'compiled')
    """
    return [cell_facts(name, input_size, hidden_size) for name in CELLS]


def cell_facts(name: str, input_size: int = INPUT_SIZE, hidden_size: int = HIDDEN_SIZE) -> CellFacts:
    """The line of one cell.

    Raises:
        ConfigError: no cell has that name.
    """
    about = describe(cell_class(name))
    paper = (name, about.sentence, about.author, about.year, about.paper)
    try:
        cell = cell_class(name)(input_size, hidden_size)
    except ConfigError:  # some cells cannot be so narrow: they are listed without costs
        return CellFacts(*paper, None, None, None, None)
    weights = sum(weight.numel() for weight in cell.parameters())
    return CellFacts(*paper, weights, step_flops(cell), _engine(cell), cell.has_scan)


def _engine(cell: Cell) -> str:
    compiled = against(cell, torch.zeros(1, cell.input_size)) is None
    if compiled and not isinstance(known(cell).recurrence, Unsupported):
        return "compiled"
    return "scan" if cell.has_scan else "eager"


def step_flops(cell: Cell) -> int:
    """The FLOPs of the matrix products in one step of one sequence.

    >>> from carousel.cells import LSTM
    >>> step_flops(LSTM(3, 4)) == 2 * 4 * (3 + 4) * 4
    True
    """
    like = next(cell.parameters())
    with torch.no_grad(), _Products() as products:
        cell.step(torch.zeros(1, cell.input_size).to(like), cell.initial_state(1))
    return int(products.flops)


class _Products(TorchFunctionMode):
    """Counts; torch's own counter takes a second to load."""

    def __init__(self) -> None:
        super().__init__()
        self.flops: int = 0

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        place = SUMMED.get(func.__name__.strip("_"))
        if place is not None:
            self.flops += 2 * result.numel() * args[place].shape[-1]
        return result


def cell_picture(name: str, cell: Cell, *, feed_forward: bool = False) -> Picture:
    """The gates of a cell and, below, the network unfolded in time, from the trace of its `step`.

    Args:
        name: what the boxes of the unfolded network are called.
        feed_forward: only the gates, of the cell whose recurrent weights are zero.

    Raises:
        ConfigError: the step cannot be traced.
    """
    boxes = step_graph(cell, feed_forward=feed_forward)
    gates = layered(boxes)
    if feed_forward:
        return gates
    picture = _heading(f"{name}: one step")
    picture.below(gates)
    picture.below(_heading("unfolded in time"))
    picture.below(unfolded(name, cell, boxes))
    return picture


def _heading(text: str) -> Picture:
    return Picture(text_width(text), 34, texts=[Text(text_width(text) / 2, 22, text, 13, "soft")])


def unfolded(name: str, cell: Cell, boxes: list[Box], steps: int = 4) -> Picture:
    """The network unfolded in time: the same weights on the same arrows of every step."""
    tones, read = source_tones(boxes), [arrow for box in boxes for arrow in box.arrows]
    sources = {"" if box.is_input else box.label[0].removesuffix(BEFORE): box for box in tones}
    tags = {
        key: ", ".join(dict.fromkeys(weight for arrow in read if arrow.source is source for weight in arrow.weights))
        for key, source in sources.items()
    }
    fields = [field for field in cell.State._fields if field in sources]  # those that are read again
    width = max(84.0, text_width(name) + 24)
    gap = max([76.0, *(text_width(tags[field], 11) + text_width(field) + 62 for field in fields)])
    height = max(48.0, 34.0 * len(fields) + 12)
    left, top = 30.0 + gap, 86.0
    middle, bottom = top + height / 2, top + height
    picture = Picture(left + steps * (width + gap) + 30, bottom + 122)
    for step in range(steps + 1):
        x = left + step * (width + gap)  # the left edge of this box
        for k, field in enumerate(fields):
            y, start = middle + 34 * (k - (len(fields) - 1) / 2), x - gap
            label = field + str(step).translate(DIGITS)
            picture.wires.append(Wire(((start, y), (x, y)), tones[sources[field]], "right"))
            picture.texts.append(Text(start + 12 + text_width(label) / 2, y - 10, label, 12))
            if tags[field]:
                _tag(picture, x - 26 - text_width(tags[field], 11) / 2, y, tags[field])
        if step == steps:
            picture.texts.append(Text(x + 14, middle, "…", 16))
            break
        centre, now = x + width / 2, str(step + 1).translate(DIGITS)
        picture.pills.append(Pill(centre, middle, width, height, "product"))
        picture.texts.append(Text(centre, middle, name))
        output = cell.State._fields[0] + now
        picture.wires.append(Wire(((centre, top), (centre, 42)), "wire", "up"))
        _labelled(picture, centre, 28, output, "result")
        if "" in sources:
            picture.wires.append(Wire(((centre, bottom + 66), (centre, bottom)), tones[sources[""]], "up"))
            _labelled(picture, centre, bottom + 79, "x" + now, "source")
            if tags[""]:
                _tag(picture, centre, bottom + 36, tags[""])
    numbers = sum(weight.numel() for weight in cell.parameters())
    said = f"the same {numbers:,} weights at every step, for I = {cell.input_size} and H = {cell.hidden_size}"
    picture.texts.append(Text(picture.width / 2, bottom + 110, said, 11, "soft"))
    return picture


def _tag(picture: Picture, x: float, y: float, text: str) -> None:
    picture.pills.append(Pill(x, y, text_width(text, 11) + 12, 18, "operation"))
    picture.texts.append(Text(x, y, text, 11))


def _labelled(picture: Picture, x: float, y: float, text: str, kind: str) -> None:
    picture.pills.append(Pill(x, y, max(28.0, text_width(text) + 14), 26, kind))
    picture.texts.append(Text(x, y, text))


def check_drawing(path: str | os.PathLike[str]) -> None:
    """Raise ConfigError unless a picture can be written in the format that the path's ending says."""
    if Path(path).suffix.lower() not in (".svg", ".png"):
        raise ConfigError(f"{path}: no format for a drawing (got {Path(path).suffix!r}); .svg or .png; rename it")


def write_drawing(path: str | os.PathLike[str], picture: Picture) -> Path:
    """Write a picture as SVG or PNG, by the path's ending; whole or not at all.

    Raises:
        ConfigError: the ending is another, or the file cannot be written.
    """
    check_drawing(path)
    svg = Path(path).suffix.lower() == ".svg"
    return write_whole(path, picture.svg().encode() if svg else picture.png(), "drawing")
