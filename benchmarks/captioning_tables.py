"""What docs/captioning-study.md shows, of what captioning_study.py has kept: tables, the answer, the picture.

Seeds are pooled so: photos are drawn with replacement, the same ones for every training; the score of each seed is
taken on those drawn; the mean over the seeds is one draw. For scores that are means over photos, such as CIDEr-D, this
is the mean over seeds of each photo, resampled. The interval says how far the scores would move with other photos, not
with other seeds: the seeds' own scores stand beside it. Two variants are compared on the seeds that both have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.metrics import SCORES, Difference, Estimate, bootstrap, bootstrap_difference, scores_from_statistics

COLUMNS = 18  # of `carousel.metrics.caption_statistics`
REFERENCE, CLAIMED_WORSE = "pre", "par"
MADE = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Floats = NDArray[np.float64]


class Said(NamedTuple):
    """What one training says of the test photos with one beam."""

    files: Sequence[str]
    statistics: Floats  # (photos, COLUMNS)
    distinct: int
    words: int


Seeds = Mapping[int, Said]


def pooled(seeds: Seeds) -> Floats:
    """The statistics of all seeds side by side, (photos, seeds · COLUMNS)."""
    said = [seeds[seed] for seed in sorted(seeds)]
    if any(list(one.files) != list(said[0].files) for one in said):
        raise DataError("photos: not the same for all seeds (got others); those of one test split; caption them anew")
    return np.hstack([one.statistics for one in said])


def mean_over_seeds(sums: Floats) -> Floats:
    """Scores (..., 9) in percent, each the mean of the seeds' own, from sums of `pooled`."""
    return 100 * scores_from_statistics(sums.reshape(*sums.shape[:-1], -1, COLUMNS)).mean(axis=-2)


def estimates(seeds: Seeds) -> dict[str, Estimate]:
    """Every score of a variant, with its 95% interval over photos."""
    found = bootstrap(pooled(seeds), mean_over_seeds, generator=np.random.default_rng(0))
    return dict(zip(SCORES, found, strict=True))


def differences(first: Seeds, second: Seeds) -> dict[str, Difference]:
    """How much larger each score of the first is, on the same photos and on the seeds that both have."""
    ours, theirs = _shared(first, second)
    if list(next(iter(ours.values())).files) != list(next(iter(theirs.values())).files):
        raise DataError("photos: not the same for both (got others); those of one test split; caption them anew")
    draw = np.random.default_rng(0)
    found = bootstrap_difference(pooled(ours), pooled(theirs), mean_over_seeds, generator=draw)
    return dict(zip(SCORES, found, strict=True))


def by_seed(seeds: Seeds, score: str = "cider_d") -> dict[int, float]:
    """The score of each seed, in percent."""
    place = SCORES.index(score)
    return {seed: float(mean_over_seeds(seeds[seed].statistics.sum(axis=0))[place]) for seed in sorted(seeds)}


def differences_by_seed(first: Seeds, second: Seeds) -> list[float]:
    """How much larger the CIDEr-D of the first is, for each seed that both have."""
    ours, theirs = (by_seed(one) for one in _shared(first, second))
    return [ours[seed] - theirs[seed] for seed in ours]


def _shared(first: Seeds, second: Seeds) -> tuple[Seeds, Seeds]:
    both = sorted(first.keys() & second.keys())
    return {seed: first[seed] for seed in both}, {seed: second[seed] for seed in both}


# --- in words ---------------------------------------------------------------------------------------------------------


def answer(found: Mapping[str, Seeds], wanted: int) -> str:
    """Whether feeding the image at each time step is worse, by the interval alone."""
    par, pre = found.get(CLAIMED_WORSE, {}), found.get(REFERENCE, {})
    shared = sorted(par.keys() & pre.keys())
    if not shared:
        return (
            f"**Not answered yet.** Captioned so far: `par` {_seeds(par)}, `pre` {_seeds(pre)}; both must have a seed."
        )
    whole, each = differences(par, pre)["cider_d"], differences_by_seed(par, pre)
    numbers = (
        f"CIDEr-D of `par` minus `pre`, {_seeds(shared)}: {_signed(whole)}, p = {whole.p:.3f}; "
        f"seed by seed {_list(each)}."
    )
    return f"**{_verdict(whole, each, len(shared), wanted)}** {numbers}"


def _verdict(whole: Difference, each: Sequence[float], seeds: int, wanted: int) -> str:
    if whole.low <= 0 <= whole.high:
        said = (
            f"No difference is shown: the interval holds zero. At most {max(0.0, -whole.low):.1f} worse and at most "
            f"{max(0.0, whole.high):.1f} better."
        )
    elif whole.high < 0:
        said = "Worse: the interval lies below zero, as the claim has it."
    else:
        said = "Better: the interval lies above zero, against the claim."
    if not whole.low <= 0 <= whole.high and len({value > 0 for value in each}) > 1:
        said += " But the seeds do not agree, so that others may turn it."
    return said if seeds >= wanted else f"Not settled, {seeds} of {wanted} seeds: " + said[0].lower() + said[1:]


# --- tables -----------------------------------------------------------------------------------------------------------


def quality(found: Mapping[str, Seeds], minutes: Mapping[str, float], milliseconds: Mapping[str, float]) -> list[str]:
    """Every variant."""
    rows = []
    for name, seeds in found.items():
        score = estimates(seeds)
        rows.append(
            [
                f"`{name}`", len(seeds), _interval(score["cider_d"]), _list(by_seed(seeds).values(), sign=""),
                *(f"{score[key].value:.1f}" for key in ("bleu_4", "rouge_l", "chair_s", "novel")),
                *(f"{mean(getattr(one, key) for one in seeds.values()):.0f}" for key in ("distinct", "words")),
                _number(milliseconds.get(name)), _number(minutes.get(name)),
            ]
        )  # fmt: skip
    return table(
        "variant | seeds | CIDEr-D (95%) | seed by seed | BLEU-4 | ROUGE-L | hallucinate | new | distinct | words | "
        "one photo, ms | training, min",
        rows,
    )


