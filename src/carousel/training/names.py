"""Things that are chosen by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from carousel.errors import ConfigError


def nearest(what: str, name: str, allowed: Iterable[str]) -> str:
    """The name, if it is allowed; else a `ConfigError` that says which are, and the nearest.

    >>> nearest("optimiser", "adm", ["adam", "sgd"])
    Traceback (most recent call last):
    carousel.errors.ConfigError: optimiser: unknown (got 'adm'); adam, sgd; did you mean 'adam'?
    """
    names = list(allowed)
    if name not in names:
        [near] = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        raise ConfigError(f"{what}: unknown (got {name!r}); {', '.join(names)}; did you mean {near!r}?")
    return name
