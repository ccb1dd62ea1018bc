"""Links from the numbers of the report to the pairs that they count, on the explorer's page."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from urllib.parse import urlencode

from stylear.curate.report.page import Cell, Count

PAIRS_PAGE = "pairs.html"


@dataclass(frozen=True, slots=True)
class PairLinks:
    """Makes links to the explorer; `folder` leads from the page to the report, `` or `corpus/report/`."""

    folder: str = ""

    def href(self, **query: str) -> str:
        """The address of the pairs that a query selects: outcome, reason, kind, style, licence, ..."""
        words = f"#{urlencode(query)}" if query else ""
        return f"{self.folder}{PAIRS_PAGE}{words}"

    def count(self, number: int, **query: str) -> Cell:
        """A number that leads to its pairs; plain if there are none."""
        return Count(number, self.href(**query)) if number else 0

    def link(self, html: str, **query: str) -> str:
        """HTML that leads to the pairs of a query."""
        return f'<a href="{escape(self.href(**query))}">{html}</a>'
