"""The captioners that ship, by school, and any captioner from its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from carousel.captioning.captioner import SHIPPED, Captioner
from carousel.captioning.captions import Attention, Caption, Decoding, Maps
from carousel.captioning.photo_encoder import ALL_FROZEN
from carousel.captioning.pipeline import TASK, Pipeline
from carousel.errors import ConfigError
from carousel.training.model_file import model_task
from carousel.training.names import nearest

SCHOOLS = {
    "nic": SHIPPED.with_name("flickr8k.safetensors"),  # an encoder and a decoder that reads the pooled features
    "attend": SHIPPED,  # a decoder that looks at places of the grid
    "compose": SHIPPED.with_name("flickr8k-compose.safetensors"),  # concepts, candidates, ranking
}
BEST = "attend"  # by CIDEr-D on Flickr8k's validation photos, among those that ship


def weights_of(school: str) -> Path:
    """The model file of a school that ships. Raises `ConfigError`.

    >>> weights_of("best").name
    'flickr8k-attend.safetensors'
    """
    name = nearest("school", school, [*SCHOOLS, "best"])
    path = SCHOOLS[BEST if name == "best" else name]
    if not path.exists():
        there = ", ".join(known for known, file in SCHOOLS.items() if file.exists())
        raise ConfigError(
            f"school: no weights of it ship (got {school}); {there}; train it with carousel train and name the file "
            "with --model"
        )
    return path


def load_captioner(path: str | Path = SHIPPED) -> Captioner | Pipeline:
    """The captioner in a file, whatever its school. Raises `ModelFileError`."""
    return Pipeline.load(path) if model_task(path) == TASK else Captioner.load(path)


class Schools:
    """Several captioners side by side, which say who speaks: the captions of the first, then those of the next.

    Args:
        captioners: by their names; the first one's attention is drawn.
    """

    def __init__(self, captioners: Mapping[str, Captioner | Pipeline]) -> None:
        self.captioners = dict(captioners)

    @classmethod
    def load(cls) -> Schools:
        """All that ship, the best first."""
        return cls({name: load_captioner(weights_of(name)) for name in sorted(SCHOOLS, key=lambda name: name != BEST)})

    def caption(self, photos: Tensor, decoding: Decoding = Decoding()) -> list[list[Caption]]:  # noqa: B008
        """As `Captioner.caption`, `decoding.n` captions of each."""
        found: list[list[Caption]] = [[] for _ in photos]
        plain = None  # what encoders see that were never tuned, which are the same
        for name, captioner in self.captioners.items():
            if captioner.encoder.finetune_from < ALL_FROZEN:
                seen = captioner.look(photos)
            else:
                seen = plain = captioner.look(photos) if plain is None else plain
            for captions, more in zip(found, captioner.describe(seen, decoding), strict=True):
                captions += [caption._replace(school=name) for caption in more]
        return found

    def attention(self, photos: Tensor, captions: Sequence[Caption]) -> list[Attention]:
        """As `Captioner.attention`, of the first."""
        return next(iter(self.captioners.values())).attention(photos, captions)

    def maps(self, photos: Tensor, lists: Sequence[Sequence[Caption]]) -> list[list[Maps]]:
        """As `Captioner.maps`, of all."""
        found: list[list[Maps]] = [[] for _ in lists]
        for name, captioner in self.captioners.items():
            own = [[caption for caption in captions if caption.school == name] for captions in lists]
            for maps, more in zip(found, captioner.maps(photos, own), strict=True):
                maps += [each._replace(what=f"{name}: {each.what}") for each in more]
        return found
