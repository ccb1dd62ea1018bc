"""Diff: what two corpora have in common, and what differs."""

from stylear.curate.diff.compare import CorpusDiff, diff_corpora

__all__ = ["CorpusDiff", "diff_corpora"]
