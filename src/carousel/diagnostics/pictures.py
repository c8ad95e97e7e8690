"""The numbers of a diagnosis as pictures, each a PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from carousel.diagnostics.diagnosis import LayerDiagnosis
from carousel.diagnostics.gates import Gate
from carousel.diagnostics.gradients import SHARE, GradientFlow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER, INK, SOFT, LINE = "#fffefb", "#211f1c", "#6a655c", "#e3ded3"
COLOURS = ("#2b6f8a", "#b4541f", "#2c6e49", "#7a3b78", "#8a5a0a", "#a3261b", "#4f5d95", "#5f5a52")
WIDE = 9.0  # inches
TOKENS = 40  # more steps than that are numbered, not named
ROWS = 128  # of a heat map: more are not told apart
FLOOR = 1e-6  # shares of a gradient below it are not drawn


def _figure(height: float, width: float = WIDE) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)


def _png(figure: Figure) -> bytes:
    """In 256 colours, of which such pictures need no more: half the size."""
    drawn, content = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
    return content.getvalue()


def _dressed(axes: Any, x: str, y: str, title: str = "") -> None:
    axes.set_facecolor(PAPER)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.set_title(title, fontsize=10, color=INK)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=SOFT, labelsize=9)


def _whole(axes: Any) -> None:
    """Ticks at whole numbers of steps."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def gradient_picture(flow: GradientFlow) -> bytes:
    """Each field's gradient norm over time lag, relative to its first; a band from the 10th to the 90th percentile."""
    figure = _figure(3.9)
    axes = figure.subplots()
    lowest, highest, farthest, layers = 1.0, 1.0, 1, len({one.layer for one in flow.flows})
    for colour, one in zip(_cycle(), [one for one in flow.flows if (one.norms > 0).any()], strict=False):
        shares, ratios = one.shares().numpy(), one.ratios()[:, one.last >= one.first]
        lags = np.arange(len(shares))
        name = f"‖∂L/∂{one.field}‖" + (f", {one.layer}" if layers > 1 else "")
        marker = "o" if len(lags) <= 40 else None
        axes.plot(lags, shares, color=colour, label=name, linewidth=1.8, marker=marker, markersize=3.5)
        if ratios.shape[1] > 1:
            low, high = torch.nanquantile(ratios, torch.tensor([0.1, 0.9], dtype=ratios.dtype), dim=1)
            axes.fill_between(
                lags, low.clamp(min=FLOOR / 10).numpy(), high.numpy(), color=colour, alpha=0.13, linewidth=0
            )
        lowest = min(lowest, float(np.nanmin(np.where(shares > 0, shares, np.nan))))
        highest = max(highest, float(np.nanmax(shares)))
        farthest = max(farthest, int(lags[shares > FLOOR][-1]))
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    axes.set_ylim(max(FLOOR, min(lowest / 2, SHARE / 3)), 2 * highest)
    axes.set_xlim(-0.03 * farthest, 1.03 * farthest)
    axes.axhline(SHARE, color=SOFT, linewidth=0.9, linestyle=(0, (6, 3)))
    axes.annotate(f"{SHARE:.0%}", (0.01, SHARE), xycoords=("axes fraction", "data"), va="bottom", color=SOFT)
    _whole(axes)
    _dressed(axes, "time lag before the loss, in steps", "norm of the gradient, lag 0 = 100%")
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _png(figure)


