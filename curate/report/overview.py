"""The top of the report: the totals of a corpus, its warnings, and the pairs that each stage dropped."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from stylear.curate.audit.manifest import read_warnings, stage_counts
from stylear.curate.corpus.candidates import parse_style
from stylear.curate.corpus.columns import hash_identities
from stylear.curate.corpus.ledger import Ledger
from stylear.curate.corpus.parquet import count_rows
from stylear.curate.report.charts import render_legend
from stylear.curate.report.facts import Facts
from stylear.curate.report.links import PairLinks
from stylear.curate.report.page import (
    Cell,
    Section,
    render_paragraph,
    render_table,
    render_untrusted,
)

COUNTED = {  # what the numbers of a stage count
    "fetch": "raw pairs, one for each row or file of the sources",
    "synthesize": "stylized pairs, one for each synthesised image",
    "filter": "raw and stylized pairs that have an image",
    "mix": "pairs that the filter kept",
}


def render_totals(facts: Facts, links: PairLinks) -> str:
    """The totals with their labels, a link to the pairs, and the warnings of the run."""
    pairs, mixed = facts.pairs, facts.mixed
    stylized = int((mixed & pairs.stylized).sum())
    raw = int(mixed.sum()) - stylized
    contents = np.unique(hash_identities(pairs.content.filter(mixed)))
    references = pairs.reference.filter(mixed).dictionary_encode().dictionary.to_pylist()
    styles = {parse_style(reference) for reference in references if reference}
    seen = int(pairs.stylized.sum())
    totals: list[tuple[str, str, str]] = [
        (
            f"{len(pairs):,}",
            "pairs seen",
            f"{len(pairs) - seen:,} raw, {seen:,} stylized; dropped ones too",
        ),
        (
            f"{raw + stylized:,}",
            "training pairs",
            f"{raw:,} raw, {stylized:,} stylized; train and val",
        ),
        (
            f"{raw / stylized:.2f} : 1" if stylized else "-",
            "raw : stylized",
            f"of the training pairs; asked: {facts.recipe.mix.raw_per_stylized:g} : 1",
        ),
        (f"{len(contents):,}", "contents", "distinct captions of the training pairs"),
        (f"{len(styles):,}", "styles", "of the training pairs"),
        (
            f"{count_rows(facts.corpus / 'preferences'):,}",
            "preference pairs",
            "chosen and rejected image of one prompt",
        ),
    ]
    cards = "".join(
        f"<div><dt>{what}</dt><dd>{escape(number)}</dd><dd class='note'>{counted}</dd></div>"
        for number, what, counted in totals
    )
    warnings = "".join(
        render_paragraph(f"Warning: {text}", "warning") for text in read_warnings(facts.corpus)
    )
    ways = (
        links.link(f"All {len(pairs):,} pairs"),
        links.link("text against style", view="scatter"),
        links.link("duplicates side by side", view="duplicates"),
    )
    return f'<dl class="totals">{cards}</dl><p>{" · ".join(ways)}</p>{warnings}'


def funnel_section(facts: Facts, links: PairLinks) -> Section:
    """The pairs that each stage took in and dropped, with reasons; each number leads to its pairs."""
    counted = stage_counts(Ledger(facts.corpus))
    empty: dict[str, Any] = {"rows": 0, "kept": 0, "dropped": {}}
    stages = {stage: counted.get(stage, empty) for stage in COUNTED}
    most = max(counts["rows"] for counts in stages.values()) or 1
    rows: list[list[Cell]] = []
    for stage, counts in stages.items():
        came, kept = counts["rows"], counts["kept"]
        most_first = sorted(counts["dropped"].items(), key=lambda d: (-d[1], d[0]))
        reasons = "".join(render_reason(links, stage, *row) for row in most_first)
        rows.append(
            [
                f"{stage}<small>{COUNTED[stage]}</small>",
                links.count(came, outcome=f"in:{stage}"),
                links.count(kept, outcome=f"kept:{stage}"),
                links.count(came - kept, outcome=f"dropped:{stage}"),
                render_bar(kept / most, (came - kept) / most),
                f"<ul>{reasons}</ul>" if reasons else "-",
            ]
        )
    note = (
        "Each stage counts pairs, one caption with one image. A dropped pair stays in the corpus with its"
        " stage and its reason; it is counted by the stage that dropped it and by none after that. A number"
        " leads to its pairs."
    )
    heads = [
        "stage, and what it counts",
        "in",
        "kept",
        "dropped",
        "share",
        "reasons, and how many pairs each",
    ]
    legend = render_legend([("kept", "kept"), ("dropped", "dropped")])
    table = render_table("Pairs kept and dropped by each stage", heads, rows, "funnel")
    return Section("funnel", "Funnel", render_paragraph(note) + legend + table)


def render_reason(links: PairLinks, stage: str, reason: str, number: int, **query: str) -> str:
    """A list item with a reason and its number of pairs, which leads to them."""
    words = f"{render_untrusted(reason)} {number:,}"
    return f"<li>{links.link(words, outcome=f'dropped:{stage}', reason=reason, **query)}</li>"


def render_bar(kept: float, dropped: float) -> str:
    """Two shares of the longest bar, side by side."""
    return (
        '<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="kept" width="{100 * kept:.1f}" height="6"/>'
        f'<rect class="dropped" x="{100 * kept:.1f}" width="{100 * dropped:.1f}" height="6"/></svg>'
    )
