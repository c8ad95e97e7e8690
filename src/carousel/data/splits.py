"""Which examples are for training, which to choose by, and which for the score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from carousel.data.captions import Split

# Of ten examples of a kind: a tenth for validation and a fifth for the test.
TENTHS: tuple[Split, ...] = (
    "train", "train", "train", "val", "train", "train", "test", "train", "train", "test",
)  # fmt: skip
WORDS = {"val": "tenth for validation", "test": "fifth for the test"}


def complete_splits(given: Sequence[Split | None], labels: Sequence[int], seed: int) -> tuple[list[Split], str]:
    """A split for every example, and a line that says where they are from.

    Splits that are given stand. One that nobody has is drawn from the examples for training, and so are all where none
    is given: seeded, and stratified, so that each split has its share of every label.

    >>> splits, said = complete_splits([None] * 20, [0] * 10 + [1] * 10, seed=0)
    >>> Counter(zip(splits, [0] * 10 + [1] * 10))["val", 1], said
    (1, 'splits: a seeded tenth for validation and fifth for the test, by label')
    """
    known = {split for split in given if split is not None}
    missing = {"val", "test"} - known
    splits: list[Split] = [split or "train" for split in given]
    draw = torch.randperm(len(given), generator=torch.Generator().manual_seed(seed)).tolist()
    free = sorted((k for k in draw if splits[k] == "train"), key=lambda k: labels[k])
    for place, k in enumerate(free):
        if TENTHS[place % 10] in missing:
            splits[k] = TENTHS[place % 10]
    drawn = [words for split, words in WORDS.items() if split in missing]
    if not drawn:
        return splits, "splits: as the data says"
    of, by = " of the training rows" if known else "", ", by label" if len(set(labels)) > 1 else ""
    return splits, f"splits: a seeded {' and '.join(drawn)}{of}{by}"


def balance(labels: Sequence[str]) -> str:
    """How often each label occurs, in a line.

    >>> balance(["no", "yes", "no", "no"])
    'no 75%, yes 25%'
    """
    counts = sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{label} {100 * count / len(labels):.3g}%" for label, count in counts[:6]]
    return ", ".join(shown) + (f" and {len(counts) - 6} more" if len(counts) > 6 else "")
