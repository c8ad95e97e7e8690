"""Curves as SVG: the geometry of small line charts, computed here and drawn by the template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, floor, isfinite, log10
from typing import NamedTuple

WIDTH, HEIGHT = 340.0, 190.0  # the drawing's own units; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 12.0, 26.0


class Point(NamedTuple):
    """One measured value: where it is drawn and what it says."""

    x: float
    y: float
    label: str


class Curve(NamedTuple):
    """A named line; a value that is not finite breaks it into several pieces."""

    name: str
    pieces: list[list[Point]]

    @property
    def last(self) -> Point:
        return self.pieces[-1][-1]


class Tick(NamedTuple):
    """A number on an axis and its place along it."""

    at: float
    label: str


class Chart(NamedTuple):
    """Curves over epochs that share one scale, because they measure one thing."""

    title: str
    curves: list[Curve]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    marked: float | None  # the x of the epoch to point out


def line_charts(records: Sequence[Mapping[str, object]], *, marked: int | None = None) -> list[Chart]:
    """One chart for each thing that `records` measure, one record an epoch.

    A record has the key ``epoch``; every other key with a number in it is a curve. Curves whose names end in the same
    word share a chart: ``train_loss`` and ``validation_loss`` both measure ``loss``. A value that is there but not
    finite breaks its curve; one that was not taken (absent or `None`) does not. `marked` is the epoch to point out.

    >>> log = [{"epoch": 1, "train_loss": 4.1, "validation_loss": 3.9}, {"epoch": 2, "train_loss": 3.2, "cider": 0.31}]
    >>> [(chart.title, [curve.name for curve in chart.curves]) for chart in line_charts(log)]
    [('loss', ['train', 'validation']), ('cider', ['cider'])]
    """
    names = dict.fromkeys(name for record in records for name in record if name != "epoch")
    series = {name: found for name in names if (found := _values(records, name))}
    groups: dict[str, list[str]] = {}
    for name in series:
        groups.setdefault(name.rpartition("_")[2], []).append(name)
    epochs = [epoch for record in records if (epoch := _finite(record.get("epoch"))) is not None]
    return [_chart(what, members, series, epochs, marked) for what, members in groups.items()]


def _values(records: Iterable[Mapping[str, object]], name: str) -> list[tuple[float, float | None]]:
    """`name` by epoch, `None` where it is not finite; nothing at all where it is never a number."""
    taken = [record for record in records if record.get(name) is not None]
    found = [(_finite(record.get("epoch")), _finite(record[name])) for record in taken]
    points = [(epoch, value) for epoch, value in found if epoch is not None]
    return points if any(value is not None for _, value in points) else []


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return float(value)


def _chart(
    what: str,
    names: list[str],
    series: Mapping[str, list[tuple[float, float | None]]],
    epochs: Sequence[float],
    marked: int | None,
) -> Chart:
    values = [value for name in names for _, value in series[name] if value is not None]
    x_axis, y_axis = _Axis.over(epochs, LEFT, WIDTH - RIGHT, whole=True), _Axis.over(values, HEIGHT - BOTTOM, TOP)
    alone = len(names) == 1
    curves = [
        Curve(_spoken(name if alone else name.removesuffix(f"_{what}")), _pieces(series[name], x_axis, y_axis))
        for name in names
    ]
    title = curves[0].name if alone else _spoken(what)
    inside = marked is not None and x_axis.low <= marked <= x_axis.high
    return Chart(title, curves, x_axis.ticks(), y_axis.ticks(), x_axis.place(marked) if inside and marked else None)


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _pieces(values: list[tuple[float, float | None]], x_axis: _Axis, y_axis: _Axis) -> list[list[Point]]:
    pieces: list[list[Point]] = [[]]
    for epoch, value in values:
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(Point(x_axis.place(epoch), y_axis.place(value), f"epoch {epoch:g}: {value:.4g}"))
    return [piece for piece in pieces if piece]


class _Axis(NamedTuple):
    """A scale from `low` to `high`, both round numbers, drawn from `start` to `end`."""

    low: float
    high: float
    step: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, *, whole: bool = False) -> _Axis:
        """The scale that holds `values`: round numbers outside them, or for `whole` numbers the values' own ends."""
        low, high = min(values), max(values)
        if low == high:
            low, high = low - 0.5, high + 0.5
        step = _round_step((high - low) / 5)
        if whole:
            return cls(low, high, max(1.0, step), start, end)
        return cls(floor(low / step) * step, ceil(high / step) * step, step, start, end)

    def place(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def ticks(self) -> list[Tick]:
        first, last = ceil(self.low / self.step - 1e-9), floor(self.high / self.step + 1e-9)
        return [Tick(self.place(n * self.step), f"{n * self.step:.6g}") for n in range(first, last + 1)]


def _round_step(at_least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is `at_least` as large.

    >>> [_round_step(size) for size in (0.013, 0.3, 4.0)]
    [0.02, 0.5, 5.0]
    """
    power = 10.0 ** floor(log10(at_least))
    return next(float(f"{m * power:.12g}") for m in (1, 2, 5, 10) if m * power >= at_least * (1 - 1e-9))
