"""``carousel caption``: photos in, sentences out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carousel.errors import ConfigError

if TYPE_CHECKING:
    from carousel.captioning import Caption, Captioner, PhotoCaptions
    from carousel.captioning.pipeline import Pipeline
    from carousel.captioning.schools import Schools
    from carousel.reports.captions import Heat


def caption(
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTO... | DIR | -",
            help="JPEG, PNG or WebP files, folders of them, or - to read paths from standard input.",
        ),
    ],
    n: Annotated[int, typer.Option("--n", min=1, max=100, help="Sentences for each photo.")] = 1,
    beam: Annotated[
        int | None, typer.Option("--beam", min=1, max=100, help="Width of the beam; by default the model's own.")
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Draw sentences at random instead of searching for the likeliest.")
    ] = False,
    temperature: Annotated[
        float, typer.Option(min=0.01, max=100, help="With --sample: below 1 likelier words, above 1 bolder ones.")
    ] = 1.0,
    top_k: Annotated[
        int, typer.Option("--top-k", min=0, help="With --sample: only the k likeliest words; 0 allows all.")
    ] = 0,
    top_p: Annotated[
        float,
        typer.Option(
            "--top-p", min=0.001, max=1, help="With --sample: only the words that hold this much probability."
        ),
    ] = 1.0,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="With --sample: the same seed draws the same sentences.")
    ] = 0,
    length_normalisation: Annotated[
        float | None,
        typer.Option(
            min=0, max=2, help="Divide log-probabilities by length to this power; by default the model's own."
        ),
    ] = None,
    judged: Annotated[
        bool,
        typer.Option(
            "--judged/--unjudged", help="Choose among candidates and say how sure; or the decoder's own order alone."
        ),
    ] = True,
    hedge: Annotated[
        bool, typer.Option(help="Name only what is surely seen in place of a sentence that is not sure enough.")
    ] = True,
    no_repeat: Annotated[
        int,
        typer.Option("--no-repeat", min=0, max=20, help="No run of this many words twice in a sentence; 0 allows all."),
    ] = 0,
    model: Annotated[Path | None, typer.Option("--model", help="A model file; by default the one that ships.")] = None,
    school: Annotated[
        str | None,
        typer.Option(
            "--school", help="nic, attend, compose, best or all: which of those that ship; by default the best."
        ),
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(
            "--gallery", metavar="DIR", help="Name the people and landmarks of a gallery; see carousel gallery."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a photo.")] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="PAGE.html", help="Write a page that shows the photos with their sentences."),
    ] = None,
    attention: Annotated[
        Path | None,
        typer.Option("--attention", metavar="MAPS.png", help="Draw where the model looked for each word."),
    ] = None,
) -> None:
    """Describe photos in a sentence, or in several."""
    if sample and beam is not None:
        raise ConfigError("--beam: has no meaning with --sample (got both); one of the two; leave one out")
    if school is not None and model is not None:
        raise ConfigError("--school: has no meaning with --model (got both); one of the two; leave one out")
    from carousel.captioning import Decoding, caption_photos
    from carousel.captioning.gallery import Gallery
    from carousel.captioning.photo_captions import with_entities
    from carousel.captioning.schools import SCHOOLS, Schools, load_captioner, weights_of
    from carousel.training.names import nearest
    from carousel.vision.photo import find_photos

    if school is not None:
        nearest("school", school, [*SCHOOLS, "best", "all"])
    known = Gallery.load(gallery) if gallery is not None else None
    captioner = Schools.load() if school == "all" else load_captioner(model or weights_of(school or "best"))
    decoding = Decoding(
        n=n,
        beam=beam,
        length_normalisation=length_normalisation,
        sample=sample,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        no_repeat=no_repeat,
        seed=seed,
        judged=judged,
        hedge=hedge,
    )
    streamed = photos == ["-"]
    files: Iterable[str | Path] = _paths_from_input() if streamed else find_photos(photos)
    results = []
    failed = False
    for result in caption_photos(captioner, files, decoding, batch_size=1 if streamed else 8):
        failed |= result.error is not None
        if known is not None:
            result = with_entities(result, known)
        _print(result, as_json)
        if report is not None or attention is not None:
            results.append(result)
    if attention is not None:
        print(_draw_attention(attention, results, captioner), file=sys.stderr if as_json else sys.stdout)
    if report is not None:
        print(_write_report(report, results, captioner, model), file=sys.stderr if as_json else sys.stdout)
    if failed:
        raise typer.Exit(2)


def _paths_from_input() -> Iterator[str]:
    """One path a line; empty lines are skipped."""
    for line in sys.stdin:
        if path := line.rstrip("\r\n"):
            yield path


def _print(result: PhotoCaptions, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result.as_json(), ensure_ascii=False), flush=True)
    elif result.error is not None:
        print(result.error, file=sys.stderr, flush=True)
    else:
        print(result.file)
        for found in result.captions:
            said = found.text if found.school is None else f"{found.school}: {found.text}"
            print(f"  {said}  ({_about(found)})")
        sys.stdout.flush()


def _about(found: Caption) -> str:
    """How likely and, where that is known, how sure a sentence is."""
    words = [f"{found.logprob:.2f}", *(["new"] if found.novel else [])]
    if found.confidence is not None:
        of = f" of: {found.unsure_of}" if found.unsure_of is not None else f", {found.grade}"
        words.append(f"{found.confidence:.0%} sure{of}")
    return ", ".join(words)


def _draw_attention(path: Path, results: list[PhotoCaptions], captioner: Captioner | Pipeline | Schools) -> Path:
    """The best caption of every photo that could be read."""
    import torch

    from carousel.reports.attention import LookedAt, attention_picture
    from carousel.training import write_atomically
    from carousel.vision.photo import read_photo

    good = [result for result in results if result.captions and result.captions[0].words]
    if not good:
        raise ConfigError("--attention: nothing to draw (got no photo with a caption); at least one; see above")
    photos = torch.stack([read_photo(result.file) for result in good])
    found = captioner.attention(photos, [result.captions[0] for result in good])
    shown = [
        LookedAt(
            photo.permute(1, 2, 0).numpy(),
            each.words,
            each.places.numpy(),
            None if each.sentinel is None else each.sentinel.numpy(),
        )
        for photo, each in zip(photos, found, strict=True)
    ]
    write_atomically(path, attention_picture(shown))
    return path


def _write_report(
    path: Path, results: list[PhotoCaptions], captioner: Captioner | Pipeline | Schools, model: Path | None
) -> Path:
    from carousel.captioning import Captioner
    from carousel.captioning.schools import Schools
    from carousel.reports import PhotoResult, write_caption_report

    shown = []
    for result in results:
        if result.error is not None:
            shown.append(PhotoResult(result.file, error=result.error))
        else:
            image, named = Path(result.file).read_bytes(), result.entities.names() if result.entities else None
            heat = _heat(result, captioner)
            shown.append(PhotoResult(result.file, result.captions, image, heat=heat, named=named))
    name = "the model that ships with Carousel, trained on Flickr8k" if model is None else str(model)
    decoders = {"nic": "Show and Tell", "attend": "Show, attend and tell", "adaptive": "Adaptive attention"}
    school = "Concepts, candidates, ranking"
    if isinstance(captioner, Schools):
        school, name = "All schools", "the models that ship with Carousel, trained on Flickr8k"
    elif isinstance(captioner, Captioner):
        school = decoders[captioner.config.decoder]
    return write_caption_report(path, shown, title="Captions", model_line=f"{school}: {name}")


def _heat(result: PhotoCaptions, captioner: Captioner | Pipeline | Schools) -> list[Heat]:
    """Where the model looked, and what it saw where."""
    from carousel.reports.captions import Heat
    from carousel.vision.photo import read_photo

    if not all(caption.words for caption in result.captions):
        return []
    photo = read_photo(result.file)
    pixels = photo.permute(1, 2, 0).numpy()
    [maps] = captioner.maps(photo[None], [result.captions])
    return [Heat(each.what, pixels, each.words, each.places.numpy(), each.shares) for each in maps]
