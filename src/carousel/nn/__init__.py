"""Modules made of cells."""

from carousel.nn.dilation import Dilated
from carousel.nn.directions import Directions
from carousel.nn.dropouts import CandidateDropout, Zoneout, dropped_weights
from carousel.nn.initial import LearnedStart
from carousel.nn.locked import Locked
from carousel.nn.recurrent import Recurrent
from carousel.nn.shape import Shape
from carousel.nn.stream import Stream
from carousel.nn.torch_layers import GRU, LSTM, RNN
from carousel.nn.unroll import unroll
from carousel.nn.wrapper import Wrapper

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "CandidateDropout",
    "Dilated",
    "Directions",
    "LearnedStart",
    "Locked",
    "Recurrent",
    "Shape",
    "Stream",
    "Wrapper",
    "Zoneout",
    "dropped_weights",
    "unroll",
]
