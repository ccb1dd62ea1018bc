"""Build a style corpus you can defend; train a style-aligned autoregressive image model on it."""

__version__ = "0.1.0"
