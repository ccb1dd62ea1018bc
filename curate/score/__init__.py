"""Scoring: models and hashes compute numbers for each pair; the filter decides by them.

An image is decoded once; what is computed from it (an embedding, a hash) is a feature. A scorer compares
the features of images with captions or style references and writes one table per shard: `key` and its
columns, null where there is nothing to measure. The schema's metadata says which model and settings it used.
"""

from stylear.curate.score.open import compute_scorer_fingerprint, open_scorer
from stylear.curate.score.table import COLOUR, DECIMALS, read_metadata

__all__ = ["COLOUR", "DECIMALS", "compute_scorer_fingerprint", "open_scorer", "read_metadata"]
