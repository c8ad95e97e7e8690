"""Photos to features: the image encoder divided at a block, frozen and cached below it, trained above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from carousel.vision.efficientnet import HEAD_CHANNELS, STAGES, EfficientNetLite0
from carousel.vision.feature_cache import encoder_fingerprint

ALL_FROZEN = 16  # the number of blocks
EARLY = 11  # the block whose input is the first part of the features
PLACE_FEATURES = STAGES[-1].channels + STAGES[4].channels  # of a place: 320 of the grid and 112 earlier ones


class Looked(NamedTuple):
    """What the encoder sees in photos: as one vector of features, and place by place, row by row of a 7 x 7 grid."""

    pooled: Tensor  # (N, 1712), the means over the photo of three depths
    grid: Tensor  # (N, 49, 320), the input of the head, which `PhotoEncoder.network.head` makes 1280 of
    early: Tensor  # (N, 49, 112), the input of block 11, each place the mean of four


Seen = Tensor | Looked  # pooled features alone, or with the grid
Kept = Tensor | Looked  # what `PhotoEncoder.lower` gives


def rows(kept: Kept, which: Sequence[int] | slice | Tensor) -> Kept:
    """Some photos' rows, in single precision.

    >>> rows(Looked(torch.zeros(9, 1712), torch.zeros(9, 49, 320), torch.zeros(9, 49, 112)), [3, 3]).grid.shape
    torch.Size([2, 49, 320])
    """
    if isinstance(kept, Looked):
        return Looked(*(field[which].float() for field in kept))
    return kept[which].float()


def joined(parts: Sequence[Kept]) -> Kept:
    """All rows of all parts."""
    if isinstance(parts[0], Looked):
        return Looked(*(torch.cat(fields) for fields in zip(*parts, strict=True)))
    return torch.cat(cast("list[Tensor]", parts))


def where(chosen: Tensor, these: Kept, those: Kept) -> Kept:
    """The rows of `these` where `chosen` (N,) is true, and else of `those`."""

    def pick(this: Tensor, that: Tensor) -> Tensor:
        return torch.where(chosen.view(-1, *[1] * (this.dim() - 1)), this, that)

    if isinstance(these, Looked) and isinstance(those, Looked):
        return Looked(*map(pick, these, those))
    return pick(cast(Tensor, these), cast(Tensor, those))


def pooled(seen: Seen) -> Tensor:
    """The features (N, 1712) of photos."""
    return seen.pooled if isinstance(seen, Looked) else seen


class PhotoEncoder(nn.Module):
    """EfficientNet-Lite0 as ``upper(lower(photos))``: (N, 3, 224, 224) 8-bit RGB -> what it sees, `Looked`.

    The pooled features are the means over the photo of three depths: the input of block 11 (112 channels), where
    colours and textures are still plain, the input of the head (320), and its output (1280).

    `lower` never changes, so that its result can be kept on disk. `upper` has the blocks from `finetune_from` on and
    the head, which are trained but for two things: batch normalisation keeps ImageNet's statistics (its scale and shift
    are trained), and the depthwise filters stay, because on a CPU their gradient costs more than all else together.
    With `finetune_from` 16 nothing is trained, `lower` does it all and `upper` only hands on.

    >>> encoder = PhotoEncoder(finetune_from=9)
    >>> lower = encoder.lower(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))
    >>> lower.shape, encoder.upper(lower).pooled.shape
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

    def lower(self, photos: Tensor) -> Kept:
        """What is kept on disk: the input of the first trained block, or all that is seen where none is."""
        with torch.no_grad():
            if self.finetune_from == ALL_FROZEN:
                return _looked(self.network, self.network.stem_to(photos, 0), 0)
            return self.network.stem_to(photos, self.finetune_from)

    def upper(self, lower: Kept) -> Seen:
        """What is seen, from what `lower` gave, or from what was kept of it."""
        if isinstance(lower, Looked) or self.finetune_from == ALL_FROZEN:
            return lower
        return _looked(self.network, lower.contiguous(memory_format=torch.channels_last), self.finetune_from)

    def forward(self, photos: Tensor) -> Seen:
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
    """8-bit RGB (N, 3, 224, 224) -> what is seen, with batch normalisation folded into the convolutions."""

    def __init__(self, network: EfficientNetLite0) -> None:
        super().__init__()
        self.network = network

    def forward(self, photos: Tensor) -> Looked:
        return _looked(self.network, self.network.stem_to(photos, 0), 0)

    def every_place(self, seen: Looked) -> Tensor:
        """The features (N, 49, 1712) of each place, whose means are the pooled ones."""
        last = seen.grid.transpose(1, 2).reshape(len(seen.grid), -1, 7, 7)
        return torch.cat([seen.early, seen.grid, _places(self.network.head(last))], 2)


def _looked(network: EfficientNetLite0, x: Tensor, block: int) -> Looked:
    """What is seen, from the input of `block`."""
    middle = network.forward_blocks(x, block, EARLY)
    last = network.forward_blocks(middle, EARLY)
    means = torch.cat([maps.mean((2, 3)) for maps in (middle, last, network.head(last))], 1)
    return Looked(means, _places(last), _places(functional.avg_pool2d(middle, 2)))


def _places(maps: Tensor) -> Tensor:
    """(N, C, 7, 7) -> (N, 49, C)."""
    return maps.flatten(2).transpose(1, 2)
