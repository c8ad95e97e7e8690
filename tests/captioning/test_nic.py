"""Show and Tell in all its forms: teacher forcing is stepping, nothing leaks, everything learns."""

from __future__ import annotations

import itertools
import math
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from carousel.captioning import NIC, CaptioningConfig, teacher_forced
from carousel.captioning.config import ImageAt
from carousel.data.vocabulary import PAD, START, STOP, UNKNOWN

FEATURES, V = 5, 9
CAPTIONS = [[4, 5, 6, 7], [8], [], [5, 5, UNKNOWN]]
PLACES = get_args(ImageAt)
every_place = pytest.mark.parametrize("image_at", PLACES)


def nic(image_at: str = "pre", **options: Any) -> NIC:
    torch.manual_seed(0)
    defaults = {"hidden_size": 6, "embedding_size": 4, "dropout": 0.0, "feature_dropout": 0.0, "label_smoothing": 0.0}
    model = NIC(CaptioningConfig(image_at=image_at, **{**defaults, **options}), FEATURES, V).double()
    model.standardise_by(3 + 2 * torch.randn(20, FEATURES, dtype=torch.float64))
    return model


def photos(n: int = len(CAPTIONS), seed: int = 1) -> Tensor:
    return 3 + 2 * torch.randn(n, FEATURES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


FORMS = [
    {"image_at": at, "cell": cell, "tied": tied, "layers": layers}
    for at, cell, tied, layers in itertools.product(PLACES, ("elman", "lstm", "gru"), (False, True), (1, 2))
] + [
    {"predict_start": True, "layers": 2},
    {"tied": True, "hidden_size": 4},  # nothing to narrow
]


def named(form: dict[str, Any]) -> str:
    return "-".join(f"{name}={value}" for name, value in form.items())


@pytest.mark.parametrize("form", FORMS, ids=named)
def test_teacher_forcing_is_stepping(form: dict[str, Any]) -> None:
    model, v = nic(**form), photos()
    words, lengths, _ = teacher_forced(CAPTIONS, 18)
    logits = model(v, words, lengths)
    scored_start = int(model.config.predict_start)
    assert len(logits) == int(lengths.sum()) + scored_start * len(CAPTIONS)
    at = 0
    for row, caption in enumerate(CAPTIONS):
        state = model.start(v[row : row + 1])
        at += scored_start
        for word in (START, *caption):
            ahead, state = model.step(torch.tensor([word]), state)
            torch.testing.assert_close(ahead[0], logits[at], atol=1e-12, rtol=1e-12)
            at += 1
    assert at == len(logits)


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_the_photo_is_the_first_layers_output_before_the_words(cell: str) -> None:
    model, v = nic("init", cell=cell, layers=2), photos()
    first, second = model.start(v).recurrent
    standardised = ((v - model.feature_mean) / model.feature_scale).clamp(-5, 5) / math.sqrt(v.shape[1])
    torch.testing.assert_close(first.h, torch.tanh(model.image(standardised)))
    assert not any(field.any() for field in (*first[1:], *second))


def test_the_image_step_predicts_the_start() -> None:
    model, v = nic(predict_start=True), photos()
    words, lengths, targets = teacher_forced(CAPTIONS, 18, predict_start=True)
    logits = model(v, words, lengths)
    places = [0, 6, 9, 11]  # where each row begins
    assert [i for i, target in enumerate(targets.tolist()) if target == START] == places
    hidden, _ = model.decoder.step(model.embed_image(v))
    torch.testing.assert_close(logits[places], model.output(hidden))


@pytest.mark.parametrize("image_at", ["init", "par", "merge"])
def test_only_an_image_step_can_predict_the_start(image_at: str) -> None:
    with pytest.raises(ValidationError, match="only with image_at = pre"):
        CaptioningConfig(image_at=image_at, predict_start=True)


@every_place
def test_a_caption_does_not_feel_the_others(image_at: str) -> None:
    model, v = nic(image_at, layers=2), photos()
    words, lengths, _ = teacher_forced(CAPTIONS, 18)
    together = model(v, words, lengths).split(lengths.tolist())
    for row, caption in enumerate(CAPTIONS):
        alone = model(v[row : row + 1], *teacher_forced([caption], 18)[:2])
        torch.testing.assert_close(together[row], alone, atol=1e-12, rtol=1e-12)
    words[words == PAD] = 7
    torch.testing.assert_close(torch.cat(together), model(v, words, lengths), atol=0, rtol=0)
    v[0] = float("nan")
    assert torch.equal(torch.cat(together[1:]), model(v, words, lengths)[int(lengths[0]) :])


@every_place
def test_the_photo_matters_at_every_word(image_at: str) -> None:
    model = nic(image_at)
    words, lengths, _ = teacher_forced(CAPTIONS, 18)
    one, other = model(photos(seed=1), words, lengths), model(photos(seed=2), words, lengths)
    assert ((one - other).abs().amax(1) > 1e-6).all()


@every_place
def test_features_are_standardised(image_at: str) -> None:
    model, v = nic(image_at), photos()
    mean, deviation = torch.randn(FEATURES).double(), torch.rand(FEATURES).double() + 0.5
    words, lengths, _ = teacher_forced(CAPTIONS, 18)
    before = model(v, words, lengths)
    model.feature_mean.copy_(model.feature_mean * deviation + mean)
    model.feature_scale.copy_(model.feature_scale * deviation)
    torch.testing.assert_close(model(v * deviation + mean, words, lengths), before)


def test_one_photo_can_be_standardised() -> None:
    model = nic()
    model.standardise_by(photos(1))
    assert model.embed_image(photos(1)).isfinite().all()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("predict_start", [False, True])
@every_place
def test_every_parameter_learns(image_at: str, tied: bool, predict_start: bool) -> None:
    if predict_start and image_at != "pre":
        return
    model = nic(image_at, tied=tied, layers=2, predict_start=predict_start)
    words, lengths, targets = teacher_forced([[4, 5, 6, 7, 8], [UNKNOWN, 4]], 18, predict_start)
    F.cross_entropy(model(photos(2), words, lengths), targets).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
    assert model.embedding.weight.grad is not None
    if not tied:
        assert not model.embedding.weight.grad[PAD].any()


@every_place
def test_gradients_are_the_derivatives(image_at: str) -> None:
    model = nic(image_at, hidden_size=3, embedding_size=2)
    words, lengths, targets = teacher_forced([[4, 5], [6]], 18)
    names, parameters = zip(*model.named_parameters(), strict=True)

    def loss(features: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        return F.cross_entropy(torch.func.functional_call(model, given, (features, words, lengths)), targets)

    inputs = [photos(2).requires_grad_(), *(p.detach().clone().requires_grad_() for p in parameters)]
    assert torch.autograd.gradcheck(loss, inputs)


@every_place
def test_ragged_batches_of_any_shape_train_alike_by_either_engine(image_at: str) -> None:
    """One after the other: what was compiled for the first batch serves them all."""
    model = nic(image_at).float()
    for captions in (CAPTIONS, [[8, 8, 4, 5, 6, 7], [4], [5, 5]], [[4, 5, 6], []], [[7]]):
        words, lengths, targets = teacher_forced(captions, 18)
        found = []
        for engine in ("compiled", "eager"):
            model.decoder.engine = engine
            loss = F.cross_entropy(model(photos(len(captions)).float(), words, lengths), targets)
            found.append((loss, *torch.autograd.grad(loss, list(model.parameters()))))
        for got, want in zip(*found, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tied", [False, True])
def test_tied_weights_are_one(tied: bool) -> None:
    model = nic(tied=tied)
    assert (model.output.weight is model.embedding.weight) == tied


def test_dropout_and_word_dropout_are_for_training_alone() -> None:
    model = nic(dropout=0.3, feature_dropout=0.3, word_dropout=0.5)
    words, lengths, _ = teacher_forced(CAPTIONS, 18)
    assert not torch.equal(model(photos(), words, lengths), model(photos(), words, lengths))
    model.eval()
    assert torch.equal(model(photos(), words, lengths), model(photos(), words, lengths))


def test_word_dropout_spares_the_specials() -> None:
    model = nic(word_dropout=0.4)
    words = torch.arange(V).repeat(2000, 1)
    seen = model._blank(words)
    assert torch.equal(seen[:, : UNKNOWN + 1], words[:, : UNKNOWN + 1])
    blanked = seen[:, UNKNOWN + 1 :] != words[:, UNKNOWN + 1 :]
    assert (seen[:, UNKNOWN + 1 :][blanked] == UNKNOWN).all()
    assert abs(float(blanked.float().mean()) - 0.4) < 0.02


@pytest.mark.parametrize("predict_start", [False, True])
def test_targets_follow_inputs(predict_start: bool) -> None:
    words, lengths, targets = teacher_forced([[4, 5, 6], [7], []], 2, predict_start)
    first = [START] if predict_start else []
    assert words.t().tolist() == [[START, 4, 5], [START, 7, PAD], [START, PAD, PAD]]
    assert lengths.tolist() == [3, 2, 1]
    assert targets.tolist() == [*first, 4, 5, 6, *first, 7, STOP, *first, STOP]


# --- scheduled sampling -----------------------------------------------------------------------------------------------


def test_a_share_of_nothing_changes_nothing() -> None:
    words, _, _ = teacher_forced(CAPTIONS, 18)
    assert torch.equal(nic().sampled_inputs(photos(), words, 0.0), words)


@every_place
def test_a_share_of_everything_is_all_the_models_own(image_at: str) -> None:
    model = nic(image_at)
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.bias.copy_(torch.tensor([9.0, 9, 9, 9, -99, -99, -99, -99, 3]))  # of the words it says only 8
    words, _, _ = teacher_forced(CAPTIONS, 18)
    mixed = model.sampled_inputs(photos(), words, 1.0)
    expected = torch.where(words > START, 8, words)
    assert torch.equal(mixed, expected) and not mixed.requires_grad


def test_half_is_about_half_and_repeatable() -> None:
    model = nic()
    words = torch.full((21, 200), 4)
    words[0] = START
    with torch.no_grad():
        model.output.bias[4] = -99.0
    draws = [model.sampled_inputs(photos(200), words, 0.5, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)
    assert abs(float((draws[0][1:] == 4).double().mean()) - 0.5) < 0.03


def test_what_was_drawn_is_what_the_next_draw_depends_on() -> None:
    """The model says 4, 5, 6, 7 in turn, so that a draw that followed the gold words would say something else."""
    model = nic(cell="elman", hidden_size=V, embedding_size=V)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embedding.weight.copy_(torch.eye(V))
        model.decoder.cells[0].packed.weight_input.copy_(5 * torch.eye(V))  # type: ignore[union-attr]
        for before, after in ((START, 4), (4, 5), (5, 6), (6, 7), (8, 8)):
            model.output.weight[after, before] = 200.0
    words = torch.tensor([[START], [8], [8], [8], [8]])
    assert model.sampled_inputs(photos(1), words, 1.0)[:, 0].tolist() == [START, 4, 5, 6, 7]
