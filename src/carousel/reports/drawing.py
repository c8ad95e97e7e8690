"""Boxes and arrows as a picture: a layered layout, from left to right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from carousel.reports.picture import HEAD, Picture, Pill, Text, Wire, text_width
from carousel.reports.step_graph import Box

MARGIN, LANE = 14.0, 5.0


@dataclass(eq=False)
class _Slot:
    """A box, or the lane of a wire that passes by; and where it is."""

    box: Box  # for a lane, that where the wire comes from
    rank: int
    lane: bool = False
    before: list[_Slot] = field(default_factory=list)
    after: list[_Slot] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0

    @property
    def size(self) -> tuple[float, float]:
        if self.lane:
            return 0.0, 0.0
        widths = [text_width(line, 13 if k == 0 else 10.5) for k, line in enumerate(self.box.label)]
        height = 26.0 if len(self.box.label) == 1 else 38.0
        height = max(height, 12.0 * len(self.box.arrows) + 4 if any(arrow.tag for arrow in self.box.arrows) else 0)
        return max(height, max(widths) + (16 if self.box.kind == "product" else 14)), height

    @property
    def run_in(self) -> float:
        """How long arrows are level before they arrive: there are their tags."""
        return 0.0 if self.lane else HEAD + max((text_width(arrow.tag, 9) for arrow in self.box.arrows), default=0.0)

    @property
    def above(self) -> float:
        return LANE if self.lane else self.size[1] / 2 + (15 if self.box.name else 4)

    @property
    def below(self) -> float:
        return LANE if self.lane else self.size[1] / 2 + 4


def layered(boxes: Sequence[Box]) -> Picture:
    """Boxes in columns, each to the right of all that it reads, with as few crossings as barycentres find.

    >>> from carousel.cells import GRU
    >>> from carousel.reports.step_graph import step_graph
    >>> picture = layered(step_graph(GRU(3, 4)))
    >>> len(picture.pills), picture.svg()[:4]
    (14, '<svg')
    """
    _, columns = _columns(boxes)
    _order(columns)
    _place(columns)
    return _drawn(boxes, columns)


def _columns(boxes: Sequence[Box]) -> tuple[dict[Box, _Slot], list[list[_Slot]]]:
    ranks: dict[Box, int] = {}
    for box in boxes:
        ranks[box] = 1 + max((ranks[arrow.source] for arrow in box.arrows), default=-1)
    last = max(ranks.values(), default=0)
    ranks |= {box: last for box in boxes if box.kind == "result"}
    slots = {box: _Slot(box, ranks[box]) for box in boxes}
    columns: list[list[_Slot]] = [[] for _ in range(last + 1)]
    for slot in slots.values():
        columns[slot.rank].append(slot)
    lanes: dict[tuple[Box, int], _Slot] = {}
    for slot in slots.values():
        for arrow in slot.box.arrows:
            at = slots[arrow.source]
            for rank in range(at.rank + 1, slot.rank):
                if (arrow.source, rank) not in lanes:
                    lane = lanes[arrow.source, rank] = _Slot(arrow.source, rank, lane=True, before=[at])
                    at.after.append(lane)
                    columns[rank].append(lane)
                at = lanes[arrow.source, rank]
            slot.before.append(at)
            at.after.append(slot)
    return slots, columns


def _order(columns: list[list[_Slot]]) -> None:
    best, fewest = [list(column) for column in columns], _crossings(columns)
    for sweep in range(24):
        down = sweep % 2 == 0
        for column in columns if down else columns[::-1]:
            place = {slot: k for other in columns for k, slot in enumerate(other)}
            near = {slot: slot.before if down else slot.after for slot in column}
            column.sort(key=lambda s: sum(place[o] for o in near[s]) / len(near[s]) if near[s] else place[s])
        if (crossings := _crossings(columns)) < fewest:
            best, fewest = [list(column) for column in columns], crossings
    columns[:] = best


def _crossings(columns: list[list[_Slot]]) -> int:
    count = 0
    for left, right in pairwise(columns):
        place = {slot: k for k, slot in enumerate(right)}
        ends = [(k, place[after]) for k, slot in enumerate(left) for after in slot.after]
        count += sum((a - c) * (b - d) < 0 for n, (a, b) in enumerate(ends) for c, d in ends[:n])
    return count


def _place(columns: list[list[_Slot]]) -> None:
    """Each at the mean of its neighbours, as near as those above and below let it; then the columns side by side."""
    for column in columns:
        _spread(column, [0.0] * len(column))
    for sweep in range(100):
        for column in columns if sweep % 2 else columns[::-1]:
            near = [[*s.before, *s.after] if sweep > 8 else (s.before if sweep % 2 else s.after) for s in column]
            _spread(column, [_wanted(slot, others) for slot, others in zip(column, near, strict=True)])
    top = min(slot.y - slot.above for column in columns for slot in column) - MARGIN
    x = MARGIN
    for k, column in enumerate(columns):
        width = max(slot.size[0] for slot in column)
        steepest = max((abs(slot.y - after.y) for slot in column for after in slot.after), default=0.0)
        x += max(slot.run_in for slot in column) if k else 0.0
        for slot in column:
            slot.x, slot.y = x + width / 2, slot.y - top
        x += width + min(24 + 0.12 * steepest, 64)


def _wanted(slot: _Slot, others: list[_Slot]) -> float:
    """The mean of the others, among which the lanes of one wire count most: wires should be straight."""
    weights = [1.0 + slot.lane + other.lane + 14 * (slot.lane and other.lane) for other in others]
    return sum(w * other.y for w, other in zip(weights, others, strict=True)) / sum(weights) if others else slot.y


def _spread(column: list[_Slot], wanted: list[float]) -> None:
    """The places nearest to those wanted, by least squares, at which nothing overlaps: pooled adjacent violators."""
    offsets = [0.0]
    for upper, lower in pairwise(column):
        offsets.append(offsets[-1] + upper.below + lower.above + 4)
    pools: list[tuple[float, int]] = []  # mean, count
    for want, offset in zip(wanted, offsets, strict=True):
        mean, count = want - offset, 1
        while pools and pools[-1][0] > mean:
            other, more = pools.pop()
            mean, count = (mean * count + other * more) / (count + more), count + more
        pools.append((mean, count))
    means = [mean for mean, count in pools for _ in range(count)]
    for slot, mean, offset in zip(column, means, offsets, strict=True):
        slot.y = mean + offset


def _drawn(boxes: Sequence[Box], columns: list[list[_Slot]]) -> Picture:
    picture = Picture(max(s.x + s.size[0] / 2 for s in columns[-1]) + MARGIN)
    picture.height = max(slot.y + slot.below for column in columns for slot in column) + MARGIN
    half = [max(slot.size[0] for slot in column) / 2 for column in columns]
    tones = source_tones(boxes)
    for slot in (slot for column in columns for slot in column):
        if slot.lane:
            (before,) = slot.before
            start = (before.x + before.size[0] / 2, before.y)
            points = (start, (before.x + half[before.rank], before.y), (slot.x - half[slot.rank], slot.y))
            picture.wires.append(Wire((*points, (slot.x + half[slot.rank], slot.y)), tones.get(slot.box, "wire")))
            continue
        arriving = sorted(zip(slot.before, slot.box.arrows, strict=True), key=lambda pair: pair[0].y)
        for k, (before, arrow) in enumerate(arriving):
            dy = (k - (len(arriving) - 1) / 2) * min(12.0, (slot.size[1] - 4) / len(arriving))
            wire = _arrow(slot, before, half, dy, tones.get(arrow.source, "wire"))
            picture.wires.append(wire)
            if arrow.tag:
                (x, y), width = wire.points[-1], text_width(arrow.tag, 9)
                picture.texts.append(Text(x - HEAD - 3 - width / 2, y - 6, arrow.tag, 9, "soft"))
        picture.pills.append(Pill(slot.x, slot.y, *slot.size, slot.box.kind))
        picture.texts += _written(slot.box, slot.x, slot.y, slot.size[1])
    return picture


def source_tones(boxes: Sequence[Box]) -> dict[Box, str]:
    """The tone of what comes from each source; that of the input is the first."""
    fields = [box for box in boxes if box.kind == "source" and not box.is_input]
    tones = {box: f"wire{1 + k % 5}" for k, box in enumerate(fields)}
    return tones | {box: "wire0" for box in boxes if box.is_input}


def _arrow(slot: _Slot, before: _Slot, half: list[float], dy: float, tone: str) -> Wire:
    width, height = slot.size
    round_by = 0.0 if slot.box.kind == "product" else height / 2 - math.sqrt(max(0.0, (height / 2) ** 2 - dy**2))
    end = (slot.x - width / 2 + round_by, slot.y + dy)
    points = [(before.x + before.size[0] / 2, before.y), (before.x + half[before.rank], before.y)]
    return Wire((*points, (slot.x - half[slot.rank] - slot.run_in, end[1]), end), tone, "right")


def _written(box: Box, x: float, y: float, height: float) -> list[Text]:
    lines = [Text(x, y if len(box.label) == 1 else y - 7, box.label[0])]
    lines += [Text(x, y + 10, line, 10.5, "soft") for line in box.label[1:]]
    if box.name:
        lines.append(Text(x, y - height / 2 - 8, box.name, 12, "wire1"))
    return lines
