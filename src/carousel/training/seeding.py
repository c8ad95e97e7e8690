"""Randomness that depends on nothing but (seed, epoch, step): what makes a resumed run equal an uninterrupted one."""

from __future__ import annotations

import hashlib

import torch


def derived_seed(*parts: int | str) -> int:
    """A seed of 63 bits from the parts; any other parts give an unrelated one.

    >>> derived_seed(0, "order", 1) == derived_seed(0, "order", 1), derived_seed(0, 1) == derived_seed(1, 0)
    (True, False)
    """
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A generator of its own for these parts."""
    return torch.Generator().manual_seed(derived_seed(*parts))


def epoch_order(length: int, seed: int, epoch: int) -> list[int]:
    """0..length-1 in the order of this epoch.

    >>> sorted(epoch_order(5, seed=0, epoch=3)), epoch_order(5, 0, 3) == epoch_order(5, 0, 3)
    ([0, 1, 2, 3, 4], True)
    """
    order: list[int] = torch.randperm(length, generator=generator(seed, "order", epoch)).tolist()
    return order