def beams(found: Mapping[int, Mapping[str, Seeds]]) -> list[str]:
    """Every variant and beam, in short."""
    rows = []
    for name in dict.fromkeys(name for of_beam in found.values() for name in of_beam):
        for beam, of_beam in found.items():
            if seeds := of_beam.get(name):
                score = dict(zip(SCORES, mean_over_seeds(pooled(seeds).sum(axis=0)), strict=True))
                values = (f"{score[key]:.1f}" for key in ("cider_d", "bleu_4", "rouge_l", "chair_s", "novel"))
                counts = (f"{mean(getattr(s, key) for s in seeds.values()):.0f}" for key in ("distinct", "words"))
                rows.append([f"`{name}`", beam, len(seeds), *values, *counts])
    return table("variant | beam | seeds | CIDEr-D | BLEU-4 | ROUGE-L | hallucinate | new | distinct | words", rows)


def against(found: Mapping[str, Seeds]) -> list[str]:
    """Every other variant minus the reference, paired."""
    rows = []
    for name, seeds in found.items():
        if name == REFERENCE or not (shared := seeds.keys() & found.get(REFERENCE, {}).keys()):
            continue
        less = differences(seeds, found[REFERENCE])
        each = _list(differences_by_seed(seeds, found[REFERENCE]))
        values = (_signed(less[key]) for key in ("cider_d", "bleu_4", "rouge_l", "chair_s"))
        rows.append([f"`{name}`", len(shared), *values, f"{less['cider_d'].p:.3f}", each])
    title = f"minus `{REFERENCE}` | seeds | CIDEr-D | BLEU-4 | ROUGE-L | hallucinate | p, CIDEr-D | CIDEr-D by seed"
    return table(title, rows) if rows else [f"No variant has a seed in common with `{REFERENCE}` yet."]


def retrieval(measured: Iterable[Mapping[str, Mapping[int, Mapping[str, Any]]]]) -> list[str]:
    """R@1, R@10 in percent and median rank, the mean over seeds, of what was measured by variant and seed."""
    keys = [f"{side}_{key}" for side in ("annotation", "search") for key in ("recall_1", "recall_10", "median_rank")]
    rows = []
    for found in measured:
        for name, seeds in found.items():
            first = next(iter(seeds.values()))
            for way in first["scores"]:
                values = (f"{mean(one['scores'][way][key] for one in seeds.values()):.1f}" for key in keys)
                rows.append([f"`{name}`", way, first["photos"], first["captions"], len(seeds), *values])
    title = (
        "variant | scored by | photos | captions | seeds | a photo's captions: R@1 | R@10 | median | "
        "a caption's photo: R@1 | R@10 | median"
    )
    return table(title, rows) if rows else ["Not measured yet."]


def standing(trained: Mapping[str, Sequence[int]], about: Mapping[str, str], wanted: Sequence[int]) -> list[str]:
    """What is trained, and what is still to be run."""
    rows = [
        [f"`{name}`", what, _numbers(trained.get(name, ())), _numbers(set(wanted) - set(trained.get(name, ())))]
        for name, what in about.items()
    ]
    return table("variant | what | seeds trained | still to be run", rows)


def table(title: str, rows: Iterable[Sequence[Any]]) -> list[str]:
    """A table in Markdown, of a title such as ``a | b``."""
    lines = [title, "|".join(["---"] * (title.count("|") + 1)), *(" | ".join(map(str, row)) for row in rows)]
    return [f"| {line} |" if set(line) - set("-|") else f"|{line}|" for line in lines]


def filled(page: str, made: Mapping[str, Sequence[str]]) -> str:
    """The page with what is made between its marks, and every word outside of them as it was."""
    there = [mark[2] for mark in MADE.finditer(page)]
    if sorted(there) != sorted(made):
        raise DataError(f"page: marks (got {', '.join(there) or 'none'}); {', '.join(made)}; <!-- made: NAME --> each")
    return MADE.sub(lambda mark: mark[1] + "\n".join(made[mark[2]]) + "\n" + mark[3], page)


def draw(found: Mapping[str, Seeds], file: Path) -> None:
    """CIDEr-D by variant: the mean over seeds with its interval, and each seed as a dot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 1.2 + 0.45 * len(found)), layout="constrained")
    for row, seeds in enumerate(found.values()):
        value, low, high = estimates(seeds)["cider_d"]
        axes.errorbar(value, row, xerr=[[value - low], [high - value]], fmt="s", color="C0", capsize=4)
        each = list(by_seed(seeds).values())
        axes.plot(each, [row + 0.22] * len(each), ".", color="C1")
    axes.set_yticks(range(len(found)), [f"{name} ({len(seeds)})" for name, seeds in found.items()])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlabel("CIDEr-D: mean over seeds (how many), its 95% interval over photos\ndots: each seed")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _interval(score: Estimate) -> str:
    return f"{score.value:.1f} ({score.low:.1f} .. {score.high:.1f})"


def _signed(score: Difference) -> str:
    return f"{score.value:+.1f} ({score.low:+.1f} .. {score.high:+.1f})"


def _list(values: Iterable[float], sign: str = "+") -> str:
    return ", ".join(f"{value:{sign}.1f}" for value in values)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _numbers(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds))) or "none"


def _seeds(seeds: Iterable[int]) -> str:
    found = sorted(seeds)
    return f"{'seed' if len(found) == 1 else 'seeds'} {_numbers(found)}" if found else "no seed"
