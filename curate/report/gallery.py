"""Samples of the pictures: raw pairs, and each style with its references; kept and dropped ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stylear.curate.corpus.candidates import parse_style
from stylear.curate.corpus.columns import Indices, to_bytes
from stylear.curate.corpus.pair_reader import PairReader
from stylear.curate.report.facts import Facts, group_by_style
from stylear.curate.report.links import PairLinks
from stylear.curate.report.page import (
    Section,
    make_anchor,
    render_heading,
    render_paragraph,
    shorten_text,
)
from stylear.curate.report.pictures import render_sample, render_thumbnail
from stylear.curate.report.sources import render_sources
from stylear.curate.report.style_funnels import render_style_funnels

KEPT_SHOWN, DROPPED_SHOWN = 12, 6  # samples of raw pairs, and of each style
MANY_STYLES = 12  # with more of them, half as many samples of each
STYLES_SHOWN, REFERENCES_SHOWN = 40, 6
NOTE = (
    "Samples are the first pairs by key. A key is a hash, so the selection is not curated. Of dropped pairs,"
    " each reason is shown once before any is shown again. Kept means kept by the filter."
)
STYLES_NOTE = (
    "Stylized pairs by the style of their reference. References are used to synthesise and to score; they are"
    " never training images. Samples are drawn like those of the raw pairs."
)


def raw_section(facts: Facts, reader: PairReader, links: PairLinks) -> Section:
    """Where the raw pairs come from, and samples of them."""
    indices = np.flatnonzero(~facts.pairs.stylized)
    indices = indices[np.argsort(to_bytes(facts.pairs.key.take(indices)), kind="stable")]
    samples = render_samples(facts, reader, indices, KEPT_SHOWN, DROPPED_SHOWN)
    body = render_sources(facts, links) + render_paragraph(NOTE) + samples
    return Section("raw-pairs", "Raw pairs", body)


def styles_section(facts: Facts, reader: PairReader, links: PairLinks) -> Section | None:
    """Each style with its references and samples of its pairs; None without stylized pairs."""
    styles = list(group_by_style(facts.pairs))
    if not styles:
        return None
    half = 2 if len(styles) > MANY_STYLES else 1
    parts = [render_paragraph(STYLES_NOTE), render_style_funnels(facts, links)]
    if len(styles) > STYLES_SHOWN:
        parts.append(
            render_paragraph(f"The first {STYLES_SHOWN} of {len(styles):,} styles by name.")
        )
    for number, (style, indices) in enumerate(styles[:STYLES_SHOWN], 1):
        kept = int(facts.pairs.kept[indices].sum())
        note = f"{kept:,} kept, {len(indices) - kept:,} dropped"
        anchor = make_anchor("style", str(number), style)
        parts += [
            render_heading(3, shorten_text(style), anchor, note),
            render_references(facts, style),
            render_samples(facts, reader, indices, KEPT_SHOWN // half, DROPPED_SHOWN // half),
        ]
    return Section("styles", "Styles", "".join(parts))


def render_references(facts: Facts, style: str) -> str:
    """The references of a style, and the names of those that cannot be shown."""
    lost = [name for name in facts.lost_references if parse_style(name) == style]
    known = [reference for reference in facts.references.values() if reference.style == style]
    shown = known[:REFERENCES_SHOWN]
    samples = [
        render_sample(
            render_thumbnail(reference.image, f"Style reference {reference.id}"),
            "Style reference",
            "reference",
            reference.id,
            [
                f"split {'val' if reference.held_out else 'train'}",
                f"sha256 {reference.sha256[:16]}",
            ],
        )
        for reference in shown
    ]
    words = f"References that are missing or have changed since: {', '.join(lost)}"
    count = f'<p class="count">{len(shown):,} of {len(known) + len(lost):,} style references</p>'
    return f'{count}<div class="samples">{"".join(samples)}</div>' + (
        render_paragraph(words, "warning") if lost else ""
    )


def render_samples(
    facts: Facts, reader: PairReader, indices: Indices, kept_shown: int, dropped_shown: int
) -> str:
    """Samples of these pairs, kept ones first, each with its total."""
    is_kept = facts.pairs.kept[indices]
    kept, dropped = indices[is_kept], interleave_by_reason(facts, indices[~is_kept])
    parts = []
    for chosen, shown, name in ((kept, kept_shown, "kept"), (dropped, dropped_shown, "dropped")):
        if not len(chosen):
            continue
        samples = "".join(render_pair(facts, reader, int(row)) for row in chosen[:shown])
        count = f"{min(shown, len(chosen)):,} of {len(chosen):,} {name} pairs"
        parts.append(f'<p class="count">{count}</p><div class="samples">{samples}</div>')
    return "".join(parts)


def interleave_by_reason(facts: Facts, indices: Indices) -> Indices:
    """The indices reordered so that each reason occurs once before any occurs twice."""
    reasons = facts.pairs.reason.codes[indices]
    order = np.argsort(reasons, kind="stable")
    starts = np.searchsorted(reasons[order], reasons[order])
    turn = np.empty(len(indices), np.int64)
    turn[order] = np.arange(len(indices)) - starts
    return indices[np.argsort(turn, kind="stable")]


def render_pair(facts: Facts, reader: PairReader, row: int) -> str:
    """One pair: its picture, its verdict, its caption and its scores."""
    pairs = facts.pairs
    pair = reader.pair(pairs.key[row].as_py())
    kept = bool(pairs.kept[row])
    reference = pairs.reference[row].as_py()
    kind = "Raw picture" if reference is None else f"Picture in the style of {reference}"
    image = render_thumbnail(pair.image, f"{kind}: {pair.caption}")
    verdict = "Kept" if kept else f"Dropped: {pairs.reason.text_at(row) or 'no reason'}"
    details = [" · ".join(render_scores(facts, row))]
    details += [pair.origin.source if reference is None else f"reference {reference}"]
    return render_sample(image, verdict, "kept" if kept else "dropped", pair.caption, details)


def render_scores(facts: Facts, row: int) -> Sequence[str]:
    """The scores that a pair has."""
    return [
        f"{name} {column[row].as_py():.2f}"
        for name, column in facts.scores.items()
        if column[row].is_valid
    ]
