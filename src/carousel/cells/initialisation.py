"""How the recurrent weights of a cell may start, besides at random."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from carousel.cells.cell import Cell

Module = TypeVar("Module", bound=nn.Module)


def orthogonal_(module: Module, gain: float = 1.0, *, generator: torch.Generator | None = None) -> Module:
    """Make every recurrent map U a random orthogonal matrix times `gain`; returns the module.

        Uᵀ U = gain² I

    Saxe, McClelland and Ganguli 2014, arXiv:1312.6120v3, section 3: with eigenvalues on the unit circle, repeated
    products neither vanish nor explode.

    Each map by itself, not the packed block of them; those that are not square are orthogonal along their shorter side.
    Recurrent vectors stay as they are.

    Args:
        module: a cell, or anything made of cells.

    >>> from carousel.cells import GRU
    >>> U = orthogonal_(GRU(3, 4)).update.U
    >>> torch.allclose(U.t() @ U, torch.eye(4), atol=1e-6)
    True
    """
    for weight in _recurrent_weights(module):
        if weight.dim() == 2:
            nn.init.orthogonal_(weight, gain, generator=generator)
    return module


def identity_(module: Module, scale: float = 1.0) -> Module:
    """Make every recurrent map U the identity times `scale`; returns the module.

        U = scale · I

    Le, Jaitly and Hinton 2015, arXiv:1504.00941v2, section 2: the units keep what they hold until something comes in.

    Args:
        module: a cell, or anything made of cells.

    >>> from carousel.cells import Elman
    >>> identity_(Elman(3, 2), scale=0.5).candidate.U.tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    with torch.no_grad():
        for weight in _recurrent_weights(module):
            weight.copy_(scale * torch.eye(*weight.shape) if weight.dim() == 2 else torch.full_like(weight, scale))
    return module


def _recurrent_weights(module: nn.Module) -> Iterator[Tensor]:
    for cell in module.modules():
        if isinstance(cell, Cell):
            yield from cell.recurrent_weights()
