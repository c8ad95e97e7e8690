"""The detector of words: how places are joined, how it learns, thresholds, heat maps, and its score."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from carousel.captioning.concepts import (
    GRID,
    PLACES,
    POOLED,
    Concepts,
    LogChances,
    Pooling,
    commonest_words,
    detection_loss,
    mentions,
    most_likely_place,
    noisy_or,
    thresholds,
)
from carousel.captioning.packing import packed, unpacked
from carousel.captioning.photo_encoder import Looked
from carousel.metrics.average_precision import average_precision, caption_weights


def test_noisy_or_is_the_formula() -> None:
    logits = 3 * torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = noisy_or(logits)
    p = 1 - (1 - logits.sigmoid()).prod(1)
    assert torch.allclose(found.there.exp(), p) and torch.allclose(found.absent.exp(), 1 - p)


@pytest.mark.parametrize("join", [noisy_or, most_likely_place])
def test_its_gradient_is_that_of_finite_differences(join: object) -> None:
    logits = 3 * torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([[1.0, 0.0, 0.4], [0.0, 1.0, 1.0]], dtype=torch.float64)

    def loss(logits: Tensor) -> Tensor:
        return detection_loss(join(logits), labels)  # type: ignore[operator]

    assert torch.autograd.gradcheck(loss, logits.requires_grad_())


@pytest.mark.parametrize("logit", [-200.0, -60.0, -20.0, 0.0, 20.0, 200.0])
def test_no_chance_is_too_small_or_too_large(logit: float) -> None:
    logits = torch.full((1, PLACES, 1), logit, requires_grad=True)
    found = noisy_or(logits)
    detection_loss(found, torch.tensor([[0.5]])).backward()
    assert torch.isfinite(found.there).all() and torch.isfinite(found.absent).all()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    if logit == -60.0:  # log p = log(J σ(z)), which 1 - Π (1 - p) would round to log 0
        assert found.there.item() == pytest.approx(np.log(PLACES) - 60, rel=1e-5)


def seen(n: int, generator: torch.Generator) -> Looked:
    grid = torch.randn(n, PLACES, GRID, generator=generator)
    return Looked(torch.randn(n, POOLED, generator=generator), grid, torch.zeros(n, PLACES, 1))


@pytest.mark.parametrize("pooling", ["noisy-or", "max", "pooled"])
def test_it_begins_with_the_base_rate(pooling: Pooling) -> None:
    draw = torch.Generator().manual_seed(0)
    photos, labels = seen(40, draw), (torch.rand(40, 3, generator=draw) < torch.tensor([0.9, 0.3, 0.05])).float()
    detector = Concepts(["a", "dog", "cat"], pooling, dropout=0.0)
    detector.begin(photos, labels)
    for layer in (detector.whole, detector.local):
        if layer is not None:
            torch.nn.init.zeros_(layer.weight)
    chances = detector(photos).there.exp()
    assert torch.allclose(chances, labels.mean(0).clamp(1e-4, 1 - 1e-4).expand(40, -1), atol=1e-5)


def test_it_finds_a_word_and_its_place() -> None:
    """A word is there where one place of the grid shows it; captions only say that it is there."""
    draw = torch.Generator().manual_seed(0)
    photos, labels = seen(200, draw), (torch.arange(200) % 2).float()[:, None]
    where = torch.randint(PLACES, (200,), generator=draw)
    photos.grid[torch.arange(200)[labels[:, 0] == 1], where[labels[:, 0] == 1], :40] += 3.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        detector = Concepts(["dog"], "noisy-or", context=False, dropout=0.0)
        detector.begin(photos, labels)
        optimiser = torch.optim.Adam(detector.parameters(), lr=0.01)
        for _ in range(60):
            optimiser.zero_grad()
            detection_loss(detector(photos), labels).backward()
            optimiser.step()
    chances = detector(photos).there.exp()[:, 0]
    assert ((chances > 0.5) == (labels[:, 0] == 1)).float().mean() > 0.97
    maps = detector.heat_maps(photos, ["dog"]).flatten(1)
    shown = labels[:, 0] == 1
    assert (maps.argmax(1) == where)[shown].float().mean() > 0.9
    assert detector.heat_maps(photos, ["dog"]).shape == (200, 1, 7, 7)


def test_of_a_photo_as_a_whole_each_place_tells_its_share() -> None:
    draw = torch.Generator().manual_seed(0)
    every_place = torch.randn(3, PLACES, POOLED, generator=draw)
    photos = seen(3, draw)._replace(pooled=every_place.mean(1))
    detector = Concepts(["a", "dog"], "pooled").eval()
    torch.nn.init.normal_(detector.whole.weight, std=0.01)
    maps = detector.heat_maps(photos, ["dog"], every_place)
    assert maps.shape == (3, 1, 7, 7)
    torch.testing.assert_close(maps.logit().mean((2, 3))[:, 0], detector.places(photos)[:, 0, 1])
    assert maps[1, 0, 2, 5] == detector.places(photos._replace(pooled=every_place[:, 19]))[1, 0, 1].sigmoid()
    assert detector.heat_maps(photos, ["dog"]).std((2, 3)).max() == 0  # without, the same everywhere


def test_words_and_who_says_them() -> None:
    captions = [[["a", "dog", "a"], ["the", "dog"]], [["a", "cat"]]]
    assert commonest_words(captions, 3) == ["a", "dog", "cat"]
    assert mentions(captions, ["a", "dog", "bird"]).tolist() == [[1.0, 2.0, 0.0], [1.0, 0.0, 0.0]]


# --- thresholds -------------------------------------------------------------------------------------------------------


def test_thresholds_keep_the_precision() -> None:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(500, 4, generator=draw)
    right = (torch.rand(500, 4, generator=draw) < scores.sigmoid() * torch.tensor([1.0, 0.9, 0.7, 0.02])).float()
    for precision in (0.3, 0.6, 0.8):
        found = thresholds(scores, right, precision, prior=0.0)
        for c in range(4):
            enough = [t for t in scores[:, c].tolist() if right[scores[:, c] >= t, c].mean() >= precision]
            assert found[c].item() == pytest.approx(min(enough, default=float("inf")))
    assert torch.isinf(thresholds(scores, right, 0.8, prior=0.0)[3])
    assert thresholds(scores, right, 0.0, prior=0.0).tolist() == scores.amin(0).tolist()


def test_one_lucky_photo_is_not_enough() -> None:
    scores = torch.tensor([[3.0]] + [[-1.0]] * 99)
    right = torch.tensor([[1.0]] + [[0.0]] * 99)
    assert thresholds(scores, right, 0.6, prior=0.0).item() == 3.0
    assert torch.isinf(thresholds(scores, right, 0.6, prior=2.0)).all()


# --- the score --------------------------------------------------------------------------------------------------------


def test_average_precision_by_hand() -> None:
    scores = np.array([[0.1, 1.0], [0.9, 2.0], [0.5, 3.0], [0.3, 4.0]])
    right = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    found = average_precision(scores, right)
    assert found[0] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3) and np.isnan(found[1])


def test_average_precision_by_captions() -> None:
    right, wrong = caption_weights(np.array([[5.0], [1.0], [0.0]]), 5)
    found = average_precision(np.array([[1.0], [3.0], [2.0]]), right, wrong)
    assert found[0] == pytest.approx((0.8 * (0.8 / 1.0) + 4 * (4.8 / 6.0)) / 4.8)


def test_chances_of_a_detector_add_up() -> None:
    draw = torch.Generator().manual_seed(0)
    found: LogChances = Concepts(["a", "b"]).eval()(seen(3, draw))
    assert torch.allclose(found.there.exp() + found.absent.exp(), torch.ones(3, 2))


def test_packed_weights_come_back() -> None:
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(200, 600, generator=draw) * torch.logspace(-3, 1, 200)[:, None]
    weight[7] = 0.0
    tensors = {"w": weight, "narrow": torch.randn(60_000, 2, generator=draw), "n": torch.arange(3)}
    found = unpacked(packed(tensors))
    assert found.keys() == tensors.keys() and torch.equal(found["n"], tensors["n"])
    assert ((found["w"] - weight).abs() <= weight.abs().amax(1, keepdim=True) / 127).all()
    again, once = packed(found), packed(tensors)
    assert once["w.int8"].dtype == torch.int8 and "narrow" in once
    assert all(torch.equal(again[name], once[name]) for name in once)  # packed again it is the same
