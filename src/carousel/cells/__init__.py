"""The recurrences, one file per family: equation, paper, step."""

from __future__ import annotations

import difflib

from carousel.cells.activations import ACTIVATIONS
from carousel.cells.antisymmetric import Antisymmetric, GatedAntisymmetric
from carousel.cells.batch_norm import BatchNormLSTM
from carousel.cells.cell import Affine, Cell, Packed
from carousel.cells.clockwork import Clockwork
from carousel.cells.cornn import CoRNN
from carousel.cells.elman import IRNN, Elman, Jordan
from carousel.cells.gauge import Readings, gauged, gauged_whole
from carousel.cells.gru import GRU, LayerNormGRU, ResetAfterGRU
from carousel.cells.indrnn import IndRNN
from carousel.cells.initialisation import chrono_, identity_, orthogonal_
from carousel.cells.interchange import from_torch, to_torch
from carousel.cells.layer_norm_lstm import LayerNormLSTM
from carousel.cells.lem import LEM
from carousel.cells.lru import LRU
from carousel.cells.lstm import LSTM, LSTM1997, ProjectedLSTM
from carousel.cells.lstm_variants import (
    CoupledLSTM,
    FullGateLSTM,
    NoForgetGateLSTM,
    NoInputActivationLSTM,
    NoInputGateLSTM,
    NoOutputActivationLSTM,
    NoOutputGateLSTM,
    PeepholeLSTM,
)
from carousel.cells.mgu import MGU
from carousel.cells.minimal import MinGRU, MinLSTM
from carousel.cells.mlstm import MLSTM
from carousel.cells.mrnn import MRNN
from carousel.cells.multiplicative_lstm import MultiplicativeLSTM
from carousel.cells.mut import MUT1, MUT2, MUT3
from carousel.cells.qrnn import QRNN
from carousel.cells.scan import linear_scan
from carousel.cells.slstm import SLSTM
from carousel.cells.sru import SRU
from carousel.cells.ugrnn import UGRNN
from carousel.errors import ConfigError

__all__ = [
    "ACTIVATIONS",
    "CELLS",
    "GRU",
    "IRNN",
    "LEM",
    "LRU",
    "LSTM",
    "LSTM1997",
    "MGU",
    "MLSTM",
    "MRNN",
    "MUT1",
    "MUT2",
    "MUT3",
    "QRNN",
    "SLSTM",
    "SRU",
    "UGRNN",
    "Affine",
    "Antisymmetric",
    "BatchNormLSTM",
    "Cell",
    "Clockwork",
    "CoRNN",
    "CoupledLSTM",
    "Elman",
    "FullGateLSTM",
    "GatedAntisymmetric",
    "IndRNN",
    "Jordan",
    "LayerNormGRU",
    "LayerNormLSTM",
    "MinGRU",
    "MinLSTM",
    "MultiplicativeLSTM",
    "NoForgetGateLSTM",
    "NoInputActivationLSTM",
    "NoInputGateLSTM",
    "NoOutputActivationLSTM",
    "NoOutputGateLSTM",
    "Packed",
    "PeepholeLSTM",
    "ProjectedLSTM",
    "Readings",
    "ResetAfterGRU",
    "cell_class",
    "chrono_",
    "from_torch",
    "gauged",
    "gauged_whole",
    "identity_",
    "linear_scan",
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
    "lstm-1997": LSTM1997,
    "lstm-projected": ProjectedLSTM,
    "lstm-peephole": PeepholeLSTM,
    "lstm-nig": NoInputGateLSTM,
    "lstm-nfg": NoForgetGateLSTM,
    "lstm-nog": NoOutputGateLSTM,
    "lstm-niaf": NoInputActivationLSTM,
    "lstm-noaf": NoOutputActivationLSTM,
    "lstm-cifg": CoupledLSTM,
    "lstm-np": LSTM,
    "lstm-fgr": FullGateLSTM,
    "lstm-layer-norm": LayerNormLSTM,
    "lstm-multiplicative": MultiplicativeLSTM,
    "slstm": SLSTM,
    "mlstm": MLSTM,
    "gru": GRU,
    "gru-reset-after": ResetAfterGRU,
    "antisymmetric": Antisymmetric,
    "antisymmetric-gated": GatedAntisymmetric,
    "cornn": CoRNN,
    "lem": LEM,
    "clockwork": Clockwork,
    "sru": SRU,
    "qrnn": QRNN,
    "lru": LRU,
    "mingru": MinGRU,
    "minlstm": MinLSTM,
    "gru-layer-norm": LayerNormGRU,
    "mgu": MGU,
    "mut1": MUT1,
    "mut2": MUT2,
    "mut3": MUT3,
    "ugrnn": UGRNN,
}


def cell_class(name: str) -> type[Cell]:
    """The cell of that name.

    Raises:
        ConfigError: no cell has that name; the message gives the nearest ones.

    >>> cell_class("lstm").__name__
    'LSTM'
    """
    if name in CELLS:
        return CELLS[name]
    nearest = difflib.get_close_matches(name.lower(), CELLS, n=3, cutoff=0.0)
    raise ConfigError(
        f"cell: unknown (got {name!r}); {', '.join(nearest)} and all that `carousel cells` lists; "
        f"did you mean {nearest[0]!r}?"
    )
