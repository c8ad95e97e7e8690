"""The encoder divided at a block is the whole, and only what should learn learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from carousel.captioning import Looked, PhotoEncoder, pooled, rows
from carousel.vision.efficientnet import EfficientNetLite0

DIVIDED = [0, 5, 9, 11, 16]


def photos(n: int = 2) -> Tensor:
    return torch.randint(0, 256, (n, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def whole() -> Looked:
    network = EfficientNetLite0.pretrained()
    with torch.no_grad():
        early = network.stem_to(photos(), 11)
        late = network.forward_blocks(early, 11)
        means = torch.cat([early.mean((2, 3)), late.mean((2, 3)), network.head(late).mean((2, 3))], 1)
        places = [(row, column) for row in range(7) for column in range(7)]
        grid = torch.stack([late[:, :, row, column] for row, column in places], 1)
        of_four = [early[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] for row, column in places]
        return Looked(means, grid, torch.stack([four.mean((2, 3)) for four in of_four], 1))


@pytest.mark.parametrize("block", DIVIDED)
def test_the_parts_are_the_whole(whole: Looked, block: int) -> None:
    encoder = PhotoEncoder(block)
    lower = encoder.lower(photos())
    assert not any(tensor.requires_grad for tensor in lower)
    seen = encoder.upper(lower)
    assert isinstance(seen, Looked) and seen.pooled.shape == (2, encoder.features)
    for name, found, expected in zip(Looked._fields, seen, whole, strict=True):
        assert found.requires_grad == (block < (11 if name == "early" else 16))
        torch.testing.assert_close(found.detach(), expected, atol=1e-5, rtol=1e-5)


def test_a_frozen_encoder_hands_on_what_was_kept(whole: Looked) -> None:
    encoder = PhotoEncoder()
    assert pooled(encoder.upper(whole.pooled)) is whole.pooled
    assert torch.equal(pooled(encoder.upper(rows(whole, [1]))), whole.pooled[1:])


@pytest.mark.parametrize("block", [5, 11, 16])
def test_only_what_should_learn_learns(block: int) -> None:
    encoder = PhotoEncoder(block).train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    features = pooled(encoder(photos()))
    trained = [p for p in encoder.parameters() if p.requires_grad]
    if block == 16:
        assert not trained and not encoder.trained_state()
        return
    features.square().mean().backward()
    torch.optim.SGD(trained, lr=1.0).step()
    changed = {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[name])}
    expected = {
        f"network.{name}"
        for name, _ in encoder.network.named_parameters()
        if "depthwise.convolution" not in name
        and (name.startswith("head.") or (name.startswith("blocks.") and int(name.split(".")[1]) >= block))
    }
    assert changed == expected  # no running mean or variance, no depthwise filter, nothing below
    assert {f"network.{name}" for name in encoder.trained_state()} == expected


def changed_encoder() -> PhotoEncoder:
    encoder = PhotoEncoder(9)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.mul_(1 + 0.1 * torch.randn(parameter.shape, generator=draw))
    return encoder


def test_what_was_trained_can_be_put_back() -> None:
    encoder, other = changed_encoder(), PhotoEncoder(9)
    state = encoder.trained_state()
    other.load_trained_state(state)
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), other.parameters(), strict=True))
    with pytest.raises(KeyError):
        PhotoEncoder(11).load_trained_state(state)  # its lower part would have changed


def test_folded_is_the_same() -> None:
    encoder = changed_encoder()
    with torch.no_grad():
        torch.testing.assert_close(tuple(encoder.folded()(photos())), tuple(encoder(photos())), atol=1e-4, rtol=1e-4)


def test_every_place_adds_up_to_the_photo() -> None:
    encoder = changed_encoder().folded()
    with torch.no_grad():
        seen = encoder(photos())
        places = encoder.every_place(seen)
    assert places.shape == (2, 49, seen.pooled.shape[1])
    torch.testing.assert_close(places.mean(1), seen.pooled, atol=1e-5, rtol=1e-5)
    assert (places.std(1) > 0.01).any()


def test_the_cache_tells_divisions_apart_and_does_not_care_what_was_trained() -> None:
    assert len({PhotoEncoder(block).fingerprint for block in DIVIDED}) == len(DIVIDED)
    assert changed_encoder().fingerprint == PhotoEncoder(9).fingerprint
