"""The explorer: a page on which every pair of a corpus can be found, compared and traced."""

from stylear.curate.report.explorer.write import write_explorer

__all__ = ["write_explorer"]
