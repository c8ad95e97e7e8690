"""Several captioners as one: their decoders share an encoder, and their probabilities are averaged."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from carousel.captioning.captioner import Captioner
from carousel.errors import ConfigError

SHAPING = ("decoder", "image_at", "predict_start", "cell", "layers", "hidden_size", "embedding_size", "attention_size",
           "tied", "max_length", "finetune_from")  # fmt: skip


def ensemble(captioners: Sequence[Captioner], names: Sequence[str]) -> Captioner:
    """A captioner with the decoders of all, such as those of several seeds; for `names` in errors.

        p(w | photo, words before) = mean over decoders of p_m(w | photo, words before)

    The first one's settings of the search are kept, and no judge: it would have to learn anew (`calibrate`).

    Raises:
        ConfigError: they are not of one shape, vocabulary and encoder.
    """
    first, *others = captioners
    for captioner, name in zip(others, names[1:], strict=True):
        if differing := _difference(first, captioner):
            raise ConfigError(
                f"{name}: not for an ensemble with {names[0]} (got another {differing}); the same vocabulary, encoder "
                "and shape; train on the same photos with another --seed"
            )
    members = [member for captioner in captioners for member in captioner.members]
    facts = {name: value for name, value in first.facts.items() if name != "validation"}
    return Captioner(first.config, first.vocabulary, first.encoder, members, first.training_hashes, facts)


def _difference(one: Captioner, other: Captioner) -> str | None:
    """What keeps two captioners apart."""
    if one.vocabulary.to_list() != other.vocabulary.to_list():
        return "vocabulary"
    for name in SHAPING:
        if getattr(one.config, name) != getattr(other.config, name):
            return name
    mine, theirs = one.encoder.trained_state(), other.encoder.trained_state()
    return None if all(torch.equal(mine[name], theirs[name]) for name in mine) else "encoder, each tuned for itself"
