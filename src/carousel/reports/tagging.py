"""What a page shows of a tagger: what it finds of each kind, new words, confusion, mistakes, length, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from carousel.metrics.spans import parts, spans_by_kind, tokens_by_tag
from carousel.reports.classification import calibration_section, confusion_section, length_section
from carousel.reports.section import Section, Text

WORST = 12


@dataclass(frozen=True)
class Judged:
    """Sentences: their words and tags, the tags that were said, how probable these are, and which words are known."""

    tokens: Sequence[Sequence[str]]
    right: Sequence[Sequence[str]]
    said: Sequence[Sequence[str]]
    probabilities: Sequence[Sequence[float]]
    known: Sequence[Sequence[bool]]


def tagging_sections(found: Judged, *, in_spans: bool) -> list[Section]:
    """For the page; `in_spans` says that tags are those of spans."""
    right, said = ([_short(tag, in_spans) for tags in both for tag in tags] for both in (found.right, found.said))
    labels = sorted({*right, *said})
    numbers = {label: k for k, label in enumerate(labels)}
    a, b = np.array([numbers[tag] for tag in right]), np.array([numbers[tag] for tag in said])
    hit = _flat(found.right) == _flat(found.said)
    each = [
        float(np.mean([x == y for x, y in zip(*pair, strict=True)]))
        for pair in zip(found.right, found.said, strict=True)
    ]
    sure = np.array([p for row in found.probabilities for p in row])
    return [
        _by_kind(found, in_spans=in_spans),
        _new_words(hit, np.array([known for row in found.known for known in row])),
        confusion_section(a, b, labels),
        _worst(found, in_spans=in_spans),
        length_section(np.array([len(row) for row in found.tokens]), np.array(each)),
        calibration_section(sure, hit.astype(float)),
    ]


def _flat(rows: Sequence[Sequence[str]]) -> np.ndarray:
    return np.array([tag for row in rows for tag in row])


def _short(tag: str, in_spans: bool) -> str:
    """Of a span's tag its kind."""
    return (parts(tag)[1] or tag) if in_spans else tag


def _by_kind(found: Judged, *, in_spans: bool) -> Section:
    counts = (spans_by_kind if in_spans else tokens_by_tag)(found.right, found.said)
    what = "spans" if in_spans else "tokens"
    rows = [(name, *(f"{share:.1%}" for share in one.shares), str(one.right)) for name, one in counts.items()]
    worst = min((name for name in counts if counts[name].right), key=lambda name: counts[name].shares[2], default=None)
    words = (
        f"It is weakest on {worst}: {counts[worst].both} of {counts[worst].right} {what}."
        if worst
        else "There are none."
    )
    how = "A span counts that has both its ends and its kind right." if in_spans else ""
    return Section("What it finds", words, how, table=((what, "precision", "recall", "F1", "in the data"), *rows))


def _new_words(hit: np.ndarray, known: np.ndarray) -> Section:
    old, new = hit[known], hit[~known]
    shares = [f"{part.mean():.1%} of {len(part)}" if len(part) else "none" for part in (old, new)]
    words = f"Tags are right on {shares[0]} tokens that are in the vocabulary, and on {shares[1]} that are not."
    return Section("Words it does not know", words)


def _worst(found: Judged, *, in_spans: bool) -> Section:
    """Sentences with the wrong tags of which it was surest."""
    wrong = []
    for k, (right, said) in enumerate(zip(found.right, found.said, strict=True)):
        places = [t for t in range(len(right)) if right[t] != said[t]]
        if places:
            t = max(places, key=found.probabilities[k].__getitem__)
            wrong.append((found.probabilities[k][t], k, t))
    wrong.sort(key=lambda one: -one[0])
    words = f"{len(wrong)} of {len(found.tokens)} sentences have a wrong tag; these with the most confidence."
    texts = [_marked(found, k, t, in_spans=in_spans) for _, k, t in wrong[:WORST]]
    return Section("The worst mistakes", words, "Orange words have a wrong tag.", texts=texts)


def _marked(found: Judged, k: int, t: int, *, in_spans: bool) -> Text:
    right, said = found.right[k], found.said[k]
    caption = f"{found.tokens[k][t]!r} is {right[t]}, said {said[t]} with {found.probabilities[k][t]:.1%}"
    return Text(caption, [(token, 0.7 * (right[i] != said[i])) for i, token in enumerate(found.tokens[k])])
