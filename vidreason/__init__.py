"""Forecasting video by reasoning about the things in it."""

__version__ = "0.1.0"
