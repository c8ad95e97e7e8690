"""What a page shows of a language model: texts it wrote, and how surprised it was by what it read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from carousel.reports.section import Section, Text

Floats = NDArray[np.float64]


def samples_section(samples: Mapping[str, str]) -> Section:
    """Texts by how they were drawn.

    >>> samples_section({"temperature 1": "Once"}).texts[0].tokens
    [('Once', 0.0)]
    """
    texts = [Text(how, [(text, 0.0)]) for how, text in samples.items()]
    return Section("What it writes", "Drawn token by token, with no prompt.", texts=texts)


def surprise_section(passages: Sequence[tuple[Sequence[str], Floats]], *, apart: str, unit: str) -> Section:
    """Passages as tokens, each with its −ln p: the stronger the colour, the less it was expected.

    >>> surprise_section([(["a", "b"], np.array([0.1, 6.0]))], apart=" ", unit="words").texts[0].caption
    'perplexity 21.1'
    """
    deep = max(float(surprise.max()) for _, surprise in passages) or 1.0
    texts = [
        Text(
            f"perplexity {np.exp(surprise.mean()):.1f}",
            [(token, float(value) / deep) for token, value in zip(tokens, surprise, strict=True)],
            apart,
        )
        for tokens, surprise in passages
    ]
    words = (
        f"The beginning of the text, and its least expected passages. The deepest colour is a chance of e^-{deep:.1f}."
    )
    return Section(
        "What surprised it", words, f"The colour of each of the {unit} is −ln p, given all before it.", texts=texts
    )


def costly_section(tokens: Sequence[str], surprise: Floats, counts: Mapping[str, int], most: int = 12) -> Section:
    """The tokens that cost most in all.

    >>> costly_section(["a", "b", "a"], np.array([1.0, 3.0, 1.0]), {"a": 7}).table[1]
    ('b', '1', '0', '3.00', '60.0%')
    """
    spent: dict[str, list[float]] = {}
    for token, value in zip(tokens, surprise.tolist(), strict=True):
        spent.setdefault(token, []).append(value)
    ordered = islice(sorted(spent.items(), key=lambda item: -sum(item[1])), most)
    rows = [
        (repr(t)[1:-1] if t.strip() != t or not t else t, str(len(v)), str(counts.get(t, 0)), f"{np.mean(v):.2f}",
         f"{sum(v) / surprise.sum():.1%}")
        for t, v in ordered
    ]  # fmt: skip
    header = ("token", "times", "in training", "mean −ln p", "of all surprise")
    return Section("Where the surprise is", "The tokens that add most to the loss.", table=(header, *rows))
