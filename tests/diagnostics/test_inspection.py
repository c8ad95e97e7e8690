"""The page and its pictures, for networks of all kinds."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from cell_registry import CASES, Case
from PIL import Image

from carousel.diagnostics import Gate, LayerDiagnosis, diagnose, write_inspection
from carousel.diagnostics.pictures import gate_picture
from carousel.nn import Recurrent

ALWAYS = {"gradients.png", "states.png"}


def page(folder: Path, network: Recurrent, inputs: torch.Tensor, lengths: torch.Tensor, **options: Any) -> str:
    batch = {"inputs": inputs, "lengths": lengths}
    found = diagnose(network, batch, lambda answer: answer[0].square().sum())
    return write_inspection(found, folder, title="a <network>", **options).read_text(encoding="utf-8")


@pytest.mark.parametrize("case", [case for case in CASES if case.traceable][::4], ids=lambda case: case.name)
def test_any_cell_has_a_page(case: Case, tmp_path: Path) -> None:
    cell = case.cell()
    html = page(tmp_path, Recurrent([cell]), torch.randn(5, 3, cell.input_size).double(), torch.tensor([5, 1, 3]))
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures >= ALWAYS
    assert html.count("data:image/png;base64,") == len(pictures)
    assert "nan" not in re.sub(r"base64,[^\"]*", "", html).lower()


def test_layers_tokens_and_clipping_have_their_pictures(tmp_path: Path) -> None:
    tokens = [[f"<{t}>" for t in range(length)] for length in (9, 4)]
    html = page(
        tmp_path,
        Recurrent("lstm", 3, 6, layers=2),
        torch.randn(9, 2, 3),
        torch.tensor([9, 4]),
        tokens=tokens,
        log=[{"epoch": 1, "clipped": 0.25}, {"epoch": 2, "clipped": 0.0}],
    )
    names = {path.name for path in tmp_path.iterdir()}
    each = {f"{name}-{k}.png" for name in ("gates", "saturation") for k in (1, 2)}
    whole = {"memory.png", "singular-values.png", "spectrum.png", "clipping.png", "inspection.html"}
    assert names == ALWAYS | each | whole
    assert "The gradient was clipped in 25% of the steps of epoch 1 and none of epoch 2." in html
    assert html.count("&lt;0&gt;</span>") == 2 and "a &lt;network&gt;" in html
    assert html.count('type="radio"') == html.count("<label ") >= 8
    assert not re.search(r"<script|<link|url\(|@import|https?://", html)
    shown = base64.b64decode(re.findall(r"data:image/png;base64,([^\"]+)", html)[0])
    assert shown == (tmp_path / "gradients.png").read_bytes()
    assert Image.open(io.BytesIO(shown)).size[0] > 800


def test_colours_are_those_of_the_state(tmp_path: Path) -> None:
    from carousel.reports.inspection import Reading, UnitReading, write_inspection_report

    html = write_inspection_report(
        tmp_path / "page.html",
        title="t",
        about="",
        facts=[],
        sections=[],
        readings=[Reading("", [["up", "down", "still"]], [UnitReading("unit 3", "why", [[2.0, -1.0, 0.0]])])],
    ).read_text(encoding="utf-8")
    colours = dict(re.findall(r'--c0:rgb\(([^)]*)\);">(\w+)<', html))
    assert {word: colour for colour, word in colours.items()} == {
        "up": "201 94 32 / 1.00",
        "down": "43 111 160 / 0.50",
        "still": "43 111 160 / 0.00",
    }


def test_long_sequences_are_drawn(tmp_path: Path) -> None:
    html = page(tmp_path, Recurrent("lstm", 3, 6), torch.randn(60, 2, 3), torch.tensor([60, 50]))
    assert "How open the gates are" in html and (tmp_path / "gates.png").exists()


def test_gates_of_another_size_than_that_which_sorts_are_left_out() -> None:
    real = torch.ones(4, 2, dtype=torch.bool)
    gates = [Gate(name, "sigmoid", torch.rand(4, 2, units), real) for name, units in (("f", 6), ("o", 3))]
    layer = LayerDiagnosis("layer 1", torch.tensor([4, 4]), {"h": torch.rand(4, 2, 6)}, gates, {}, None, {})
    assert gate_picture(layer, 0) is not None


def test_the_code_of_the_document_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = (Path(__file__).parents[2] / "docs/diagnostics.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    exec(compile(code, "diagnostics.md", "exec"), {"__name__": "document"})
    assert (tmp_path / "inspection/inspection.html").exists()
