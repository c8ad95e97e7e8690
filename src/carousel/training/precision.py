"""Products in bfloat16, where they pay on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, Literal

import torch
from torch import Tensor, nn

from carousel.nn import Recurrent
from carousel.training.carried import map_state

MixedPrecision = Literal["auto", "on", "off"]


def bfloat16_pays() -> bool:
    """Whether the processor multiplies bfloat16 natively; elsewhere it is emulated, and slower than float32."""
    features = torch.cpu.get_capabilities()
    return any(features.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def autocast(mode: MixedPrecision) -> AbstractContextManager[None]:
    """A context in which matrix products run in bfloat16, if `mode` says so; weights, sums and losses stay float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=mode == "on" or (mode == "auto" and bfloat16_pays()))


@contextmanager
def recurrences_compiled(model: nn.Module, mode: MixedPrecision) -> Iterator[None]:
    """While it lasts and `mode` is "auto", each `Recurrent` of the model keeps its compiled loop in `autocast`.

    Its products are of bfloat16 numbers as well; states, sums and outputs stay float32. Under autocast alone a
    recurrence runs step by step by PyTorch, see docs/training.md for what that costs. To last until the backward pass
    is over: `BPTT` may run a network again there.

    >>> network = Recurrent("gru", 3, 4)
    >>> with recurrences_compiled(network, "auto"), autocast("on"):
    ...     network(torch.randn(5, 2, 3).bfloat16())[0].dtype
    torch.float32
    """
    networks = [part for part in model.modules() if isinstance(part, Recurrent)] if mode == "auto" else []
    try:
        for network in networks:
            network.forward = _compiled(network.forward)  # type: ignore[method-assign]
        yield
    finally:
        for network in networks:
            del network.forward


@contextmanager
def narrow_products() -> Iterator[None]:
    """While it lasts compiled loops multiply bfloat16 numbers; backward passes do as their forward passes did."""
    backend: Any = torch.backends.mkldnn
    before = backend.rnn.fp32_precision
    backend.rnn.fp32_precision = "bf16"
    try:
        yield
    finally:
        backend.rnn.fp32_precision = before


def _compiled(forward: Callable[..., tuple[Tensor, Any]]) -> Callable[..., tuple[Tensor, Any]]:
    @wraps(forward)
    def run(inputs: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        if not torch.is_autocast_enabled("cpu"):
            return forward(inputs, state, lengths)
        with torch.autocast("cpu", enabled=False), narrow_products():
            return forward(inputs.float(), map_state(Tensor.float, state), lengths)

    return run
