"""The catalogue of cells says what they cost; pictures of them show what their traces hold."""

import time
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import Image
from torch import Tensor

import carousel
from carousel.cells import CELLS, GRU, LEM, LSTM, SRU, Cell, Clockwork, Packed, PeepholeLSTM
from carousel.errors import ConfigError
from carousel.reports import drawing
from carousel.reports.cells import catalogue, cell_facts, cell_picture, step_flops, unfolded, write_drawing
from carousel.reports.step_graph import Box, step_graph


@pytest.mark.parametrize("name", CELLS)
def test_flops_are_those_that_the_compiler_counts(name: str) -> None:
    cell = CELLS[name](6, 8)
    work = carousel.explain(cell).cells[0].work
    assert (work is None) == (name == "mlstm")
    if work is not None:
        assert step_flops(cell) == work.forward > 0


def test_a_line_of_the_catalogue() -> None:
    facts = cell_facts("mingru", 3, 4)
    assert (facts.author, facts.year, facts.parameters, facts.flops) == ("Feng", 2024, 2 * 4 * (3 + 1), 2 * 2 * 4 * 3)
    assert (facts.engine, facts.scan) == ("compiled", True)
    assert (cell_facts("mlstm").engine, cell_facts("gru").scan) == ("scan", False)


def test_a_cell_that_is_too_narrow_is_listed_without_costs() -> None:
    facts = {facts.name: facts for facts in catalogue(1, 1)}
    assert list(facts) == list(CELLS)
    assert facts["clockwork"].parameters is facts["clockwork"].flops is facts["lstm-projected"].engine is None
    assert facts["lstm"].parameters == 4 * 3


def test_the_catalogue_is_fast() -> None:
    catalogue()
    start = time.process_time()
    catalogue(65, 129)  # new cells, which are traced anew
    assert time.process_time() - start < 3


def named(boxes: list[Box]) -> dict[str, Box]:
    return {box.name: box for box in boxes if box.name}


def test_boxes_are_named_after_local_variables() -> None:
    boxes = named(step_graph(PeepholeLSTM(3, 4)))
    assert {name: box.label for name, box in boxes.items()} == {
        **dict.fromkeys("ifo", ("σ",)),
        **{"g": ("tanh",), "c": ("+",), "h": ("⊙",)},
    }
    (into_i,) = boxes["i"].arrows
    assert [arrow.source.label for arrow in into_i.source.arrows] == [("W x + U h + b", "input"), ("p_i ⊙",)]
    assert [arrow.source.text for arrow in boxes["c"].arrows] == ["f ⊙ c", "i ⊙ g"]
    assert [arrow.source.text for arrow in boxes["h"].arrows] == ["o", "tanh(c)"]


def test_a_product_says_what_it_multiplies() -> None:
    labels = [box.label for box in step_graph(GRU(3, 4)) if box.kind == "product"]
    assert labels[-1] == ("W x + U (r ⊙ h) + b", "candidate")
    assert ("W x + U z + b", "output") in [box.label for box in step_graph(LEM(3, 4))]
    (recurrent,) = [box for box in step_graph(Clockwork(3, 4)) if box.label == ("(U ⊙ reads) h",)]
    assert recurrent.arrows[0].weights == ("U ⊙ reads",)


def test_what_is_no_sum_of_both_sides_says_which_is_which() -> None:
    (new,) = [box for box in step_graph(Clockwork(3, 4)) if box.label == ("where",)]
    assert [(arrow.tag, arrow.source.text) for arrow in new.arrows] == [("if", "due"), ("then", "new"), ("else", "h")]
    i = named(step_graph(CELLS["slstm"](3, 4)))["i"].arrows[0].source
    assert (i.text, [arrow.tag for arrow in i.arrows]) == ("log_i − m", ["", "−"])


@pytest.mark.parametrize("name", CELLS)
def test_without_recurrent_weights_none_is_drawn(name: str) -> None:
    """What remains of the state is not multiplied by a weight that the cell calls recurrent."""
    cell = CELLS[name](3, 4)
    whole, rest = step_graph(cell), step_graph(cell, feed_forward=True)
    assert not any("U" in arrow.weights for box in rest for arrow in box.arrows)
    arrows = [sum(len(box.arrows) for box in boxes) for boxes in (rest, whole)]
    assert (arrows[0] < arrows[1]) == any(True for _ in cell.recurrent_weights())


def test_the_feed_forward_unit_of_the_lstm_reads_the_input_alone() -> None:
    boxes = step_graph(LSTM(3, 4), feed_forward=True)
    assert [box.text for box in boxes if box.kind == "source"] == ["x", "c"]  # c is carried over
    assert {box.label[0] for box in boxes if box.kind == "product"} == {"W x + b"}


