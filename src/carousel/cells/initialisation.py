"""How the recurrent weights of a cell may start, besides at random."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from carousel.cells.cell import Affine, Cell
from carousel.cells.lstm_variants import CoupledLSTM
from carousel.errors import ConfigError

Module = TypeVar("Module", bound=nn.Module)
CellType = TypeVar("CellType", bound=Cell)


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


def chrono_(cell: CellType, longest: int, *, generator: torch.Generator | None = None) -> CellType:
    """Let the gates of a new LSTM remember for as long as the sequences last; returns the cell.

        b_f ~ log U[1, T_max − 1]
        b_i = −b_f

    Tallec and Ollivier 2018, arXiv:1804.11188v1, eq. 16: a gate of σ(b_f) = 1 − 1/T forgets in about T steps.

    Args:
        cell: one with a forget gate. Without an input gate b_f is all there is to set, and b_i where both are coupled.
        longest: T_max, the longest range of what is to be remembered, in steps; 2 or more.

    Raises:
        ConfigError: the cell has no such gate, or no biases.

    >>> from carousel.cells import LSTM
    >>> cell = chrono_(LSTM(3, 4), longest=100)
    >>> bool((cell.forget.b >= 0).all()), bool((cell.forget.b.exp() <= 99).all())
    (True, True)
    >>> torch.equal(cell.input.b, -cell.forget.b)
    True
    """
    if longest < 2:
        raise ConfigError(f"longest: too short to remember (got {longest}); 2 or more; the steps of a sequence")
    signs = {"forget": 1.0, "input": -1.0}
    gates = {name: gate.b for name in signs if isinstance(gate := getattr(cell, name, None), Affine)}
    known = "forget" in gates or isinstance(cell, CoupledLSTM)
    if not known or None in gates.values() or getattr(cell, "forget_activation", "sigmoid") != "sigmoid":
        raise ConfigError(
            f"chrono_: no forget gate σ(W x + U h + b_f) (got {type(cell).__name__}); "
            "an LSTM with a forget gate and biases; leave it out"
        )
    with torch.no_grad():
        b_f = torch.empty(cell.hidden_size).uniform_(1, longest - 1, generator=generator).log_()
        for name, b in gates.items():
            b.copy_(signs[name] * b_f)  # type: ignore[union-attr]
    return cell


INITIALISATIONS = ("default", "orthogonal", "identity", "chrono")


def initialise_(module: Module, name: str, *, longest: int = 100, generator: torch.Generator | None = None) -> Module:
    """Initialise all cells by the name of one of these ways; returns the module.

    Args:
        module: a cell, or anything made of cells.
        name: "default" leaves everything as it is; the others are the functions here; "chrono:T" is for sequences of
            T steps.
        longest: of the sequences, in steps, for "chrono".

    Raises:
        ConfigError: there is no such way, or a cell has no such gate.

    >>> from carousel.cells import LSTM
    >>> cell = initialise_(LSTM(3, 4), "chrono", longest=20)
    >>> bool((cell.forget.b >= 0).all())
    True
    """
    given, (name, colon, steps) = name, name.partition(":")
    if colon:
        if name != "chrono" or not steps.isdecimal():
            raise ConfigError(f"initialisation: not one with a number (got {given!r}); chrono:T, T steps; chrono:100")
        longest = int(steps)
    if name not in INITIALISATIONS:
        [near] = difflib.get_close_matches(name, INITIALISATIONS, n=1, cutoff=0.0)
        raise ConfigError(
            f"initialisation: unknown (got {name!r}); {', '.join(INITIALISATIONS)}; did you mean {near!r}?"
        )
    if name == "orthogonal":
        orthogonal_(module, generator=generator)
    elif name == "identity":
        identity_(module)
    elif name == "chrono":
        for cell in module.modules():
            if isinstance(cell, Cell) and not any(isinstance(inner, Cell) for inner in [*cell.modules()][1:]):
                chrono_(cell, longest, generator=generator)
    return module


def _recurrent_weights(module: nn.Module) -> Iterator[Tensor]:
    for cell in module.modules():
        if isinstance(cell, Cell):
            yield from cell.recurrent_weights()
