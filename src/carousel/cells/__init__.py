"""The recurrences, one file per family: equation, paper, step."""

from __future__ import annotations

import difflib

from carousel.cells.activations import ACTIVATIONS
from carousel.cells.cell import Affine, Cell, Packed
from carousel.cells.elman import IRNN, Elman, Jordan
from carousel.cells.gru import GRU, ResetAfterGRU
from carousel.cells.indrnn import IndRNN
from carousel.cells.initialisation import identity_, orthogonal_
from carousel.cells.interchange import from_torch, to_torch
from carousel.cells.lstm import LSTM, ProjectedLSTM
from carousel.cells.mrnn import MRNN
from carousel.errors import ConfigError

__all__ = [
    "ACTIVATIONS",
    "CELLS",
    "GRU",
    "IRNN",
    "LSTM",
    "MRNN",
    "Affine",
    "Cell",
    "Elman",
    "IndRNN",
    "Jordan",
    "Packed",
    "ProjectedLSTM",
    "ResetAfterGRU",
    "cell_class",
    "from_torch",
    "identity_",
    "orthogonal_",
    "to_torch",
]

CELLS: dict[str, type[Cell]] = {
    "elman": Elman,
    "irnn": IRNN,
    "jordan": Jordan,
    "indrnn": IndRNN,
    "mrnn": MRNN,
    "lstm": LSTM,
    "gru": GRU,
    "gru-reset-after": ResetAfterGRU,
}


def cell_class(name: str) -> type[Cell]:
    """The cell of that name.

    Raises:
        ConfigError: no cell has that name; the message gives the nearest one.

    >>> cell_class("lstm").__name__
    'LSTM'
    """
    if name in CELLS:
        return CELLS[name]
    nearest = difflib.get_close_matches(name.lower(), CELLS, n=1, cutoff=0.0)[0]
    raise ConfigError(f"cell: unknown (got {name!r}); {', '.join(CELLS)}; did you mean {nearest!r}?")
