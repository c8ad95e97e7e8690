"""``carousel evaluate``: how good a model is on data whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carousel.errors import ConfigError

if TYPE_CHECKING:
    from carousel.tasks.captioning import CaptionEvaluation
    from carousel.tasks.task import Evaluation


def evaluate(
    data: Annotated[Path, typer.Argument(help="Anything that `carousel train` reads.")],
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="The folder of the photos, where DATA is captions.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="A run folder or a model file; by default, for captions, the one that ships."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "test",
    test_list: Annotated[Path | None, typer.Option(help="Photo names to evaluate on, one a line.")] = None,
    beam: Annotated[
        int | None, typer.Option("--beam", min=1, max=100, help="Width of the beam; by default the model's own.")
    ] = None,
    length_normalisation: Annotated[float | None, typer.Option(min=0, max=2)] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    output: Annotated[
        Path | None, typer.Option("--captions", metavar="FILE.jsonl", help="Write the captions there.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; by default torch's choice.")] = None,
) -> None:
    """Score a model on a split of some data, with 95% intervals; captions also for invented objects, novelty, speed."""
    if split not in ("train", "val", "test"):
        raise ConfigError(f"--split: no such split (got {split}); train, val or test; choose one")
    import torch

    from carousel.tasks import verbs
    from carousel.tasks.task import Evaluation

    if threads is not None:
        torch.set_num_threads(threads)
    if images is None:
        _print(verbs.evaluate(data, model=model, split=split), as_json)  # type: ignore[arg-type]
        return
    from carousel.captioning import Decoding
    from carousel.training import write_atomically

    found = verbs.evaluate(
        data,
        images,
        model=model,
        split=split,  # type: ignore[arg-type]
        lists={"test": test_list} if test_list else None,
        decoding=Decoding(beam=beam, length_normalisation=length_normalisation),
        seed=seed,
    )
    if isinstance(found, Evaluation):
        _print(found, as_json)
        return
    if output is not None:
        lines = (json.dumps({"file": file, "caption": text}) + "\n" for file, text in found.captions.items())
        write_atomically(output, "".join(lines).encode())
    print(json.dumps(_facts(found)) if as_json else _table(found))


def _print(found: Evaluation, as_json: bool) -> None:
    facts = {score.name: score.estimate._asdict() for score in found.scores}
    print(json.dumps(facts) if as_json else "\n".join([found.about, *map(str, found.scores)]))


NAMES = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D",
    "chair_s": "captions with a hallucinated object",
    "chair_i": "hallucinated among objects named",
    "novel": "captions not in the training set",
}


def _table(found: CaptionEvaluation) -> str:
    scores = found.scores
    lines = [f"{scores.images} photos; scores in percent with 95% bootstrap intervals over photos", ""]
    for field, name in NAMES.items():
        if (estimate := getattr(scores, field)) is not None:
            lines.append(
                f"{name:36} {100 * estimate.value:6.2f}   {100 * estimate.low:6.2f} .. {100 * estimate.high:.2f}"
            )
    if scores.meteor is not None:
        lines.append(f"{'METEOR 1.5 (Java)':36} {100 * scores.meteor:6.2f}")
    lines += [
        f"{'distinct captions':36} {scores.distinct:6}",
        f"{'words used':36} {scores.vocabulary:6}",
        *_sureness(found),
        "",
        f"decoding {1000 * found.seconds_decoding / scores.images:.1f} ms a photo; reading and encoding "
        f"{1000 * found.seconds_reading / scores.images:.1f} ms a photo (from the cache where it has them)",
        *scores.warnings,
    ]
    return "\n".join(lines)


def _known(found: CaptionEvaluation) -> dict[str, Any]:
    if found.sureness is None:
        return {}
    return {"confidence": found.sureness._asdict() | {"refused": found.sureness.refused._asdict()}}


def _sureness(found: CaptionEvaluation) -> list[str]:
    """What the captioner's confidence is worth, where it has learned to judge."""
    if (known := found.sureness) is None:
        return []
    means = ", ".join(f"{mean:.2f}" for mean in known.by_grade)
    before, after = known.refused.wrong_before, known.refused.wrong_after
    return [
        "",
        f"{'confidence: AUROC':36} {100 * known.auroc:6.2f}",
        f"{'  expected calibration error':36} {100 * known.calibration_error:6.2f}",
        f"{'  mean, from best to worst grade':36} {means}",
        f"{'bad captions':36} {100 * before:6.2f}   without the least sure fifth {100 * after:.2f}",
        f"{'hedged captions':36} {100 * known.hedged:6.2f}   with them {100 * known.chair_s:.2f} of all captions "
        "hallucinate an object",
    ]


def _facts(found: CaptionEvaluation) -> dict[str, Any]:
    scores = found.scores._asdict()
    estimates = {name: value._asdict() if hasattr(value, "_asdict") else value for name, value in scores.items()}
    return {
        **estimates,
        **_known(found),
        "seconds_reading": found.seconds_reading,
        "seconds_decoding": found.seconds_decoding,
    }
