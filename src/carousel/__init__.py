"""Carousel: learn from sequences with recurrent networks."""

__version__ = "0.1.0"
