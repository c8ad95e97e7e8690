"""The page of a training run: curves with honest gaps, scores with intervals, the configuration."""

import math
import re
from pathlib import Path

from carousel.reports import write_training_report
from carousel.reports.charts import HEIGHT, WIDTH, line_charts

LOG: list[dict[str, object]] = [
    {"epoch": 1, "train_loss": 4.0, "validation_loss": 3.8, "validation_cider": None, "phase": "warm"},
    {"epoch": 2, "train_loss": 3.0, "validation_loss": math.nan, "validation_cider": 0.2, "phase": "main"},
    {"epoch": 3, "train_loss": 2.5, "validation_loss": 3.1, "phase": "main"},
    {"epoch": 4, "train_loss": 2.4, "validation_loss": 3.0, "validation_cider": 0.4, "phase": "main"},
]


def written(tmp_path: Path, **given: object) -> str:
    values = {"title": "run", "config": {"seed": 1}, "epochs": LOG, "scores": {"CIDEr": (48.1, 45.0, 51.2)}} | given
    return write_training_report(tmp_path / "report.html", **values).read_text(encoding="utf-8")  # type: ignore[arg-type]


def test_curves_that_measure_one_thing_share_a_chart() -> None:
    charts = line_charts(LOG)
    assert [chart.title for chart in charts] == ["loss", "validation cider"]
    assert [curve.name for curve in charts[0].curves] == ["train", "validation"]


def test_values_that_are_not_finite_break_a_curve_and_absent_ones_do_not() -> None:
    loss, cider = line_charts(LOG)
    assert [[point.label for point in piece] for piece in loss.curves[1].pieces] == [
        ["epoch 1: 3.8"],
        ["epoch 3: 3.1", "epoch 4: 3"],
    ]
    assert [len(piece) for piece in cider.curves[0].pieces] == [2]


def test_points_lie_where_their_axes_say() -> None:
    (chart,) = line_charts([{"epoch": e, "loss": e / 2} for e in range(1, 11)])
    places = {tick.label: tick.at for tick in chart.y_ticks}
    for piece in chart.curves[0].pieces:
        for epoch, point in enumerate(piece, start=1):
            assert 0 <= point.x <= WIDTH
            assert 0 <= point.y <= HEIGHT
            assert places.get(f"{epoch / 2:g}", point.y) == point.y
    assert [tick.label for tick in chart.x_ticks] == ["2", "4", "6", "8", "10"]


def test_one_epoch_and_a_constant_are_drawn() -> None:
    (chart,) = line_charts([{"epoch": 1, "loss": 2.0}])
    assert [tick.label for tick in chart.x_ticks] == ["1"]
    assert chart.curves[0].last.label == "epoch 1: 2"


def test_the_best_epoch_is_marked_where_it_is_on_the_chart() -> None:
    assert all(chart.marked == chart.curves[0].pieces[0][-1].x for chart in line_charts(LOG[:1] + LOG[3:], marked=4))
    assert line_charts(LOG, marked=9)[0].marked is None


def test_no_records_no_charts() -> None:
    assert line_charts([]) == []
    assert line_charts([{"epoch": 1, "phase": "warm"}]) == []


def test_page_shows_scores_with_intervals_and_the_configuration(tmp_path: Path) -> None:
    html = written(
        tmp_path, config={"optimiser": {"name": "<adam>"}}, scores={"CIDEr": (48.1, 45.0, 51.2), "loss": 2.0}
    )
    assert re.search(r"48\.10</td><td>45\.00 – 51\.20", html)
    assert re.search(r">loss</th><td class=\"value\">2\.000</td><td>–</td>", html)
    assert re.search(r"optimiser\.name</dt><dd>&lt;adam&gt;</dd>", html)
    assert html.count("<svg") == 2


def test_page_of_a_run_that_has_only_begun(tmp_path: Path) -> None:
    html = written(tmp_path, epochs=[], scores={}, config={})
    assert "<svg" not in html
    assert "<table" not in html and "Configuration" not in html


def test_nothing_is_fetched_and_nothing_runs(tmp_path: Path) -> None:
    html = written(tmp_path, best_epoch=3)
    assert not re.search(r"<script|<link|<img|url\(|@import|https?://", html)
    assert "best after epoch <b>3</b>" in html


def test_charts_share_their_epochs() -> None:
    loss, cider = line_charts(LOG)
    assert loss.x_ticks == cider.x_ticks
    assert cider.curves[0].last.x == loss.curves[0].last.x
