"""The captioners that ship, by school, and any captioner from its file."""

from __future__ import annotations

from pathlib import Path

from carousel.captioning.captioner import SHIPPED, Captioner
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
