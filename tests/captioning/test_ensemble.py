"""Captioners of several seeds as one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from carousel.captioning import Captioner, Decoding, PhotoEncoder
from carousel.captioning.ensemble import ensemble
from carousel.cli import main
from carousel.data.vocabulary import PAD, START, UNKNOWN
from carousel.errors import ConfigError

from .test_captioner import captioner, photos


@pytest.fixture(scope="module")
def encoder() -> PhotoEncoder:
    return PhotoEncoder()


def test_probabilities_are_averaged(encoder: PhotoEncoder) -> None:
    several = [captioner(seed=seed, encoder=encoder) for seed in (0, 1)]
    joined = ensemble(several, ["a", "b"])
    assert len(joined.members) == 2 and joined.judge is None
    [best], *_ = joined.caption(photos(), Decoding(max_length=1))
    word, chance = best.words[0]
    alone = []
    for each in several:
        with torch.no_grad():
            step, state = each._begin(each.encoder(photos()))
            alone.append(step(torch.full((2,), START), state)[0][0].softmax(0))
    assert not torch.allclose(*alone, atol=1e-3)
    allowed = sum(alone)
    allowed[[PAD, START, UNKNOWN]] = 0
    [number] = joined.vocabulary.encode([word])
    assert chance == pytest.approx(float(allowed[number] / allowed.sum()), rel=1e-3)


@pytest.mark.parametrize(
    ("options", "what"), [({"hidden_size": 9}, "hidden_size"), ({"decoder": "adaptive"}, "decoder")]
)
def test_what_does_not_fit_is_told(encoder: PhotoEncoder, options: dict[str, object], what: str) -> None:
    other = captioner(encoder=encoder, **options)
    with pytest.raises(ConfigError, match=rf"^b: not for an ensemble with a \(got another {what}\)"):
        ensemble([captioner(encoder=encoder), other], ["a", "b"])


def test_each_encoder_tuned_for_itself_is_not_one() -> None:
    with pytest.raises(ConfigError, match="encoder, each tuned for itself"):
        ensemble([captioner(finetune_from=11), captioner(seed=1, finetune_from=11)], ["a", "b"])


def test_joined_as_typed(encoder: PhotoEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        captioner(seed=seed, encoder=encoder).save(tmp_path / f"{seed}")
    names, output = [str(tmp_path / f"{seed}") for seed in (0, 1)], str(tmp_path / "both")
    assert main(["ensemble", *names, "--output", output]) == 0
    assert capsys.readouterr().out.strip() == output and len(Captioner.load(output).members) == 2
    assert main(["ensemble", names[0], "--output", output]) == 2
    assert capsys.readouterr().err.startswith("ensemble: too few models (got 1)")
