"""Whether products in bfloat16 pay on this machine."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import torch

MixedPrecision = Literal["auto", "on", "off"]


def bfloat16_pays() -> bool:
    """Whether the processor multiplies bfloat16 natively; elsewhere it is emulated, and slower than float32."""
    features = torch.cpu.get_capabilities()
    return any(features.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def autocast(mode: MixedPrecision) -> AbstractContextManager[None]:
    """A context in which matrix products run in bfloat16, if `mode` says so; weights, sums and losses stay float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=mode == "on" or (mode == "auto" and bfloat16_pays()))
