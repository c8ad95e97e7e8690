"""The functions φ that a cell may be asked for by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.errors import ConfigError

Activation = Callable[[Tensor], Tensor]


def identity(a: Tensor) -> Tensor:
    """The value itself: a unit that is linear."""
    return a


ACTIVATIONS: dict[str, Activation] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": identity,
    "elu": F.elu,
    "hardtanh": F.hardtanh,
    "leaky-relu": F.leaky_relu,
    "silu": F.silu,
    "softplus": F.softplus,
    "softsign": F.softsign,
}


def activation_function(activation: str | Activation, option: str = "activation") -> Activation:
    """The function of that name, or the given function; `option` is what a message calls it.

    Raises:
        ConfigError: no function has that name.

    >>> activation_function("relu")(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    if not isinstance(activation, str):
        return activation
    if activation not in ACTIVATIONS:
        raise ConfigError(
            f"{option}: unknown (got {activation!r}); {', '.join(ACTIVATIONS)}; name one or give a function"
        )
    return ACTIVATIONS[activation]
