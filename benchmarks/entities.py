"""How often a gallery names its own, and how often strangers: ``python benchmarks/entities.py PHOTOS --out FOLDER``.

PHOTOS is a folder of photos of mostly different people and places. They are shuffled by the seed; the first
`--calibration` of them are for setting thresholds, and only the nearest strangers among them are printed. Of the rest,
up to `--people` photos of one face, and as many of anything, make a gallery, one photo for each name. Then

- altered copies of them (cropped, blurred, dark, turned, squeezed to JPEG quality 30) are to be named rightly;
- every face, and `--strangers` photos, of the other photos of this part are to be named after nobody.

Two photos may show the same person or place unsaid: FOLDER/named-strangers.txt lists the pairs, look at them.
The scan for faces (0.2 s a photo) is kept in FOLDER and goes on where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image, ImageEnhance, ImageFilter
from safetensors.torch import load_file, save_file
from torch import Tensor

from carousel.captioning.entities import CLEAR, NEAR, PARTS, entities_in, named_faces, named_landmarks
from carousel.captioning.gallery import Gallery, add_photos
from carousel.errors import PhotoError
from carousel.vision import faces, landmarks
from carousel.vision.faces import Face
from carousel.vision.photo import find_photos, read_upright

Scan = dict[str, list[Face]]
Box = tuple[float, float, float, float]


def crop(photo: Image.Image, keep: Box, rng: random.Random) -> Image.Image:
    """70 to 90 % of each side, anywhere that leaves `keep`, in pixels, whole."""
    width, height = photo.size
    size = rng.uniform(0.7, 0.9)
    w, h = max(size * width, keep[2] - keep[0]), max(size * height, keep[3] - keep[1])
    left = rng.uniform(max(0.0, keep[2] - w), min(keep[0], width - w))
    top = rng.uniform(max(0.0, keep[3] - h), min(keep[1], height - h))
    return photo.crop((round(left), round(top), round(left + w), round(top + h)))


def jpeg(photo: Image.Image, keep: Box, rng: random.Random) -> Image.Image:
    photo.save(file := io.BytesIO(), "JPEG", quality=30)
    return Image.open(file)


ALTERED: dict[str, Callable[[Image.Image, Box, random.Random], Image.Image]] = {
    "cropped": crop,
    "blurred": lambda photo, keep, rng: photo.filter(ImageFilter.GaussianBlur(0.005 * max(photo.size))),
    "dark": lambda photo, keep, rng: ImageEnhance.Brightness(photo).enhance(0.35),
    "turned": lambda photo, keep, rng: photo.rotate(rng.uniform(-10, 10), Image.Resampling.BICUBIC),
    "JPEG 30": jpeg,
}


def scan(photos: list[Path], store: Path) -> Scan:
    """The faces of every photo."""
    rows = load_file(store) if store.exists() else {}  # (faces, 4 + 1 + 128): box, score, point
    began = time.process_time()
    for i, photo in enumerate(new := [photo for photo in photos if photo.name not in rows], start=1):
        found = faces.find_faces(read_upright(photo, faces.SIDE, enlarge=faces.ENLARGE), faces.POSSIBLE)
        row = [torch.tensor([*face.box, face.score, *face.points[0]]) for face in found]
        rows[photo.name] = torch.stack(row) if row else torch.empty(0, 133)
        if i % 200 == 0 or i == len(new):
            save_file(rows, store)
            print(f"{i} of {len(new)} photos, {(time.process_time() - began) / i:.3f} s of processor each", flush=True)
    return {photo.name: [_face(row) for row in rows[photo.name]] for photo in photos}


def _face(row: Tensor) -> Face:
    left, top, right, bottom, score = row[:5].tolist()
    return Face((left, top, right, bottom), score, row[None, 5:])


def nearest_strangers(found: Scan, count: int = 10) -> list[float]:
    """The shortest distances between faces of different photos."""
    points = torch.cat([face.points for of in found.values() for face in of])
    photo = torch.tensor([i for i, of in enumerate(found.values()) for _ in of])
    pairs = torch.triu(photo[:, None] != photo, 1)
    print(f"calibration: {len(found)} photos, {len(points)} faces, {int(pairs.sum())} pairs of different photos")
    return torch.cdist(points, points)[pairs].sort().values[:count].tolist()


def altered_copies(photos: list[Path], found: Scan, gallery: Gallery, kind: str, rng: random.Random) -> None:
    """Print how often each alteration is named rightly, wrongly and not at all."""
    for how, alter in ALTERED.items():
        counts: Counter[str] = Counter()
        for number, path in enumerate(photos):
            photo = Image.open(path).convert("RGB")
            keep = (photo.width / 2, photo.height / 2, photo.width / 2, photo.height / 2)
            if kind == "people":
                left, top, right, bottom = found[path.name][0].box
                edge = 0.25 * (bottom - top)
                keep = (max(0, left - edge) * photo.width, max(0, top - edge) * photo.height,
                        min(1, right + edge) * photo.width, min(1, bottom + edge) * photo.height)  # fmt: skip
            alter(photo, keep, rng).convert("RGB").save(file := io.BytesIO(), "PNG")
            seen = entities_in(file.getvalue(), gallery)
            names = {s.name for s in (seen.faces if kind == "people" else seen.landmarks) if s.name}
            right = f"{kind} {number:03d}"
            counts["right"] += right in names
            counts["wrong"] += bool(names - {right})
        share = counts["right"] / len(photos)
        print(f"{kind}, {how}: {share:.1%} of {len(photos)} named, {counts['wrong']} with a wrong name", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--calibration", type=int, default=3000)
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--landmarks", type=int, default=100)
    parser.add_argument("--strangers", type=int, default=1000)
    parser.add_argument("--most", type=int, help="use so many photos only")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(options.seed)
    photos = find_photos(options.photos)
    rng.shuffle(photos)
    photos = photos[: options.most]
    found = scan(photos, options.out / "faces.safetensors")
    first, rest = photos[: options.calibration], photos[options.calibration :]
    print("the nearest:", *(f"{d:.3f}" for d in nearest_strangers({p.name: found[p.name] for p in first})))
    print(f"thresholds: NEAR {NEAR}, CLEAR {CLEAR}, PARTS {PARTS}")

    folder = options.out / "gallery"
    people: list[Path] = []
    for photo in rest:
        with contextlib.suppress(PhotoError):  # no face, or several, or a small one
            if found[photo.name] and len(people) < options.people:
                add_photos(folder, photo, person=f"people {len(people):03d}")
                people.append(photo)
    places = rng.sample(rest, min(options.landmarks, len(rest)))
    for number, photo in enumerate(places):
        add_photos(folder, photo, landmark=f"landmarks {number:03d}")
    gallery = Gallery.load(folder)
    altered_copies(people, found, Gallery(gallery.people, {}), "people", rng)
    altered_copies(places, found, Gallery({}, gallery.landmarks), "landmarks", rng)

    wrong: list[str] = []
    others = [photo for photo in rest if photo not in people]
    for photo in others:
        for sighting in named_faces(found[photo.name], gallery):
            if sighting.name:
                wrong.append(f"{photo.name} {people[int(sighting.name[-3:])].name} {sighting.score:.3f}")
    strangers = sum(len(found[photo.name]) for photo in others)
    print(f"people: {len(wrong)} of {strangers} faces of {len(others)} other photos named")
    elsewhere = rng.sample([photo for photo in rest if photo not in places], options.strangers)
    for photo in elsewhere:
        for sighting in named_landmarks(landmarks.look(read_upright(photo, landmarks.SIDE, enlarge=2)), gallery):
            wrong.append(f"{photo.name} {places[int((sighting.name or '')[-3:])].name} {sighting.score:.0f}")
    print(f"landmarks and people: {len(wrong)} named in all, of {len(elsewhere)} photos for the landmarks")
    (options.out / "named-strangers.txt").write_text("\n".join(wrong) + "\n")


if __name__ == "__main__":
    main()