def gate_picture(layer: LayerDiagnosis, sequence: int, tokens: Sequence[str] | None = None) -> bytes | None:
    """Each sigmoid gate of every unit over the steps of one sequence; None where there is no such gate."""
    sigmoids = [gate for gate in layer.gates if gate.kind == "sigmoid"]
    if not sigmoids:
        return None
    by = _sorting_gate(sigmoids)
    gates = [gate for gate in sigmoids if gate.values.shape == by.values.shape]
    steps = int(layer.lengths[sequence])
    named = tokens is not None and steps <= TOKENS
    beside = steps <= TOKENS
    figure = _figure(5.6 if beside else 2.3 * len(gates) + 0.6)
    grid = figure.subplots(*((1, len(gates)) if beside else (len(gates), 1)), squeeze=False, sharey=True)
    units = by.values.shape[2]
    ranks = torch.linspace(0, units - 1, min(ROWS, units)).round().long()
    rows = by.taken.mean(0).argsort(descending=True)[ranks]
    shown = f"{len(rows)} of {units}" if len(rows) < units else f"all {units}"
    for axes, gate in zip(grid.flat, gates, strict=True):
        values = gate.values[:steps, sequence][:, rows]
        image = axes.imshow(values.T.numpy(), aspect="auto", vmin=0, vmax=1, cmap="cividis", interpolation="nearest")
        _dressed(axes, "" if named else "step", "", gate.name)
        axes.grid(visible=False)
        axes.set_yticks([])
        if named and tokens is not None:
            axes.set_xticks(range(steps), tokens, rotation=90, fontsize=9 if steps <= 24 else 7)
        else:
            ticks = axes.get_xticks()
            kept = [int(tick) for tick in ticks if 0 <= tick < steps and tick == int(tick)]
            axes.set_xticks(kept, [str(tick + 1) for tick in kept])
    figure.supylabel(f"{shown} units, from the most open {by.name} down", color=INK, fontsize=10)
    bar = figure.colorbar(image, ax=grid, fraction=0.04, pad=0.015)
    bar.set_label("openness: 0 shut, 1 open", color=INK)
    bar.ax.tick_params(colors=SOFT, labelsize=9)
    return _png(figure)


def _sorting_gate(gates: Sequence[Gate]) -> Gate:
    """The gate that sorts the units: that which keeps the state, by its usual letters, else the first."""
    named = {gate.name: gate for gate in gates}
    return next((named[name] for name in ("f", "z") if name in named), gates[0])


def norm_picture(layers: Sequence[LayerDiagnosis]) -> bytes:
    """‖s_t‖ over time: the median over sequences, and a band from the 10th to the 90th percentile."""
    figure = _figure(3.4)
    axes = figure.subplots()
    lines = [(layer, name) for layer in layers for name in layer.states]
    for colour, (layer, name) in zip(_cycle(), lines, strict=False):
        norms = layer.norms(name)
        alive = ~norms.isnan().all(1)
        low, middle, high = torch.nanquantile(norms[alive], torch.tensor([0.1, 0.5, 0.9], dtype=norms.dtype), dim=1)
        steps = np.arange(1, len(middle) + 1)
        label = f"‖{name}‖" + (f", {layer.name}" if len(layers) > 1 else "")
        axes.plot(steps, middle.numpy(), color=colour, linewidth=1.8, label=label)
        axes.fill_between(steps, low.numpy(), high.numpy(), color=colour, alpha=0.13, linewidth=0)
    axes.set_ylim(bottom=0)
    _whole(axes)
    _dressed(axes, "step", "norm of the state")
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _png(figure)


def saturation_picture(layer: LayerDiagnosis) -> bytes | None:
    """A point for each unit and gate: how often it is at its lower bound, and how often at its upper one."""
    if not layer.gates:
        return None
    count = len(layer.gates)
    figure = _figure(min(3.3, 0.75 + 0.82 * WIDE / count))
    grid = figure.subplots(1, count, sharex=True, sharey=True, squeeze=False)[0]
    for axes, gate, colour in zip(grid, layer.gates, _cycle(), strict=False):
        low = ".1" if gate.kind == "sigmoid" else "-.9"
        axes.plot([0, 1], [1, 0], color=LINE, linewidth=1)
        axes.scatter(gate.low.numpy(), gate.high.numpy(), s=14, color=colour, alpha=0.45, linewidths=0, clip_on=False)
        _dressed(axes, f"share of steps below {low}", "", f"{gate.name} ({gate.kind})")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    grid[0].set_ylabel("share of steps above .9", color=INK)
    return _png(figure)


