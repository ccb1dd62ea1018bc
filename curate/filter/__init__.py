"""Filtering: rules compare numbers. Only columns are read, so another threshold takes less than a second.

The rules in order: pairs that fetch and synthesize dropped stay dropped; the same stored bytes; thresholds;
votes; best of n in each candidate group; perceptual duplicates, within raw and within each style reference
(a stylized image resembles its parent on purpose); quotas. The first verdict counts.
"""

from __future__ import annotations

from stylear.curate.filter.apply import apply_rules, filter_corpus, load_rows
from stylear.curate.filter.diversity import count_kept, measure_all_diversity, read_diversity
from stylear.curate.filter.rows import Rows
from stylear.curate.filter.verdicts import count_funnel

__all__ = [
    "Rows",
    "apply_rules",
    "count_funnel",
    "count_kept",
    "filter_corpus",
    "load_rows",
    "measure_all_diversity",
    "read_diversity",
]
