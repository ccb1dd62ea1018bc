"""The funnel of each style: how many of its pairs each stage left, and why it lost the others."""

from __future__ import annotations

import numpy as np

from stylear.curate.corpus.columns import Indices
from stylear.curate.report.facts import Facts, group_by_style
from stylear.curate.report.links import PairLinks
from stylear.curate.report.overview import render_reason
from stylear.curate.report.page import Cell, render_paragraph, render_table, render_untrusted

SHOWN = 200
REASONS_SHOWN = 5
HEADS = (
    "style", "synthesised", "with an image", "kept by the filter", "in train", "in val",
    "reasons, and how many pairs each",
)  # fmt: skip


def render_style_funnels(facts: Facts, links: PairLinks) -> str:
    """A table with the funnel of each style, by name."""
    styles = list(group_by_style(facts.pairs))
    rows = [render_style(facts, links, style, indices) for style, indices in styles[:SHOWN]]
    note = f"The first {SHOWN} of {len(styles):,} styles by name." if len(styles) > SHOWN else ""
    table = render_table("Funnel of each style", HEADS, rows)
    return (render_paragraph(note) if note else "") + table


def render_style(facts: Facts, links: PairLinks, style: str, indices: Indices) -> list[Cell]:
    """The row of one style."""
    names = facts.outcomes.names
    counts = np.bincount(facts.outcomes.codes[indices], minlength=len(names)).tolist()
    total = len(indices)
    lost = [
        (stage, reason, n) for (stage, reason), n in zip(names, counts, strict=True) if n and reason
    ]
    drawn = total - sum(n for stage, _, n in lost if stage == "synthesize")
    kept = drawn - sum(n for stage, _, n in lost if stage == "filter")
    train, val = counts[:2]
    lost.sort(key=lambda row: (-row[2], row[:2]))
    reasons = "".join(
        render_reason(links, stage, reason, n, style=style)
        for stage, reason, n in lost[:REASONS_SHOWN]
    )
    more = len(lost) - REASONS_SHOWN
    reasons += f"<li>and {more} other reasons</li>" if more > 0 else ""
    return [
        render_untrusted(style),
        links.count(total, style=style),
        links.count(drawn, style=style, outcome="kept:synthesize"),
        links.count(kept, style=style, outcome="kept:filter"),
        links.count(train, style=style, outcome="train"),
        links.count(val, style=style, outcome="val"),
        f"<ul>{reasons}</ul>" if reasons else "-",
    ]
