"""Where the raw pairs come from: a folder, a host, a tar, and how many of its pairs are trained on."""

from __future__ import annotations

from collections import Counter
from urllib.parse import urlsplit

import numpy as np

from stylear.curate.corpus.columns import combine_chunks
from stylear.curate.corpus.parquet import read_tables
from stylear.curate.report.facts import Facts
from stylear.curate.report.links import PairLinks
from stylear.curate.report.page import Cell, render_paragraph, render_table, render_untrusted

SHOWN = 20


def render_sources(facts: Facts, links: PairLinks) -> str:
    """A table of the sources with most pairs first; nothing for a corpus without raw pairs."""
    seen, kept, mixed = count_sources(facts)
    if not seen:
        return ""
    most = sorted(seen, key=lambda source: (-seen[source], source))[:SHOWN]
    rows: list[list[Cell]] = [
        [
            render_untrusted(source),
            links.count(seen[source], source=source),
            links.count(kept[source], source=source, outcome="kept:filter"),
            links.count(mixed[source], source=source, outcome="used"),
        ]
        for source in most
    ]
    heads = ["source", "pairs seen", "kept by the filter", "in train and val"]
    note = f"The {SHOWN} of {len(seen):,} sources with the most pairs." if len(seen) > SHOWN else ""
    return (render_paragraph(note) if note else "") + render_table("Sources", heads, rows)


def count_sources(facts: Facts) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Raw pairs by source: seen, kept by the filter, in train and val."""
    seen: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    mixed: Counter[str] = Counter()
    start = 0  # raw pairs come first, in the order of their shards
    for _, table in read_tables(facts.corpus / "raw", ["source"]):
        names = np.array(
            [describe_source(text) for text in combine_chunks(table["source"]).to_pylist()], object
        )
        part = slice(start, start + len(names))
        seen.update(names)
        kept.update(names[facts.pairs.kept[part]])
        mixed.update(names[facts.mixed[part]])
        start += len(names)
    return seen, kept, mixed


def describe_source(text: str) -> str:
    """A source for the table: `folder photos` for folder:photos/a.jpg, `https://host` for a URL."""
    if "://" in text:
        try:
            url = urlsplit(text)
        except ValueError:
            return "unreadable URL"
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}"
    kind, _, path = text.partition(":")
    if "#" in path:
        return f"{kind} {path.rpartition('#')[0]}"
    return f"{kind} {path.rpartition('/')[0] or '.'}" if kind in ("folder", "parquet") else kind
