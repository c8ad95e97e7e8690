"""Pictures made of shapes, as SVG and PNG."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from carousel.reports.page import environment

# Light and dark; wires have the tone of the source that they come from.
TONES = {
    "page": ("#fffefb", "#1c1e21"),
    "ink": ("#211f1c", "#ebe8e2"),
    "soft": ("#6a655c", "#a09b92"),
    "wire": ("#8c867b", "#8c867b"),
    "product": ("#e3eef3", "#20343d"),
    "operation": ("#fffefb", "#1c1e21"),
    "source": ("#f4f1e9", "#25282b"),
    "result": ("#f4f1e9", "#25282b"),
    "wire0": ("#b4541f", "#e59a68"),
    "wire1": ("#2b6f8a", "#6fb6d2"),
    "wire2": ("#2c6e49", "#8fd0a8"),
    "wire3": ("#8a5a0a", "#e3b35c"),
    "wire4": ("#7a3b78", "#d49bd2"),
    "wire5": ("#a3261b", "#f2a093"),
}
HEAD = 7.0  # of an arrow


class Pill(NamedTuple):
    """A rectangle with round corners, around its centre."""

    x: float
    y: float
    width: float
    height: float
    tone: str

    @property
    def radius(self) -> float:
        return 7.0 if self.tone == "product" else self.height / 2


class Text(NamedTuple):
    """Letters, centred on x and y."""

    x: float
    y: float
    text: str
    size: float = 13.0
    tone: str = "ink"


class Wire(NamedTuple):
    """A line through points, horizontal at each; with a head it ends as an arrow, to the right or upwards."""

    points: tuple[tuple[float, float], ...]
    tone: str = "wire"
    head: str = ""  # right or up

    @property
    def curves(self) -> list[tuple[tuple[float, float], ...]]:
        """For each piece two control points and its end."""
        pieces: list[tuple[tuple[float, float], ...]] = []
        for (x0, y0), (x1, y1) in pairwise(self.points):
            middle = (x0 + x1) / 2
            straight = y0 == y1 or x0 == x1
            pieces.append(((x0, y0), (x1, y1), (x1, y1)) if straight else ((middle, y0), (middle, y1), (x1, y1)))
        return pieces

    @property
    def triangle(self) -> list[tuple[float, float]]:
        x, y = self.points[-1]
        if self.head == "up":
            return [(x, y), (x - HEAD / 2, y + HEAD), (x + HEAD / 2, y + HEAD)]
        return [(x, y), (x - HEAD, y - HEAD / 2), (x - HEAD, y + HEAD / 2)] if self.head else []


@dataclass
class Picture:
    """Shapes to be drawn, wires first."""

    width: float = 0.0
    height: float = 0.0
    wires: list[Wire] = field(default_factory=list)
    pills: list[Pill] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)

    def below(self, other: Picture) -> None:
        """Put another picture below this one, on the same middle."""
        width, height = max(self.width, other.width), self.height
        self.move((width - self.width) / 2, 0)
        other.move((width - other.width) / 2, height)
        self.wires, self.pills, self.texts = (
            self.wires + other.wires,
            self.pills + other.pills,
            self.texts + other.texts,
        )
        self.width, self.height = width, height + other.height

    def move(self, x: float, y: float) -> None:
        self.wires = [wire._replace(points=tuple((a + x, b + y) for a, b in wire.points)) for wire in self.wires]
        self.pills = [pill._replace(x=pill.x + x, y=pill.y + y) for pill in self.pills]
        self.texts = [text._replace(x=text.x + x, y=text.y + y) for text in self.texts]

    def svg(self) -> str:
        """The picture as SVG, in light and in dark."""
        return environment().get_template("drawing.svg.j2").render(picture=self, tones=TONES)

    def png(self) -> bytes:
        """The picture as PNG, two pixels to a unit."""
        from matplotlib.figure import Figure
        from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
        from matplotlib.path import Path

        figure = Figure(figsize=(self.width / 72, self.height / 72), dpi=144, facecolor=TONES["page"][0])
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, self.width), ylim=(self.height, 0))
        axes.set_axis_off()
        for wire in self.wires:
            points = [wire.points[0], *(point for piece in wire.curves for point in piece)]
            codes = [Path.MOVETO, *[Path.CURVE4] * (len(points) - 1)]
            colour = TONES[wire.tone][0]
            axes.add_patch(PathPatch(Path(points, codes), fill=False, edgecolor=colour, linewidth=1.3))
            if wire.head:
                axes.add_patch(Polygon(wire.triangle, facecolor=colour, edgecolor="none"))
        for pill in self.pills:
            corner = (pill.x - pill.width / 2, pill.y - pill.height / 2)
            shape = f"round,pad=0,rounding_size={pill.radius}"
            axes.add_patch(
                FancyBboxPatch(
                    corner, pill.width, pill.height, shape, facecolor=TONES[pill.tone][0], edgecolor=TONES["soft"][0]
                )
            )
        for text in self.texts:
            axes.text(
                text.x, text.y, text.text, size=text.size, color=TONES[text.tone][0], ha="center", va="center_baseline"
            )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", facecolor=figure.get_facecolor())
        return buffer.getvalue()


def text_width(text: str, size: float = 13.0) -> float:
    """About how wide the text is."""
    return 0.6 * size * len(text)
