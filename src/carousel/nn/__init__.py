"""Modules made of cells."""

from carousel.nn.directions import Directions
from carousel.nn.recurrent import Recurrent
from carousel.nn.stream import Stream
from carousel.nn.torch_layers import GRU, LSTM, RNN
from carousel.nn.unroll import unroll

__all__ = ["GRU", "LSTM", "RNN", "Directions", "Recurrent", "Stream", "unroll"]
