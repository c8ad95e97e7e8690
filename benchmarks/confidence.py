"""What ranking and confidence of a calibrated captioner are worth on test photos, with intervals, and a picture.

    python benchmarks/confidence.py DATA MODEL [--picture reliability.png] [--threads 1]

DATA is a folder with `captions.jsonl.gz` and `images/`, MODEL a file that `carousel calibrate` wrote. Compared are the
sentences that it chooses, the first of the same lists (of a captioner made of parts: what its language model alone
would say), and the model's own beam, on the same photos (paired bootstrap, 1,000 resamples); its probabilities with one
that is constant and with the mean log-probability of a word.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from carousel import Decoding
from carousel.captioning import Caption
from carousel.captioning.confidence import GRADES, graded
from carousel.captioning.hedge import things_named
from carousel.captioning.pictures import load_pictures
from carousel.captioning.pipeline import Pipeline
from carousel.captioning.ranking import FEATURES
from carousel.captioning.schools import load_captioner
from carousel.data.captions import read_captions
from carousel.metrics import CiderD, hallucinated_objects, normalise
from carousel.metrics.calibration import auroc, brier, calibration_error, refusing, reliability
from carousel.metrics.score import Score
from carousel.tasks.calibration import seen_in
from carousel.training.progress import LiveProgress

Floats = NDArray[np.float64]
RESAMPLES = 1000


class Truth:
    """References, and what captions are worth by them."""

    def __init__(self, references: list[list[str]]) -> None:
        self.references, self.consensus = references, CiderD(references)

    def cider(self, texts: Sequence[str]) -> Floats:
        return 100 * self.consensus.scores(texts, range(len(texts)))

    def invented(self, texts: Sequence[str]) -> Floats:
        """Captions that name an object that no reference names, in percent."""
        pairs = zip(texts, self.references, strict=True)
        return np.array([100.0 * bool(hallucinated_objects(text, captions)) for text, captions in pairs])

    def grades(self, texts: Sequence[str]) -> NDArray[np.int64]:
        return graded(self.invented(texts) > 0, self.cider(texts) / 100)

    def grade_of_hedge(self, i: int, text: str) -> int:
        """With minor errors where it names something, all of it in the references; unrelated where all is wrong."""
        named = set(things_named(normalise(text).split()))
        there = {thing for caption in self.references[i] for thing in things_named(caption.split())}
        return 1 if named and named <= there else 2 if named & there or not named else 3


def interval(value: Callable[[NDArray[np.int64]], float], cases: int) -> str:
    """A value of some cases, with its 95% percentile bootstrap interval."""
    draw = np.random.default_rng(0)
    found = [value(draw.integers(cases, size=cases)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(found, [0.025, 0.975])
    return f"{value(np.arange(cases)):.3f} ({low:.3f} .. {high:.3f})"


def ranking(truth: Truth, ways: dict[str, list[Caption]]) -> None:
    """CIDEr-D and hallucination of each way to choose, and what the first way gains over each other."""
    scores = {
        name: [
            Score.mean("CIDEr-D", truth.cider([c.sentence for c in said])),
            Score.mean("hallucinated", truth.invented([c.sentence for c in said])),
        ]
        for name, said in ways.items()
    }
    (best, ours), *others = scores.items()
    for name, pair in scores.items():
        print(f"{name}: " + "; ".join(map(str, pair)))
    for name, pair in others:
        gains = [(a.name, a.minus(b)) for a, b in zip(ours, pair, strict=True)]
        print(f"{best} - {name}: " + "; ".join(f"{n} {d.value:+.1f} ({d.low:+.1f} .. {d.high:+.1f})" for n, d in gains))


def sureness(truth: Truth, said: list[Caption]) -> tuple[Floats, Floats]:
    """What the confidence is worth; returns it, and which captions are right."""
    grade = truth.grades([caption.sentence for caption in said])
    sure, right = np.array([caption.confidence for caption in said]), (grade <= 1).astype(np.float64)
    n = len(said)
    per_word = np.array([c.logprob / (len(c.words) + 1) for c in said])
    print(
        f"bad {100 - 100 * right.mean():.1f}%, mean confidence {sure.mean():.3f}; grades {np.bincount(grade).tolist()}"
    )
    print("AUROC", interval(lambda k: auroc(sure[k], right[k]), n))
    print("AUROC of log p a word alone", interval(lambda k: auroc(per_word[k], right[k]), n))
    print("calibration error", interval(lambda k: calibration_error(sure[k], right[k]), n))
    print(f"Brier {brier(sure, right):.3f}, of a constant {right.mean() * (1 - right.mean()):.3f}")
    for share in (0.2, 0.5):
        print(f"refusing {share}:", refusing(sure, right, share))
    print("removed by the fifth", interval(lambda k: refusing(sure[k], right[k]).wrong_removed, n))
    for g, name in enumerate(GRADES):
        print(f"confidence where {name}", interval(lambda k, g=g: sure[k][grade[k] == g].mean(), n))
    for g, name in enumerate(GRADES[1:], 1):
        fall = interval(lambda k, g=g: sure[k][grade[k] == g - 1].mean() - sure[k][grade[k] == g].mean(), n)
        print(f"  falls to {name} by", fall)
    hedged = np.array([caption.unsure_of is not None for caption in said])
    after = np.array([truth.grade_of_hedge(i, c.text) if hedged[i] else grade[i] for i, c in enumerate(said)])
    worst = [Score.mean("two worst grades", 100.0 * (g >= 2).astype(np.float64)) for g in (after, grade)]
    named = [Score.mean("hallucinated", truth.invented([getattr(c, f) for c in said])) for f in ("text", "sentence")]
    print(f"hedged {hedged.mean():.3f}; grades with hedges {np.bincount(after, minlength=4).tolist()}")
    for new, old in (worst, named):
        change = new.minus(old)
        print(f"{new} from {old}: {change.value:+.1f} ({change.low:+.1f} .. {change.high:+.1f})")
    for i in np.flatnonzero(hedged)[:6]:
        print(f"  {said[i].text} | {said[i].sentence} | {truth.references[i][0]}")
    return sure, right


def draw(path: Path, sure: Floats, right: Floats) -> None:
    """The reliability diagram: what was said, and how often it was right, of ten equal parts."""
    from matplotlib.figure import Figure

    bins = reliability(sure, right)
    x, y = [b.said for b in bins], [b.right for b in bins]
    spread = [1.96 * np.sqrt(b.right * (1 - b.right) / b.cases) for b in bins]
    figure = Figure(figsize=(5.2, 5.0), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    top.plot([0, 1], [0, 1], color="#888888", linewidth=0.9, linestyle="--")
    top.errorbar(x, y, yerr=spread, marker="o", capsize=3, linewidth=1.4)
    top.set_ylabel("share of captions that are right")
    bottom.hist([sure[right == 1], sure[right == 0]], np.linspace(0, 1, 26), stacked=True, label=["right", "bad"])
    bottom.set_xlabel("confidence")
    bottom.set_ylabel("captions")
    bottom.legend(frameon=False, loc="upper left")
    for axes in (top, bottom):
        axes.grid(color="#d8d4cc", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    captioner = load_captioner(arguments.model)
    photos = read_captions(arguments.data / "captions.jsonl.gz", photos=arguments.data / "images").part("test")
    with LiveProgress() as live:
        folder = arguments.data / "images"
        grid = isinstance(captioner, Pipeline) or captioner.config.decoder != "nic"
        pictures = load_pictures(photos, folder, captioner.encoder, mirror=False, live=live, grid=grid)
    truth = Truth([[normalise(" ".join(words)) for words in captions] for captions in pictures.captions])

    def said(decoding: Decoding) -> list[Caption]:
        batches = [captioner.describe(seen, decoding) for seen in seen_in(captioner, pictures)]
        return [captions[0] for batch in batches for captions in batch]

    assert captioner.judge is not None, "calibrate the model first"
    wide = captioner.judge.beam
    ways = {"ranked": said(Decoding())}
    if isinstance(captioner, Pipeline):
        captioner.weights = np.eye(len(FEATURES))[FEATURES.index("logprob")]
        ways["language model alone"] = said(Decoding(beam=wide, judged=False))
    else:
        ways[f"first of beam {wide}"] = said(Decoding(beam=wide, judged=False))
        ways[f"beam {captioner.config.beam}"] = said(Decoding(judged=False))
    ranking(truth, ways)
    print({name: round(weight, 3) for name, weight in captioner.judge.parts()[1]["ranking"].items()})
    sure, right = sureness(truth, ways["ranked"])
    if arguments.picture:
        draw(arguments.picture, sure, right)


if __name__ == "__main__":
    main()
