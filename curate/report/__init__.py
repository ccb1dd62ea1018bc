"""The static report page of a corpus."""

from stylear.curate.report.corpus_page import write_report

__all__ = ["write_report"]