@pytest.mark.parametrize("name", CELLS)
def test_the_layout_overlaps_nowhere_and_runs_to_the_right(name: str) -> None:
    boxes = step_graph(CELLS[name](64, 128))
    slots, _ = drawing._columns(boxes)
    assert all(slots[arrow.source].rank < slots[box].rank for box in boxes for arrow in box.arrows)
    picture = drawing.layered(boxes)
    assert len(picture.pills) == len(boxes)
    for k, one in enumerate(picture.pills):
        assert one.width / 2 < one.x < picture.width - one.width / 2
        assert one.height / 2 < one.y < picture.height - one.height / 2
        for other in picture.pills[:k]:
            beside = abs(one.x - other.x) >= (one.width + other.width) / 2
            assert beside or abs(one.y - other.y) >= (one.height + other.height) / 2
    for wire in picture.wires:
        assert all(a[0] <= b[0] + 0.01 for a, b in pairwise(wire.points))
        for x, y in wire.points[1:-1]:  # around what it passes
            assert not any(abs(x - p.x) < p.width / 2 - 1 and abs(y - p.y) < p.height / 2 for p in picture.pills)
    assert sum(wire.head == "right" for wire in picture.wires) == sum(len(box.arrows) for box in boxes)


def test_the_order_has_few_crossings() -> None:
    columns = drawing._columns(step_graph(PeepholeLSTM(3, 4)))[1]
    before = drawing._crossings(columns)
    drawing._order(columns)
    assert drawing._crossings(columns) <= before / 2


def test_the_same_weights_are_on_the_same_arrows_of_every_step() -> None:
    cell = PeepholeLSTM(3, 4)
    texts = [text.text for text in unfolded("mine", cell, step_graph(cell), steps=3).texts]
    assert [texts.count(text) for text in ("mine", "U", "p_i, p_f", "W", "x₂", "h₀", "c₃")] == [3, 4, 4, 3, 1, 1, 1]
    assert texts.count("h₂") == 2  # as output and as state
    assert "the same 140 weights at every step, for I = 3 and H = 4" in texts


def test_a_field_that_is_never_read_again_does_not_flow() -> None:
    cell = SRU(3, 4)
    texts = [text.text for text in unfolded("sru", cell, step_graph(cell)).texts]
    assert "h₀" not in texts
    assert texts.count("h₁") == 1
    assert "c₀" in texts


def test_an_input_that_is_kept_in_the_state_is_not_the_one_of_this_step() -> None:
    cell = CELLS["qrnn"](3, 4)
    boxes = step_graph(cell)
    assert {box.label[0] for box in boxes if box.kind == "product"} == {"U xₜ₋₁", "W x + b"}
    texts = [text.text for text in unfolded("qrnn", cell, boxes, steps=3).texts]
    assert [texts.count(text) for text in ("U", "W", "x₀", "x₁", "x₃")] == [4, 3, 1, 2, 2]


@pytest.mark.parametrize("name", CELLS)
def test_drawings_are_small_and_well_formed(name: str, tmp_path: Path) -> None:
    path = write_drawing(tmp_path / "new" / "cell.svg", cell_picture(name, CELLS[name](64, 128)))
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"xₜ", f"{CELLS[name].State._fields[0]}ₜ", f"{name}: one step", "unfolded in time", "x₁"} <= texts
    assert path.stat().st_size < 60_000
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polygon"))) > 5


def test_a_png_has_two_pixels_to_a_unit(tmp_path: Path) -> None:
    picture = cell_picture("gru", GRU(3, 4))
    with Image.open(write_drawing(tmp_path / "gru.PNG", picture)) as image:
        assert abs(image.width - 2 * picture.width) <= 2
        assert len(image.convert("RGB").getcolors(maxcolors=10**6) or []) > 100  # letters and curves


def test_a_drawing_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    picture = cell_picture("gru", GRU(3, 4))
    with pytest.raises(ConfigError, match=r"gru.pdf: no format for a drawing \(got '.pdf'\); .svg or .png; rename it"):
        write_drawing(tmp_path / "gru.pdf", picture)
    (tmp_path / "gru.svg").mkdir()
    with pytest.raises(ConfigError, match=r"gru\.svg: the drawing cannot be written"):
        write_drawing(tmp_path / "gru.svg", picture)
    assert [path.name for path in tmp_path.iterdir()] == ["gru.svg"]


def test_a_step_that_cannot_be_traced_cannot_be_drawn() -> None:
    class Branching(Cell):
        class State(NamedTuple):
            h: Tensor

        def __init__(self) -> None:
            super().__init__(3, 4)
            (self.map,) = self.packed = Packed(3, 4, maps=1)

        def step(self, x: Tensor, state: State) -> State:
            return self.State(torch.tanh(self.map(x, state.h)) if x.sum() > 0 else state.h)

    with pytest.raises(ConfigError, match=r"^Branching: cannot be drawn .* a step without control flow"):
        step_graph(Branching())
