"""What a page shows of a classifier: confusion, mistakes, calibration, and how it does on texts of each length."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.reports.section import Section

MOST = 12  # labels that a picture has room for
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def confusion_section(right: Ints, said: Ints, labels: Sequence[str]) -> Section:
    """How often each label was taken for each other; of many labels those that occur most.

    >>> section = confusion_section(np.array([0, 0, 1]), np.array([0, 1, 1]), ["bad", "good"])
    >>> section.table[1], section.words
    (('bad', '1', '1'), "Most often 'bad' was taken for 'good': 1 of 2.")
    """
    K = len(labels)
    counts = np.bincount(right * K + said, minlength=K * K).reshape(K, K)
    shown = np.sort(np.argsort(-counts.sum(1), kind="stable")[:MOST])
    wrong = counts - np.diag(np.diag(counts))
    of, taken = divmod(int(wrong.argmax()), K)
    words = (
        f"Most often {labels[of]!r} was taken for {labels[taken]!r}: {wrong[of, taken]} of {counts[of].sum()}."
        if wrong.any()
        else "There is no mistake."
    )
    names = [labels[k] for k in shown.tolist()]
    header = ("is ↓  said →", *names)
    rows = [(name, *(str(counts[k, j]) for j in shown)) for name, k in zip(names, shown, strict=True)]
    how = f"The {MOST} commonest of {K} labels." if len(shown) < K else ""
    return Section("What is taken for what", words, how, table=(header, *rows))


def calibration_section(probability: Floats, hit: Floats, bins: int = 10) -> Section:
    """Whether what is said with probability p is right in p of the cases.

        ECE = Σ_b n_b / n · |mean hit_b − mean probability_b|     over bins of probability of equal width

    Guo et al. 2017, arXiv:1706.04599v2, eq. 3.

    >>> calibration_section(np.array([0.95, 0.95]), np.array([1.0, 0.0])).words
    'The expected calibration error is 45.0%: it says 95.0% on average and is right in 50.0%.'
    """
    which = np.minimum((probability * bins).astype(int), bins - 1)
    points = [(probability[which == b].mean(), hit[which == b].mean(), (which == b).sum()) for b in set(which.tolist())]
    error = sum(n * abs(h - p) for p, h, n in points) / len(hit)
    said, right, sizes = zip(*[(p, h, 8 + 240 * n / len(hit)) for p, h, n in points], strict=True)
    words = (
        f"The expected calibration error is {error:.1%}: it says {probability.mean():.1%} on average and is right in "
        f"{hit.mean():.1%}."
    )
    picture = _picture(
        lambda axes: (
            axes.plot([0, 1], [0, 1], color="#888888", linewidth=0.9, linestyle="--"),
            axes.scatter(said, right, s=sizes),
        ),
        "probability that it says",
        "share that is right",
    )
    return Section("Does it know when it is right?", words, "The size of a point is how often it is so sure.", picture)


def length_section(lengths: Ints, hit: Floats, groups: int = 8) -> Section:
    """The share that is right among texts of about one length, with a 95% interval (normal approximation)."""
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, groups + 1)))
    which = np.clip(np.searchsorted(edges, lengths, side="right") - 1, 0, max(0, len(edges) - 2))
    points = [(np.median(lengths[which == g]), hit[which == g]) for g in sorted(set(which.tolist()))]
    x, y = [float(p) for p, _ in points], [float(h.mean()) for _, h in points]
    spread = [1.96 * float(h.std() / np.sqrt(len(h))) for _, h in points]
    low, high = min(range(len(y)), key=y.__getitem__), max(range(len(y)), key=y.__getitem__)
    words = "It does equally well on all."
    if y[low] < y[high]:
        words = (
            f"It does best on texts of about {x[high]:.0f} tokens ({y[high]:.1%} right), and worst on those of about "
            f"{x[low]:.0f} ({y[low]:.1%})."
        )
    picture = _picture(
        lambda axes: axes.errorbar(x, y, yerr=spread, marker="o", capsize=3, linewidth=1.4),
        "tokens in the text",
        "share that is right",
    )
    return Section("Does the length matter?", words, "Bars are 95% intervals.", picture)


def _picture(draw: Any, x: str, y: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 3.8), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#d8d4cc", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
