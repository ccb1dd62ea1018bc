"""Diff: what two corpora have in common, what differs, and why."""

from stylear.curate.diff.compare import CorpusDiff, diff_corpora

__all__ = ["CorpusDiff", "diff_corpora"]
