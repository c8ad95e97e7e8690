"""What a page shows of a model of music: pieces as piano rolls."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from carousel.reports.section import Section

LOWEST = 21  # the MIDI number of the first key


def rolls_section(heading: str, words: str, how: str, rolls: Mapping[str, NDArray[np.float32]]) -> Section:
    """Piano rolls (T, 88) of sounding keys, or of their probabilities, one below the other.

    >>> rolls_section("One note", "", "", {"a": np.eye(3, 88, dtype=np.float32)}).picture[:4]
    b'\\x89PNG'
    """
    from matplotlib.figure import Figure

    sounding = np.flatnonzero(np.concatenate(list(rolls.values())).max(0) > 0.05)
    low, high = (int(sounding.min()), int(sounding.max())) if len(sounding) else (0, 87)
    figure = Figure(figsize=(10.8, 2.4 * len(rolls)), layout="constrained")
    for axes, (name, roll) in zip(figure.subplots(len(rolls), 1, squeeze=False).flat, rolls.items(), strict=True):
        axes.imshow(roll.T, cmap="Greys", vmin=0, vmax=1, aspect="auto", origin="lower", interpolation="none")
        octaves = [key for key in range(87) if (key + LOWEST) % 12 == 0]
        axes.set_yticks(octaves, [f"C{(key + LOWEST) // 12 - 1}" for key in octaves], fontsize=8)
        axes.set_ylim(low - 1.5, high + 1.5)
        axes.set_title(name, fontsize=9, loc="left", parse_math=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return Section(heading, words, how, content.getvalue())
