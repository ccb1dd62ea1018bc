"""Scoring: models and hashes write numbers about pairs; nothing is decided here.

An image is decoded once; what is measured of it (an embedding, a hash) is a feature. A scorer compares the
features of images with captions or style references and writes one table a shard: `key` and its columns,
null where there is nothing to measure. The schema's metadata says which model and settings it used.
"""

from stylear.curate.score.open import open_scorer, scorer_fingerprint
from stylear.curate.score.table import COLOUR, DECIMALS, read_metadata

__all__ = ["COLOUR", "DECIMALS", "open_scorer", "read_metadata", "scorer_fingerprint"]
