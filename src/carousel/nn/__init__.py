"""Modules made of cells."""

from carousel.nn.recurrent import Recurrent
from carousel.nn.unroll import unroll

__all__ = ["Recurrent", "unroll"]
