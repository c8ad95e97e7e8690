"""Who and what of a gallery is in a photo, and in its captions. Where there is doubt nobody is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from carousel.captioning.captions import Caption
from carousel.captioning.gallery import Gallery
from carousel.captioning.naming import with_names
from carousel.vision import faces, landmarks
from carousel.vision.landmarks import Box, View
from carousel.vision.photo import read_upright

# docs/entities.md says how the three were set.
NEAR = 0.34  # a face is named after a photo whose point is this near
CLEAR = 0.05  # and whose point is so much nearer than that of anyone else
PARTS = 30  # a landmark is named where this many parts agree
LIKELIEST = 5  # views that are alike as a whole, whose parts are compared


class Sighting(NamedTuple):
    """A face or a landmark in a photo. A face without a name is nobody of the gallery."""

    box: Box
    name: str | None
    score: float  # the distance of a face from the nearest of the gallery; the parts of a landmark that agree


class Entities(NamedTuple):
    """All faces of a photo from left to right, and the landmarks in it."""

    faces: list[Sighting]
    landmarks: list[Sighting]

    def name(self, caption: Caption) -> Caption:
        """The caption with the names in its text; its words stay those of the model."""
        people = [face.name for face in self.faces if face.name]
        places = [place.name for place in self.landmarks if place.name]
        return caption._replace(text=with_names(caption.text, people, len(self.faces), places))

    def names(self) -> list[str]:
        """Of all that the gallery knows, people first."""
        return [sighting.name for sighting in (*self.faces, *self.landmarks) if sighting.name]

    def as_json(self) -> dict[str, Any]:
        """As ``carousel caption --gallery DIR --json`` prints them."""

        def listed(found: list[Sighting], score: str) -> list[dict[str, Any]]:
            return [{"box": [round(x, 4) for x in s.box], "name": s.name, score: round(s.score, 4)} for s in found]

        return {"faces": listed(self.faces, "distance"), "landmarks": listed(self.landmarks, "parts")}


def entities_in(photo: str | Path | bytes, gallery: Gallery) -> Entities:
    """Find whom and what of `gallery` a photo shows. Raises `PhotoError`; `ConfigError` without the extra `faces`."""
    people = named_faces(faces.find_faces(_read(photo, faces.SIDE), faces.POSSIBLE), gallery) if gallery.people else []
    places = named_landmarks(landmarks.look(_read(photo, landmarks.SIDE)), gallery) if gallery.landmarks else []
    return Entities(people, places)


def _read(photo: str | Path | bytes, side: int) -> torch.Tensor:
    return read_upright(photo, side, enlarge=faces.ENLARGE)


def named_faces(found: list[faces.Face], gallery: Gallery) -> list[Sighting]:
    """Name each face after the nearest person, the nearest first, nobody twice. One without a name must be sure."""
    names = list(gallery.people)
    distances = [
        [float((points - face.points[0]).norm(dim=1).min()) for points in gallery.people.values()] for face in found
    ]
    named: dict[int, str] = {}
    for i in sorted(range(len(found)), key=lambda i: min(distances[i])):
        first, *others = sorted((distance, name) for distance, name in zip(distances[i], names, strict=True))
        alone = not others or others[0][0] - first[0] >= CLEAR
        if first[0] <= NEAR and alone and first[1] not in named.values():
            named[i] = first[1]
    sure = [i for i, face in enumerate(found) if i in named or face.score >= faces.FOUND]
    return [Sighting(found[i].box, named.get(i), min(distances[i])) for i in sure]


def named_landmarks(seen: View, gallery: Gallery) -> list[Sighting]:
    """The landmarks of which enough parts are in the photo, the surest first."""
    views = [(float(view.pooled @ seen.pooled), name, view) for name, of in gallery.landmarks.items() for view in of]
    likeliest = sorted(views, key=lambda view: -view[0])[:LIKELIEST]
    best: dict[str, Sighting] = {}
    for _, name, view in likeliest:
        parts, box = landmarks.agreement(view, seen)
        if parts >= PARTS and (name not in best or parts > best[name].score):
            best[name] = Sighting(box, name, parts)
    return sorted(best.values(), key=lambda sighting: -sighting.score)
