"""Weights in less room: large matrices as eight-bit integers, all else in half precision."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

LARGE = 100_000  # numbers; in smaller ones there is little to gain
WIDE = 64  # columns, over which the scale of a row is worth its room
BYTES, SCALE = ".int8", ".scale"


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each row of a large matrix as s_i q_ij, q from -127 to 127; integers stay as they are.

    >>> weight = torch.linspace(-1, 1, 128_000).view(100, 1280)
    >>> found = packed({"weight": weight, "bias": torch.ones(2)})
    >>> [(name, tensor.dtype) for name, tensor in found.items()]
    [('weight.int8', torch.int8), ('weight.scale', torch.float16), ('bias', torch.float16)]
    >>> bool((unpacked(found)["weight"] - weight).abs().max() < 0.005)
    True
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dim() == 2 and tensor.numel() >= LARGE and tensor.shape[1] >= WIDE and tensor.is_floating_point():
            scale = (tensor.float().abs().amax(1) / 127).clamp(min=1e-7).half()
            whole = (tensor.float() / scale.float()[:, None]).round().clamp(-127, 127)
            found |= {name + BYTES: whole.to(torch.int8), name + SCALE: scale}
        else:
            found[name] = tensor.half() if tensor.is_floating_point() else tensor
    return found


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `packed` packed, in single precision."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(BYTES):
            stem = name.removesuffix(BYTES)
            found[stem] = tensor.float() * tensors[stem + SCALE].float()[:, None]
        elif name.removesuffix(SCALE) + BYTES not in tensors:
            found[name] = tensor.float() if tensor.is_floating_point() else tensor
    return found
