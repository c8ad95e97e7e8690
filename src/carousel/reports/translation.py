"""What a page shows of a translator: where it looks, what it writes, and how it does on texts of each length."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.metrics.score import Score
from carousel.reports.section import Section


class Alignment(NamedTuple):
    """The weights (T, S) with which each of T written tokens looked at S read ones."""

    source: Sequence[str]
    target: Sequence[str]
    weights: NDArray[np.float64]


def attention_section(alignments: Sequence[Alignment]) -> Section:
    """Pictures of where the decoder looked, one for each translation."""
    from matplotlib.figure import Figure

    columns = min(2, len(alignments))
    rows = -(-len(alignments) // columns)
    figure = Figure(figsize=(5.4 * columns, 5.0 * rows), layout="constrained")
    for axes, one in zip(figure.subplots(rows, columns, squeeze=False).flat, alignments, strict=False):
        axes.imshow(one.weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(one.source)), one.source, rotation=60, ha="right", fontsize=8, parse_math=False)
        axes.set_yticks(range(len(one.target)), one.target, fontsize=8, parse_math=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    sure = np.mean([one.weights.max(1).mean() for one in alignments])
    words = f"The state that is looked at most has {sure:.0%} of the weight on average."
    how = "Each row is a token that was written, each column one that was read; the darker, the more weight."
    return Section("Where it looks", words, how, content.getvalue())


def samples_section(heading: str, words: str, rows: Sequence[tuple[str, str, str]]) -> Section:
    """Sources, what was said and what is right, side by side."""
    return Section(heading, words, table=(("source", "translation", "reference"), *rows))


def source_length_section(score: Score, lengths: NDArray[np.int64], groups: int = 5) -> Section:
    """The score on sources of about one length."""
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, groups + 1)))
    which = np.clip(np.searchsorted(edges, lengths, side="right") - 1, 0, max(0, len(edges) - 2))
    rows = []
    for group in sorted(set(which.tolist())):
        chosen = which == group
        value = float(score.aggregate(score.statistics[chosen].sum(axis=0))[0])
        rows.append((f"{lengths[chosen].min()} to {lengths[chosen].max()}", str(int(chosen.sum())), f"{value:.2f}"))
    return Section("Does the length matter?", "", table=(("source tokens", "sentences", score.name), *rows))
