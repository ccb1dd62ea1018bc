"""What a browser would see of a page: tags, anchors, table rows, and pictures with the words below them."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = ("meta", "img", "br", "rect", "line", "polyline")


@dataclass
class Sample:
    """One picture of a gallery with the words below it."""

    name: str  # kept, dropped or reference
    verdict: str = ""
    caption: str = ""
    details: list[str] = field(default_factory=list)
    src: str | None = None  # None: a gap
    alt: str = ""
    width: int = 0


class Page(HTMLParser):
    """A parsed page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.headings: list[tuple[str, str, str]] = []  # tag, id, text of its link
        self.rows: list[list[str]] = []  # of tables, cell by cell
        self.samples: list[Sample] = []
        self.counts: list[str] = []
        self.warnings: list[str] = []
        self.style = ""
        self._open: list[tuple[str, str]] = []  # tag, class
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        name = attributes.get("class") or ""
        self.tags.append((tag, attributes))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag in ("h1", "h2", "h3"):
            self.headings.append((tag, attributes.get("id") or "", ""))
        elif tag == "figure" and name.startswith("sample "):
            self.samples.append(Sample(name.split()[1]))
        elif tag == "img" and self._inside("figure", "sample"):
            sample = self.samples[-1]
            sample.src, sample.alt = attributes.get("src"), attributes.get("alt") or ""
            sample.width = int(attributes.get("width") or 0)
        elif tag == "p" and name == "warning":
            self.warnings.append("")
        elif tag == "p" and name == "count":
            self.counts.append("")
        if tag not in VOID:
            self._open.append((tag, name))

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1][0] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        tag, name = self._open[-1] if self._open else ("", "")
        if tag == "style":
            self.style += data
        if any(tag in ("td", "th") for tag, _ in self._open):
            self.rows[-1][-1] += data
        if tag == "h1" or (tag == "a" and any(t in ("h2", "h3") for t, _ in self._open)):
            level, anchor, text = self.headings[-1]
            self.headings[-1] = (level, anchor, text + data)
        if self._inside("figure", "sample"):
            sample = self.samples[-1]
            if tag == "strong":
                sample.verdict += data
            elif tag == "bdi":
                sample.caption += data
            elif tag == "small":
                sample.details.append(data)
        if (tag, name) == ("p", "warning"):
            self.warnings[-1] += data
        if (tag, name) == ("p", "count"):
            self.counts[-1] += data

    def _inside(self, tag: str, name: str) -> bool:
        return any(t == tag and n.split()[:1] == [name] for t, n in self._open)

    def attributes(self, tag: str, name: str) -> list[str]:
        """The values of an attribute of all tags of a kind."""
        return [
            str(attributes[name])
            for kind, attributes in self.tags
            if kind == tag and name in attributes
        ]

    def table(self, first_head: str) -> list[list[str]]:
        """The rows of the table whose first column has this head, without the heads."""
        start = next(n for n, row in enumerate(self.rows) if row and row[0] == first_head)
        width = len(self.rows[start])
        rows = []
        for row in self.rows[start + 1 :]:
            if len(row) != width:
                break
            rows.append(row)
        return rows
