"""Scoring: models and hashes write numbers about pairs; nothing is decided here.

An image is decoded once, and what is measured of it (an embedding, a hash) is a feature. Scorers compare
features, of images with captions or with style references, and give one table a shard: `key` and their
columns, null where there is nothing to measure. What they measured with stands in the schema's metadata.
"""

from stylear.curate.score.open import open_scorer, scorer_fingerprint
from stylear.curate.score.table import COLOUR, DECIMALS, read_metadata

__all__ = ["COLOUR", "DECIMALS", "open_scorer", "read_metadata", "scorer_fingerprint"]
