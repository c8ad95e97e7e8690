"""How the similarity model learns, how well it finds, and its one file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from carousel import __version__
from carousel.captioning.dmsm import DMSM, SimilarityConfig, Trigrams, similarity_loss
from carousel.metrics.retrieval import Retrieval, first_right_ranks, retrieval
from carousel.training import Loss, epoch_order, generator, read_model_file, write_model_file
from carousel.training.model_file import parts_fit

TASK = "similarity"


class Captioned(NamedTuple):
    """Photos as their features, with the captions of each as words."""

    features: Tensor  # (N, F)
    captions: Sequence[Sequence[Sequence[str]]]

    @property
    def pairs(self) -> list[tuple[int, Sequence[str]]]:
        """(photo, caption), photo by photo."""
        return [(photo, words) for photo, captions in enumerate(self.captions) for words in captions]


class BothWays(NamedTuple):
    """Retrieval in both directions."""

    annotation: Retrieval  # the captions of a photo
    search: Retrieval  # the photo of a caption

    def as_scores(self) -> dict[str, float]:
        """By name, shares in percent, as a log has them."""
        return {
            f"{way}_{name}": value if name == "median_rank" else 100 * value
            for way, found in self._asdict().items()
            for name, value in found._asdict().items()
        }


def retrieved(scores: Tensor, photo: Tensor) -> BothWays:
    """How early the right ones come, of scores (photos, captions) of captions that belong to `photo` (captions,).

    >>> retrieved(torch.tensor([[3.0, 0.0], [1.0, 2.0]]), torch.tensor([0, 1])).search.recall_1
    1.0
    """
    right = torch.arange(len(scores))[:, None] == photo
    return BothWays(
        retrieval(first_right_ranks(scores.numpy(), right.numpy())),
        retrieval(first_right_ranks(scores.T.numpy(), right.T.numpy())),
    )


def cosines(model: DMSM, found: Captioned, batch: int = 1000) -> Tensor:
    """Of every photo with every caption: (photos, captions)."""
    sentences = [words for _, words in found.pairs]
    with torch.inference_mode():
        parts = [model.sentences(sentences[i : i + batch]) for i in range(0, len(sentences), batch)]
        return (model.photos(found.features.float()) @ torch.cat(parts).T).clone()


class SimilarityTask:
    """What `carousel.training.fit` trains; the mean of both directions' R@10 on the validation photos chooses."""

    objective = "recall_10"

    def __init__(self, config: SimilarityConfig, train: Captioned, val: Captioned, file: Path) -> None:
        self.config, self.train, self.val, self.file = config, train, val, file
        self.pairs = train.pairs
        self.steps = max(1, len(self.pairs) // config.batch_size)  # the rest of an epoch's captions come in the next
        trigrams = Trigrams.build(word for _, words in self.pairs for word in words)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = DMSM(config, train.features.shape[1], trigrams)
        self.model.standardise_by(train.features)

    def summary(self) -> str:
        """What is trained on what, in a line."""
        weights = sum(p.numel() for p in self.model.parameters())
        return (
            f"{len(self.train.features)} photos and {len(self.pairs)} captions to train on, {len(self.val.features)} "
            f"photos to validate on; {len(self.model.trigrams)} letter trigrams; {weights / 1e6:.1f} million weights"
        )

    def digest(self) -> str:
        """Names the captions and features, so that a run is not resumed on others."""
        digest = hashlib.blake2b(repr((self.train.captions, self.val.captions)).encode(), digest_size=8)
        for part in (self.train, self.val):
            digest.update(part.features.double().sum(0).numpy().tobytes())
        return digest.hexdigest()

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters()), "lr": self.config.learning_rate}]

    def loss(self, epoch: int, step: int) -> Loss:
        config, size = self.config, self.config.batch_size
        chosen = epoch_order(len(self.pairs), config.seed, epoch)[step * size : (step + 1) * size]
        photo = torch.tensor([self.pairs[i][0] for i in chosen])
        cosines = self.model(self.train.features[photo].float(), [self.pairs[i][1] for i in chosen]).float()
        draw = generator(config.seed, "negatives", epoch, step)
        mean = similarity_loss(cosines, photo, config.gamma, config.negatives, draw)
        if config.both_ways:
            mean = (mean + similarity_loss(cosines.T, photo, config.gamma, config.negatives, draw)) / 2
        return Loss(mean, mean.item() * len(chosen), len(chosen))

    def validate(self) -> dict[str, float]:
        """Retrieval both ways among the validation photos and their captions."""
        photo = torch.tensor([photo for photo, _ in self.val.pairs])
        scores = retrieved(cosines(self.model, self.val), photo).as_scores()
        return {"recall_10": (scores["annotation_recall_10"] + scores["search_recall_10"]) / 2, **scores}

    def save(self, scores: Mapping[str, float]) -> None:
        save(self.file, self.model, {"validation": dict(scores), "carousel": __version__})


def similarity_parts(model: DMSM) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors in half precision and facts of which `similarity_from` makes the model again."""
    tensors = {name: tensor.half() for name, tensor in model.state_dict().items()}
    facts = {"config": model.config.model_dump(), "trigrams": model.trigrams.to_list()}
    return tensors, facts | {"features": len(model.feature_mean)}


def similarity_from(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> DMSM:
    """The model of its parts. Raises what torch does where they do not fit."""
    model = DMSM(SimilarityConfig(**facts["config"]), facts["features"], Trigrams(facts["trigrams"]))
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.eval()


def save(path: str | Path, model: DMSM, facts: Mapping[str, Any]) -> None:
    """Write the one file that `load` reads."""
    tensors, known = similarity_parts(model)
    write_model_file(path, tensors, {"task": TASK, **known, **facts})


def load(path: str | Path) -> DMSM:
    """Read a similarity model. Raises `ModelFileError`."""
    tensors, facts = read_model_file(path, TASK)
    with parts_fit(path):
        return similarity_from(tensors, facts)
