"""Photos to features: the image encoder divided at a block, frozen and cached below it, trained above it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn

from carousel.vision.efficientnet import HEAD_CHANNELS, STAGES, EfficientNetLite0
from carousel.vision.feature_cache import encoder_fingerprint

ALL_FROZEN = 16  # the number of blocks
EARLY = 11  # the block whose input is the first part of the features


class PhotoEncoder(nn.Module):
    """EfficientNet-Lite0 as ``upper(lower(photos))``: (N, 3, 224, 224) 8-bit RGB -> features (N, 1712).

    The features are the means over the photo of three depths: the input of block 11 (112 channels), where colours and
    textures are still plain, the input of the head (320), and its output (1280).

    `lower` never changes, so that its result can be kept on disk. `upper` has the blocks from `finetune_from` on and
    the head, which are trained but for two things: batch normalisation keeps ImageNet's statistics (its scale and shift
    are trained), and the depthwise filters stay, because on a CPU their gradient costs more than all else together.
    With `finetune_from` 16 nothing is trained, `lower` does it all and `upper` only hands on.

    >>> encoder = PhotoEncoder(finetune_from=9)
    >>> lower = encoder.lower(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))
    >>> lower.shape, encoder.upper(lower).shape
    (torch.Size([1, 112, 14, 14]), torch.Size([1, 1712]))
    """

    features = STAGES[4].channels + STAGES[-1].channels + HEAD_CHANNELS

    def __init__(self, finetune_from: int = ALL_FROZEN) -> None:
        super().__init__()
        self.finetune_from = finetune_from
        self.network = EfficientNetLite0.pretrained()
        self.network.requires_grad_(False)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad = self._is_trained(name)

    def _is_trained(self, name: str) -> bool:
        part, _, rest = name.partition(".")
        if self.finetune_from == ALL_FROZEN or "depthwise.convolution" in name:
            return False
        return part == "head" or (part == "blocks" and int(rest.partition(".")[0]) >= self.finetune_from)

    @cached_property
    def fingerprint(self) -> str:
        """Names what `lower` computes, for the cache."""
        frozen = nn.ModuleList([self.network.stem, *self.network.blocks[: self.finetune_from]])
        if self.finetune_from == ALL_FROZEN:
            frozen.append(self.network.head)
        return encoder_fingerprint(frozen, f"lower {self.finetune_from}, features {self.features}")

    def lower(self, photos: Tensor) -> Tensor:
        """What is kept on disk: the input of the first trained block, or the features where none is."""
        with torch.no_grad():
            if self.finetune_from == ALL_FROZEN:
                return _features(self.network, self.network.stem_to(photos, 0), 0)
            return self.network.stem_to(photos, self.finetune_from)

    def upper(self, lower: Tensor) -> Tensor:
        """Features (N, F) from what `lower` gave."""
        if self.finetune_from == ALL_FROZEN:
            return lower
        return _features(self.network, lower, self.finetune_from)

    def forward(self, photos: Tensor) -> Tensor:
        return self.upper(self.lower(photos))

    def train(self, mode: bool = True) -> Self:
        """Batch normalisation keeps its statistics in training too."""
        return super().train(False)

    def trained_state(self) -> dict[str, Tensor]:
        """The parameters that may differ from ImageNet's."""
        return {name: p.detach() for name, p in self.network.named_parameters() if p.requires_grad}

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Put them back, or some of them. Raises `KeyError` for one that is not trained here."""
        trained = self.trained_state()
        for name, tensor in state.items():
            trained[name].copy_(tensor)

    def folded(self) -> FoldedEncoder:
        """The same for inference, some 1.3 times as fast."""
        return FoldedEncoder(self.network.folded())


class FoldedEncoder(nn.Module):
    """8-bit RGB (N, 3, 224, 224) -> features (N, F), with batch normalisation folded into the convolutions."""

    def __init__(self, network: EfficientNetLite0) -> None:
        super().__init__()
        self.network = network

    def forward(self, photos: Tensor) -> Tensor:
        return _features(self.network, self.network.stem_to(photos, 0), 0)


def _features(network: EfficientNetLite0, x: Tensor, block: int) -> Tensor:
    """The input of `block` -> features (N, 1712)."""
    middle = network.forward_blocks(x, block, EARLY)
    last = network.forward_blocks(middle, EARLY)
    return torch.cat([maps.mean((2, 3)) for maps in (middle, last, network.head(last))], 1)
