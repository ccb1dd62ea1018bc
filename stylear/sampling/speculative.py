"""Speculative Jacobi decoding (arXiv 2410.01699): several codes a forward pass, without loss.

A pass reads a window of drafted codes and gives the distribution p of each. Drafts are accepted from left to
right with probability min(1, p / q), where q is the distribution that the draft came from; the first that is
refused is drawn anew from max(0, p - q), and those behind it are drafted anew from their p. So each pass decides
at least one code, and each code has exactly the distribution of one drawn after the codes before it.
B pictures, R rows of a forward (B or 2B), W window, V codes, S tokens of a picture with newlines.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from stylear.sampling.decode import CodeSampler, capture_graph, pad_rows, shape_logits


class SpeculativeSampler(CodeSampler):
    """Draws image codes with windows of drafts, from the distribution that `CodeSampler` draws from.

    At temperature 0 the codes are the same. At others they are not, because speculation takes more random numbers
    than one for each code: each picture's are seeded by its first draw, so that a picture does not depend on
    the others of its batch.
    """