def memory_picture(layers: Sequence[LayerDiagnosis]) -> bytes | None:
    """Every unit's memory length, from the longest down."""
    lines = [(layer, name) for layer in layers for name in layer.memory]
    if not lines:
        return None
    figure = _figure(3.2)
    axes = figure.subplots()
    largest, smallest = 0.0, 1.0
    for colour, (layer, name) in zip(_cycle(), lines, strict=False):
        lengths = layer.memory[name].sort(descending=True).values.clamp(max=1e6)
        largest, smallest = max(largest, float(lengths[0])), min(smallest, float(lengths[-1]))
        label = name + (f", {layer.name}" if len(layers) > 1 else "")
        axes.plot(np.arange(1, len(lengths) + 1), lengths.numpy(), color=colour, linewidth=1.8, label=label)
    if largest > 10 * smallest:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda steps, _: f"{steps:g}")
    else:
        axes.set_ylim(bottom=0)
    axes.axhline(1, color=SOFT, linewidth=0.9, linestyle=(0, (6, 3)))
    note = " (10⁶: for ever)" if largest >= 1e6 else ""
    _dressed(axes, "units, from the longest memory down", f"steps until 1/e is left{note}")
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _png(figure)


def singular_picture(layers: Sequence[LayerDiagnosis]) -> bytes | None:
    """The singular values of each recurrent weight, from the largest down; a panel for each layer."""
    shown = [layer for layer in layers if layer.singular]
    if not shown:
        return None
    figure = _figure(3.4)
    grid = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, layer in zip(grid, shown, strict=True):
        for colour, (name, values) in zip(_cycle(), layer.singular.items(), strict=False):
            marker = "o" if len(values) <= 16 else None
            axes.plot(
                range(1, len(values) + 1),
                values.numpy(),
                color=colour,
                linewidth=1.6,
                label=name,
                marker=marker,
                markersize=3,
            )
        axes.axhline(1, color=SOFT, linewidth=0.9, linestyle=(0, (6, 3)))
        axes.set_ylim(bottom=0)
        _dressed(axes, "values, from the largest down", "", layer.name if len(shown) > 1 else "")
        _whole(axes)
        axes.legend(frameon=False, fontsize=9)
    grid[0].set_ylabel("singular value of U", color=INK)
    return _png(figure)


def spectrum_picture(layers: Sequence[LayerDiagnosis]) -> bytes | None:
    """The eigenvalues of the state-to-state Jacobian in the complex plane, with the unit circle."""
    shown = [(layer, layer.eigenvalues) for layer in layers if layer.eigenvalues is not None]
    if not shown:
        return None
    figure = _figure(4.4, width=min(WIDE, 4.6 * len(shown)))
    grid = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (layer, eigenvalues) in zip(grid, shown, strict=True):
        turn = np.linspace(0, 2 * np.pi, 400)
        axes.plot(np.cos(turn), np.sin(turn), color=SOFT, linewidth=1)
        for colour, at_one in zip(_cycle(), eigenvalues, strict=False):
            axes.scatter(at_one.real.numpy(), at_one.imag.numpy(), s=9, color=colour, alpha=0.5, linewidths=0)
        reach = 1.08 * max(1.0, float(eigenvalues.abs().max()))
        _dressed(axes, "real part", "imaginary part", layer.name if len(shown) > 1 else "")
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    return _png(figure)


def clipping_picture(records: Sequence[Mapping[str, float]]) -> bytes:
    """In which share of its steps each epoch's gradient was clipped."""
    figure = _figure(2.8)
    axes = figure.subplots()
    epochs, shares = [record["epoch"] for record in records], [100 * record["clipped"] for record in records]
    axes.bar(epochs, shares, color=COLOURS[0], width=0.7)
    axes.set_ylim(0, max(1.0, 1.1 * max(shares)))
    _whole(axes)
    _dressed(axes, "epoch", "steps that were clipped, in %")
    return _png(figure)


def _cycle() -> list[str]:
    return list(COLOURS) * 8
