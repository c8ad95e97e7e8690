"""PyTorch's optimisers by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import optim

from carousel.training.names import nearest

OPTIMISERS: Mapping[str, type[optim.Optimizer]] = {
    "adadelta": optim.Adadelta,
    "adafactor": optim.Adafactor,
    "adagrad": optim.Adagrad,
    "adam": optim.Adam,
    "adamax": optim.Adamax,
    "adamw": optim.AdamW,
    "nadam": optim.NAdam,
    "radam": optim.RAdam,
    "rmsprop": optim.RMSprop,
    "rprop": optim.Rprop,
    "sgd": optim.SGD,
}


def optimiser_named(name: str, parameters: Any, **options: Any) -> optim.Optimizer:
    """The optimiser of that name over parameters or groups of them.

    Those that want more than a gradient (L-BFGS) or another kind of it (SparseAdam) are not among them.

    Raises:
        ConfigError: there is no such optimiser, or it has no such option; the message names the nearest.

    >>> from torch import nn
    >>> optimiser_named("sgd", nn.Linear(1, 1).parameters(), lr=0.1, momentum=0.9).defaults["momentum"]
    0.9
    >>> optimiser_named("sgt", nn.Linear(1, 1).parameters(), lr=0.1)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    carousel.errors.ConfigError: optimiser: unknown (got 'sgt'); adadelta, adafactor, ...; did you mean 'sgd'?
    """
    make = OPTIMISERS[nearest("optimiser", name, OPTIMISERS)]
    for option in options:
        nearest(f"option of {name}", option, [p for p in inspect.signature(make).parameters if p != "params"])
    return make(parameters, **options)
